"""What on a shelf is needed, and by whom: from environments to indexes, builds and their objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cloudimport.errors import AbsentError, CloudImportError, FormatError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import BuildPointer, Layout
from cloudimport.format.records import (
    FORMAT,
    MALFORMED,
    EnvironmentPointer,
    Ref,
    canonical,
    identity,
    parse,
    requirements_digest,
    sha256,
    text,
)
from cloudimport.ids import Pin, Target, check_digest
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools.store import Store

#: Records that are read at a time.
_READERS = 8

Build = tuple[Pin, str]
_OBJECT = re.compile(
    r"packages/[^/]+/[^/]+/(?P<target>[^/]+)/"
    r"(?P<what>build\.json|(?:content|layout|pack|provenance|boot)-[0-9a-f]{64})\Z"
)


class Environment(NamedTuple):
    """An environment pointer and its requirements digest."""

    digest: str
    pointer: EnvironmentPointer

    def indexes(self) -> Iterator[tuple[str, Ref]]:
        """Yield (target, index): those of now, and those that lockfiles may pin still."""
        yield from self.pointer.targets.items()
        for target, old in self.pointer.history.items():
            yield from ((target, ref) for ref in old)


def environments(store: Store) -> list[Environment]:
    """Return every environment, by digest. Raises a FetchError, or FormatError for a damaged pointer."""
    found = []
    for key in sorted(store.list("envs/")):
        data = store.read_versioned(key) if key.endswith(".json") else None
        if data is not None:  # else it was forgotten meanwhile
            pointer = EnvironmentPointer.decode(data[0], f"{store.url}/{key}")
            digest = requirements_digest(pointer.requirements)
            if keys.environment_pointer(digest) != key:
                raise FormatError(f"{store.url}/{key} is for other requirements than its name says")
            found.append(Environment(digest, pointer))
    return found


class Needs(NamedTuple):
    """What one environment index pins: its builds, and the keys of their objects that it names."""

    target: str
    requirements: tuple[str, ...]
    builds: tuple[Pin, ...]
    keys: frozenset[str]


class Reach:
    """Answers what is needed, and keeps the answers that can never change. Safe to be used by threads."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._needs: dict[str, Needs] = {}
        self._packs: dict[str, tuple[str, ...]] = {}
        self._lists: dict[str, BootList] = {}
        #: Bytes of the packs that were met.
        self.sizes: dict[str, int] = {}

    def index(self, ref: Ref) -> Needs:
        """Return what an index needs, itself included. Raises a FetchError or FormatError."""
        if ref.digest not in self._needs:
            key = keys.environment_index(ref.digest)
            index = EnvironmentIndex(read_record(self._source, key, ref), ref)
            found = {key}
            for number, build in enumerate(index.builds):
                prefix = keys.build_prefix(*build.pin, index.target)
                found |= {f"{prefix}content-{build.content}", f"{prefix}layout-{build.layout}"}
                found |= {pack for pack, _ in index.section(number).packs}
                self.sizes.update(index.section(number).packs)
            pins = tuple(build.pin for build in index.builds)
            self._needs[ref.digest] = Needs(index.target, index.requirements, pins, frozenset(found))
        return self._needs[ref.digest]

    def indexes(self, refs: Iterable[Ref]) -> list[Needs]:
        """Return what indexes need; several are read at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self.index, refs))

    def build(self, build: Build) -> frozenset[str]:
        """Return the keys that a build's pointer leads to, itself included; none if it is absent.

        Raises a FetchError or FormatError.
        """
        pin, target = build
        key = keys.build_pointer(*pin, target)
        try:
            pointer = BuildPointer.decode(self._source.read(key), f"{self._source.url}/{key}")
        except AbsentError:
            return frozenset()
        prefix = keys.build_prefix(*pin, target)
        layout = f"{prefix}layout-{pointer.layout.digest}"
        if layout not in self._packs:
            record = Layout.decode(read_record(self._source, layout, pointer.layout), layout)
            self._packs[layout] = tuple(pack_keys(record))
            self.sizes.update(zip(self._packs[layout], (pack.size for pack in record.packs), strict=True))
        content, whence = (
            f"{prefix}content-{pointer.content.digest}",
            f"{prefix}provenance-{pointer.provenance.digest}",
        )
        return frozenset((key, content, layout, whence, *self._packs[layout]))

    def builds(self, builds: Iterable[Build]) -> set[str]:
        """Return the same of many builds; several are read at a time."""
        with ThreadPoolExecutor(_READERS) as pool:
            return set().union(*pool.map(self.build, builds))

    def boot(self, key: str) -> BootList | None:
        """Return the list of a boot image's parts; None if it is damaged, which costs its readers time only.

        Raises a FetchError.
        """
        if key not in self._lists:
            try:
                self._lists[key] = BootList.decode(self._source.read(key), key)
            except (AbsentError, FormatError):
                return None
        return self._lists[key]


def build_of(key: str) -> Build | None:
    """Return the build that an object belongs to, None for other keys, and such as no shelf has."""
    match = _OBJECT.match(key)
    if match is None:
        return None
    try:
        pin = Pin.parse(keys.package_of(key))
        target = str(Target.parse(match["target"]))
    except CloudImportError:
        return None
    is_normal = keys.build_prefix(*pin, target) + match["what"] == key
    return (pin, target) if is_normal else None


def pack_keys(layout: Layout) -> Iterator[str]:
    """Yield the keys of a layout's packs."""
    for pack in layout.packs:
        yield keys.build_prefix(layout.name, pack.version, pack.target) + f"pack-{pack.digest}"


class BootList(NamedTuple):
    """The parts of a boot image, as (name, version, digest), for an index (docs/format.md, section 12)."""

    environment: str
    target: str
    parts: tuple[tuple[str, str, str], ...]

    def encode(self) -> bytes:
        """Return the canonical bytes, whose digest is in the key."""
        record = {"index": self.environment, "target": self.target, "parts": self.parts}
        return canonical({**record, "format": FORMAT, "kind": "boot"})

    @property
    def key(self) -> str:
        """The key of the list."""
        return keys.boot_list(self.environment, sha256(self.encode()))

    def part_keys(self) -> Iterator[str]:
        """Yield the keys of the parts."""
        for name, version, digest in self.parts:
            yield keys.build_prefix(name, version, self.target) + f"boot-{digest}"

    @classmethod
    def decode(cls, data: bytes, key: str) -> BootList:
        """Return the list that ``data`` holds. Raises FormatError, also if it is not what ``key`` says."""
        record = parse(data, "boot", key)
        try:
            target = str(Target.parse(text(record["target"])))
            parts = tuple(
                (*identity(name, version, target)[:2], check_digest(digest))
                for name, version, digest in record["parts"]
            )
            found = cls(check_digest(record["index"]), target, parts)
        except MALFORMED as error:
            raise FormatError(f"{key} is not a well-formed list of a boot image: {error!r}") from None
        if keys.boot_list(found.environment, sha256(data)) != key:
            raise FormatError(f"{key} is damaged, or of another index than its name says")
        return found


def unreadable(what: str, error: CloudImportError) -> FormatError:
    """Return the error of a collection that cannot tell what is needed."""
    return FormatError(
        f"{error}: what {what} needs is not known, so nothing is collected; repair it "
        "('shelf verify --repair'), or forget it ('shelf forget')"
    )
