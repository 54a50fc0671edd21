"""``shelf diff``: what differs between two builds, or two lockfiles, and what of it wants a second look."""

from __future__ import annotations

import configparser
import re
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

from packaging.requirements import Requirement as Dependency
from packaging.utils import canonicalize_name

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.content import Content, File
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import Layout
from cloudimport.format.lock import Lock
from cloudimport.format.records import Extents, Ref
from cloudimport.ids import Pin
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools import network
from shelf_tools.builds import Blocks
from shelf_tools.indexing import Built
from shelf_tools.install import is_executable_pth
from shelf_tools.objects import plain

#: What PEP 503 takes for one and the same.
_SEPARATORS = re.compile("[-_.]+")
#: Packages that are compared at a time.
_COMPARED = 4


class Changed(NamedTuple):
    """A file in both with other bytes: sizes before and after."""

    path: str
    before: int
    after: int


class Signs(NamedTuple):
    """A file with signs of networks that it did not have; ``first``: those that the package had nowhere."""

    path: str
    names: tuple[str, ...]
    first: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """What differs between two builds, one of which may be none. Sizes in bytes: before, and after.

    Paths in ``.dist-info`` are without the version, so that those of two versions are compared.
    """

    target: str
    before: Pin | None
    after: Pin | None
    size: tuple[int, int] = (0, 0)
    stored: tuple[int, int] = (0, 0)
    added: tuple[tuple[str, int], ...] = ()
    removed: tuple[tuple[str, int], ...] = ()
    changed: tuple[Changed, ...] = ()
    requires_added: tuple[str, ...] = ()
    requires_removed: tuple[str, ...] = ()
    native: tuple[str, ...] = ()
    entry_points: tuple[str, ...] = ()
    pth: tuple[str, ...] = ()
    network: tuple[Signs, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The package's name."""
        pin = self.after or self.before
        assert pin is not None
        return pin.name

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            **vars(self),
            "before": str(self.before) if self.before else None,
            "after": str(self.after) if self.after else None,
            "added": [{"path": path, "size": size} for path, size in self.added],
            "removed": [{"path": path, "size": size} for path, size in self.removed],
            "changed": [one._asdict() for one in self.changed],
            "network": [one._asdict() for one in self.network],
        }


class Side:
    """One build, or none, with what is read of it when it is asked for."""

    def __init__(self, source: Source | None, built: Built | None) -> None:
        self.built = built
        self.files: dict[str, File] = {}
        self._extents: dict[str, Extents] = {}
        self._blocks: Blocks | None = None
        if built is not None and source is not None:
            self._blocks = Blocks(source, built)
            rows = list(zip(built.content.files, built.layout.files, strict=True))
            self.files = {_place(file.path, built.content): file for file, _ in rows}
            self._extents = {_place(file.path, built.content): extents for file, extents in rows}

    @property
    def pin(self) -> Pin | None:
        """Its pin."""
        return Pin(self.built.content.name, self.built.content.version) if self.built else None

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes installed, and stored."""
        packs = self.built.layout.packs if self.built else ()
        return sum(file.size for file in self.files.values()), sum(pack.size for pack in packs)

    @property
    def requires(self) -> tuple[str, ...]:
        """Its dependencies."""
        return self.built.content.requires if self.built else ()

    def read(self, path: str) -> bytes:
        """Return a file. Raises a FetchError."""
        assert self._blocks is not None
        return self._blocks.plain(self._extents[path])

    def signs(self, path: str) -> frozenset[str]:
        """Return the signs of networks in a file; none if it is not there. Raises a FetchError."""
        file = self.files.get(path)
        if file is None or self.built is None or self._blocks is None:
            return frozenset()
        if path in self.built.layout.code:
            return frozenset(network.in_code(self._blocks.plain(self.built.layout.code[path])))
        if file.kind == "bytecode":
            return frozenset(network.in_code(self.read(path)))
        if file.kind in ("source", "script"):
            return frozenset(network.in_text(self.read(path)))
        return frozenset(network.in_native(self._pieces(path))) if file.kind == "native" else frozenset()

    def _pieces(self, path: str) -> Iterator[bytes]:
        assert self._blocks is not None
        extents = self._extents[path]
        for at in range(0, len(extents), 3):
            yield self._blocks.plain(extents[at : at + 3])


def _place(path: str, content: Content) -> str:
    """Return a path as it is compared and shown: two versions have their metadata in different folders."""
    folder, inside, rest = path.partition("/")
    name = folder.removesuffix(".dist-info").rpartition("-")[0]
    is_metadata = (
        inside and folder.endswith(".dist-info") and _SEPARATORS.sub("-", name.lower()) == content.name
    )
    return f"{content.name}.dist-info/{rest}" if is_metadata else path


def compare(before: Side, after: Side, target: str) -> Difference:
    """Return what is different. Raises a FetchError."""
    new = [path for path in after.files if _differs(before, after, path)]
    old_lines, _ = _entry_points(before)
    lines, unread = _entry_points(after)
    return Difference(
        target,
        before.pin,
        after.pin,
        (before.sizes[0], after.sizes[0]),
        (before.sizes[1], after.sizes[1]),
        tuple((path, file.size) for path, file in after.files.items() if path not in before.files),
        tuple((path, file.size) for path, file in before.files.items() if path not in after.files),
        tuple(
            Changed(path, before.files[path].size, after.files[path].size)
            for path in new
            if path in before.files
        ),
        tuple(sorted(_dependencies(after) - _dependencies(before))),
        tuple(sorted(_dependencies(before) - _dependencies(after))),
        tuple(path for path in new if after.files[path].kind == "native" and not _is_native(before, path)),
        tuple(sorted(lines - old_lines)),
        tuple(path for path in new if _is_pth(path) and is_executable_pth(after.read(path))),
        _signs(before, after, new),
        unread,
    )


def _changed(before: Side, after: Side, path: str) -> Changed:
    return Changed(path, before.files[path].size, after.files[path].size)


def _differs(before: Side, after: Side, path: str) -> bool:
    old, new = before.files.get(path), after.files[path]
    return old is None or (old.digest, old.executable) != (new.digest, new.executable)


def _is_native(side: Side, path: str) -> bool:
    return path in side.files and side.files[path].kind == "native"


def _is_pth(path: str) -> bool:
    return "/" not in path and path.endswith(".pth")


def _dependencies(side: Side) -> set[str]:
    """Return a build's dependencies, each as ``packaging`` writes it: backends write them differently."""
    return {_normal(line) for line in side.requires}


