"""``shelf ls``, ``show`` and ``verify``: what is on a shelf, and whether it is sound."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from cloudimport.format import keys
from cloudimport.format.content import File
from cloudimport.format.records import parse
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import published, read_build, read_provenance, verify_build
from shelf_tools.environments import verify_environments
from shelf_tools.indexing import Built
from shelf_tools.needed import NeededBy, needed_by
from shelf_tools.objects import Walk
from shelf_tools.reach import Build, Environment, build_of, environments
from shelf_tools.status import Mark, read_marks, verify_status
from shelf_tools.store import Store, open_store

#: Builds verified at a time: what bounds it is reading.
_JOBS = 4


class Listed(NamedTuple):
    """A build of a listing: its objects, their bytes, and when it was published.

    ``published``: seconds since 1970, None where the store does not say. ``yanked``: the mark, if it has one.
    """

    pin: Pin
    target: Target
    objects: int
    stored: int
    published: float | None
    yanked: Mark | None

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        own = {"name": self.pin.name, "version": self.pin.version, "target": str(self.target)}
        figures = {"objects": self.objects, "stored": self.stored, "published": self.published}
        return {**own, **figures, "yanked": self.yanked and self.yanked.record()}


class Chosen(NamedTuple):
    """What a listing is to have: all of it that holds.

    ``names`` are globs, ``targets`` targets, if there are any; published within ``newer`` and longer ago than
    ``older`` seconds. What has no known age is neither.
    """

    names: Sequence[str] = ()
    targets: Collection[str] = ()
    older: float | None = None
    newer: float | None = None

    def has_name(self, names: Iterable[str]) -> bool:
        """Whether one of the names is wanted."""
        return not self.names or any(fnmatchcase(name, glob) for name in names for glob in self.names)

    def has_target(self, target: str) -> bool:
        """Whether a target is wanted."""
        return not self.targets or target in self.targets

    def has_age(self, published: float | None) -> bool:
        """Whether what was published then is wanted."""
        if self.older is None and self.newer is None:
            return True
        age = None if published is None else time.time() - published
        return (
            age is not None
            and (self.older is None or age > self.older)
            and (self.newer is None or age <= self.newer)
        )


class Shown(NamedTuple):
    """A build in figures. Sizes in bytes."""

    pin: Pin
    target: Target
    content: str
    order: str
    files: int
    size: int
    stored: int
    modules: int
    native: int
    lead_stored: int
    requires: tuple[str, ...]
    provenance: dict[str, Any]
    rows: tuple[File, ...]
    needed: NeededBy
    yanked: Mark | None

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        left = {
            name: value
            for name, value in self._asdict().items()
            if name not in ("pin", "rows", "needed", "yanked")
        }
        return {
            **left,
            "name": self.pin.name,
            "version": self.pin.version,
            "target": str(self.target),
            "yanked": self.yanked and self.yanked.record(),
            "files": [file._asdict() for file in self.rows],
            "needed_by": {
                "environments": [
                    {"digest": one.environment, "index": one.pinned, "replaced": one.replaced}
                    for one in self.needed.environments
                ],
                "packages": [
                    {"pin": str(pin), "requires": list(lines)} for pin, lines in self.needed.packages
                ],
            },
        }


class Shelf:
    """A shelf to look at. Raises ConfigurationError if there is none, FormatError for a newer one.

    ``problems``: lines on what could not be looked at while the rest was.
    """

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self.store: Store = open_store(url, environ)
        self.source: Source = open_source(url, SourceConfig(environ=environ))
        found = self.store.read_versioned(keys.SHELF)
        if found is None:
            raise ConfigurationError(
                f"{self.store.url} is no shelf: it has no {keys.SHELF}; publish to it first"
            )
        parse(found[0], "shelf", f"{self.store.url}/{keys.SHELF}")
        self.problems: list[str] = []

    def close(self) -> None:
        """Drop connections."""
        self.source.close()

    def builds(self) -> list[tuple[Pin, Target]]:
        """Return every build, sorted. Raises a FetchError."""
        return published(self.store)

    def marks(self) -> dict[Pin, Mark]:
        """Return what is yanked; none, and a problem, if the status is damaged. Raises a FetchError."""
        return read_marks(self.store, self.problems.append)

    def listing(self, chosen: Chosen) -> list[Listed]:
        """Return the builds that are wanted, sorted. Raises a FetchError."""
        objects: Counter[Build] = Counter()
        sizes: Counter[Build] = Counter()
        published: dict[Build, float | None] = {}
        for entry in self.store.entries("packages/"):
            build = build_of(entry.key)
            if build is not None:
                objects[build] += 1
                sizes[build] += entry.size
                if entry.key.endswith("/build.json"):
                    published[build] = entry.modified
        yanked = self.marks()
        return [
            Listed(
                build[0],
                Target.parse(build[1]),
                objects[build],
                sizes[build],
                when,
                yanked.get(build[0]),
            )
            for build, when in sorted(published.items())
            if chosen.has_name([build[0].name]) and chosen.has_target(build[1]) and chosen.has_age(when)
        ]

    def environments(self, chosen: Chosen) -> list[Environment]:
        """Return the environments that have a name and a target that are wanted, and were changed then."""
        changed = {entry.key: entry.modified for entry in self.store.entries("envs/")}
        return [
            one
            for one in environments(self.store)
            if chosen.has_name(line.pin.name for line in parse_lines(one.pointer.requirements))
            and (not chosen.targets or any(chosen.has_target(target) for target, _ in one.indexes()))
            and chosen.has_age(changed.get(keys.environment_pointer(one.digest)))
        ]

    def targets(self, pin: Pin) -> list[Target]:
        """Return the targets that a pin is published for. Raises ConfigurationError if there is none."""
        return self._targets([pin])[pin]

    def read(self, pin: Pin, target: str) -> Built:
        """Return a build. Raises ConfigurationError if it is not there (any more), or a FetchError."""
        built = read_build(self.source, pin, target)
        if built is None:
            raise ConfigurationError(f"{pin} for {target} was removed from {self.store.url} just now")
        return built

    def show(self, pin: Pin, targets: Collection[str] = ()) -> list[Shown]:
        """Return the builds of a pin, for some targets only. Raises ConfigurationError if there are none."""
        found = self._targets([pin])[pin]
        wanted = [target for target in found if not targets or str(target) in targets]
        if not wanted:
            listed = ", ".join(map(str, found))
            raise ConfigurationError(f"{pin} is on {self.store.url} for {listed} only")
        mark = self.marks().get(pin)
        return [self._shown(pin, target, mark) for target in wanted]

    def verify(self, pins: Sequence[Pin], on_done: Callable[[str], None]) -> Iterator[str]:
        """Yield a line for each problem of the pins; of everything, environments included, without pins."""
        wanted = self.select(pins)
        said: list[str] = []
        with ThreadPoolExecutor(_JOBS) as pool:
            for (pin, target), problems in zip(wanted, pool.map(self._verify, wanted), strict=True):
                on_done(f"{pin} {target}")
                yield from problems
                said += problems
        if not pins:
            problems = verify_environments(self.store, self.source)
            yield from problems
            yield from verify_status(self.store)
            yield from self._verify_others([*said, *problems])

    def select(self, pins: Sequence[Pin]) -> list[tuple[Pin, Target]]:
        """Return the builds of the pins; all without pins. Raises ConfigurationError if one has none."""
        if not pins:
            return self.builds()
        return [(pin, target) for pin, targets in self._targets(pins).items() for target in targets]

    def _verify(self, build: tuple[Pin, Target]) -> list[str]:
        problems = verify_build(self.source, build[0], str(build[1]))
        if problems and self.store.read_versioned(keys.build_pointer(*build[0], str(build[1]))) is None:
            return []  # it was collected meanwhile
        return problems

    def _verify_others(self, said: Sequence[str]) -> Iterator[str]:
        """Yield a line for each problem that was not said yet: of replaced indexes, boot images, …"""
        walk = Walk(self.store, self.source)
        walk.check(lambda _: None, skip=walk.current)
        if not walk.damaged:
            return
        again = Walk(self.store, self.source)  # others may have removed it meanwhile
        again.check(lambda _: None, skip=set(again.needed) - set(walk.damaged))
        for key, problem in again.damaged.items():
            if not any(key in line for line in said):
                yield problem

    def _targets(self, pins: Sequence[Pin]) -> dict[Pin, list[Target]]:
        found: dict[Pin, list[Target]] = {pin: [] for pin in pins}
        for pin, target in self.builds():
            if pin in found:
                found[pin].append(target)
        absent = [str(pin) for pin, targets in found.items() if not targets]
        if absent:
            raise ConfigurationError(f"not on {self.store.url}: {', '.join(absent)}")
        return found

    def _shown(self, pin: Pin, target: Target, mark: Mark | None) -> Shown:
        built = self.read(pin, str(target))
        content, layout = built.content, built.layout
        return Shown(
            pin,
            target,
            built.content_digest,
            layout.order,
            len(content.files),
            sum(file.size for file in content.files),
            sum(pack.size for pack in layout.packs),
            len(layout.code),
            sum(file.kind == "native" for file in content.files),
            sum(block.length for block in layout.blocks[: layout.lead]),
            content.requires,
            read_provenance(self.source, pin, str(target)),
            content.files,
            needed_by(self.store, self.source, (pin, str(target))),
            mark,
        )
