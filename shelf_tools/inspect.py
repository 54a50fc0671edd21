"""``shelf ls``, ``show`` and ``verify``: what is on a shelf, and whether it is sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from cloudimport.format import keys
from cloudimport.format.records import parse
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import published, read_build, read_provenance, verify_build
from shelf_tools.environments import verify_environments
from shelf_tools.store import Store, open_store

#: Builds verified at a time: what bounds it is reading.
_JOBS = 4


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


class Shelf:
    """A shelf to look at. Raises ConfigurationError if there is none, FormatError for a newer one."""

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        self.store: Store = open_store(url, environ)
        self.source: Source = open_source(url, SourceConfig(environ=environ))
        found = self.store.read_versioned(keys.SHELF)
        if found is None:
            raise ConfigurationError(
                f"{self.store.url} is no shelf: it has no {keys.SHELF}; publish to it first"
            )
        parse(found[0], "shelf", f"{self.store.url}/{keys.SHELF}")

    def builds(self) -> list[tuple[Pin, Target]]:
        """Return every build, sorted. Raises a FetchError."""
        return published(self.store)

    def show(self, pin: Pin) -> list[Shown]:
        """Return the builds of a pin. Raises ConfigurationError if there are none."""
        targets = self._targets([pin])[pin]
        return [self._shown(pin, target) for target in targets]

    def verify(self, pins: Sequence[Pin], on_done: Callable[[str], None]) -> Iterator[str]:
        """Yield a line for each problem of the pins; of everything, environments included, without pins."""
        wanted = self.select(pins)
        with ThreadPoolExecutor(_JOBS) as pool:
            for (pin, target), problems in zip(wanted, pool.map(self._verify, wanted), strict=True):
                on_done(f"{pin} {target}")
                yield from problems
        if not pins:
            yield from verify_environments(self.store, self.source)

    def select(self, pins: Sequence[Pin]) -> list[tuple[Pin, Target]]:
        """Return the builds of the pins; all without pins. Raises ConfigurationError if one has none."""
        if not pins:
            return self.builds()
        return [(pin, target) for pin, targets in self._targets(pins).items() for target in targets]

    def _verify(self, build: tuple[Pin, Target]) -> list[str]:
        return verify_build(self.source, build[0], str(build[1]))

    def _targets(self, pins: Sequence[Pin]) -> dict[Pin, list[Target]]:
        found: dict[Pin, list[Target]] = {pin: [] for pin in pins}
        for pin, target in self.builds():
            if pin in found:
                found[pin].append(target)
        absent = [str(pin) for pin, targets in found.items() if not targets]
        if absent:
            raise ConfigurationError(f"not on {self.store.url}: {', '.join(absent)}")
        return found

    def _shown(self, pin: Pin, target: Target) -> Shown:
        built = read_build(self.source, pin, str(target))
        if built is None:
            raise ConfigurationError(f"{pin} for {target} was removed from {self.store.url} just now")
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
        )