def _normal(line: str) -> str:
    try:
        found = Dependency(line)
        found.name = canonicalize_name(found.name)
        found.extras = {canonicalize_name(extra) for extra in found.extras}
        return str(found)
    except (ValueError, RecursionError):  # InvalidRequirement, and numbers that are too long for int()
        return line


def _entry_points(side: Side) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return ``group: name = value`` of a build's entry points, and lines on what cannot be read."""
    found: set[str] = set()
    unread = []
    for path in side.files:
        if path.endswith(".dist-info/entry_points.txt") and path.count("/") == 1:
            parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            try:
                parser.read_string(side.read(path).decode())
            except (configparser.Error, UnicodeDecodeError) as error:
                unread.append(f"{path}: {str(error).splitlines()[0]}")
                continue
            for group in parser.sections():
                found |= {f"{group}: {name} = {value}" for name, value in parser.items(group)}
    return frozenset(found), tuple(unread)


def _signs(before: Side, after: Side, new: list[str]) -> tuple[Signs, ...]:
    found = {path: after.signs(path) - before.signs(path) for path in new}
    found = {path: names for path, names in found.items() if names}
    # Only if there is something is it worth reading all that there was.
    known = frozenset[str]().union(*map(before.signs, before.files)) if found else frozenset()
    return tuple(
        Signs(path, tuple(sorted(names)), tuple(sorted(names - known))) for path, names in found.items()
    )


class Place(NamedTuple):
    """A build as an index names it, and where to read it."""

    source: Source
    pin: Pin
    target: str
    content: str
    layout: str

    def read(self) -> Side:
        """Return the build. Raises a FetchError or FormatError."""
        prefix = keys.build_prefix(*self.pin, self.target)
        content_key, layout_key = f"{prefix}content-{self.content}", f"{prefix}layout-{self.layout}"
        content = Content.decode(plain(content_key, self.source.read(content_key)), content_key)
        layout = Layout.decode(plain(layout_key, self.source.read(layout_key)), layout_key)
        whose = (*self.pin, self.target)
        for record in (content, layout):
            if (record.name, record.version, record.target) != whose:
                raise FormatError(f"{self.source.url}/{prefix}: it is of {record.name}=={record.version}")
        if layout.content != self.content or len(layout.files) != len(content.files):
            raise FormatError(f"{self.source.url}/{layout_key} is not a layout of content {self.content}")
        return Side(self.source, Built(content, self.content, layout, self.layout))


def places(source: Source, ref: Ref) -> dict[str, Place]:
    """Return the builds of an environment index by name. Raises a FetchError or FormatError."""
    index = EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    return {
        build.pin.name: Place(source, build.pin, index.target, build.content, build.layout)
        for build in index.builds
    }


@dataclass(frozen=True)
class Locks:
    """What is different between two lockfiles for one target. ``same``: how many packages are."""

    target: str
    same: int = 0
    differences: tuple[Difference, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        packages = [one.record() for one in self.differences]
        return {"target": self.target, "same": self.same, "packages": packages}


def compare_locks(
    before: tuple[Lock, Source],
    after: tuple[Lock, Source],
    targets: Collection[str],
    on_done: Callable[[str], None],
) -> Iterator[Locks]:
    """Yield what is different for each target that both have, of ``targets`` if there are any.

    Raises ConfigurationError if there is none, a FetchError or FormatError.
    """
    shared = [target for target in before[0].targets if target in after[0].targets]
    chosen = [target for target in shared if not targets or target in targets]
    if not chosen:
        every = ", ".join(sorted({*before[0].targets, *after[0].targets}))
        raise ConfigurationError(
            f"the lockfiles have no target in common of those that were asked for: {every}"
        )
    for target in chosen:
        old = places(before[1], before[0].targets[target])
        new = places(after[1], after[0].targets[target])
        names = sorted({*old, *new})
        differing = [name for name in names if not _is_same(old.get(name), new.get(name))]
        found = []
        with ThreadPoolExecutor(_COMPARED) as pool:
            ones, others = map(old.get, differing), map(new.get, differing)
            for one in pool.map(_compare, ones, others, repeat(target)):
                on_done(one.name)
                found.append(one)
        yield Locks(target, len(names) - len(differing), tuple(found))


def _is_same(one: Place | None, other: Place | None) -> bool:
    return one is not None and other is not None and one.content == other.content


def _compare(one: Place | None, other: Place | None, target: str) -> Difference:
    none = Side(None, None)
    return compare(one.read() if one else none, other.read() if other else none, target)
