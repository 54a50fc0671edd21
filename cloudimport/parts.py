"""The parts of an opened environment, put together: settings to store, cache, index and site tree.

Of an environment there is nothing in this interpreter yet: ``bootstrap`` puts the finders in place. Import
budget: that of ``bootstrap``.
"""

from __future__ import annotations

import os
import sys

from cloudimport.cache.disk import DiskBlocks
from cloudimport.cache.folder import open_folder, temporary_folder
from cloudimport.cache.hot import HotBlocks
from cloudimport.cache.tiered import BlockCache
from cloudimport.environments import cached_index, fetched_index
from cloudimport.events import Counters
from cloudimport.fetch.engine import Fetcher
from cloudimport.fetch.plan import CONNECTIONS
from cloudimport.format import codec
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.records import Ref, sha256
from cloudimport.ids import Pin
from cloudimport.importer.places import is_installed
from cloudimport.settings import Settings
from cloudimport.site.expiry import expire, hold
from cloudimport.site.tree import SiteTree
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.counting import Counting
from cloudimport.sources.opening import open_deferred
from cloudimport.sources.retrying import Retrying

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from cloudimport.format.lock import BootRange
    from cloudimport.importer.bursts import Bursts
    from cloudimport.tracing import Recorder

#: How often the shelf's status is tried to be had, and until when (seconds).
_STATUS_ATTEMPTS, _STATUS_DEADLINE = 2, 10.0


class Parts:
    """The objects of one installed environment."""

    def __init__(self, settings: Settings, shelf: str) -> None:
        self.settings = settings
        self.cache_root = open_folder(settings.cache)
        self.counters = Counters()
        config = SourceConfig(environ=settings.environ, deadline=settings.deadline)
        self._store = open_deferred(shelf, config)
        self.counting = Counting(self._store)
        self.recorder = _recorder(settings.trace) if settings.trace else None
        inner: Source = self.counting
        if self.recorder is not None:
            from cloudimport.sources.timing import Timing

            inner = Timing(self.counting, self.recorder.requested)
        if settings.watching is not None and settings.watching.reads:
            from cloudimport.observing import fetched
            from cloudimport.sources.timing import Timing

            inner = Timing(inner, fetched)
        self._inner = inner
        self.source: Source = Retrying(inner, config.attempts, config.deadline, config.patience)
        if settings.shared:
            from cloudimport.sources.shared import Shared

            self.source = Shared(self.source, settings.shared, self.counters)
        self.hot = HotBlocks(settings.memory_bytes)
        disk = DiskBlocks(f"{self.cache_root}/v1/blocks", settings.cache_bytes, self.counters)
        self.cache = BlockCache(self.hot, disk, self.counters)
        self.fetcher = Fetcher(self.source, self.cache, self.counters)
        self.fetcher.watch = self.recorder
        is_timed = settings.watching is not None
        self.bursts = _bursts(settings.hold_gc) if settings.hold_gc or is_timed else None
        self.index: EnvironmentIndex
        self.tree: SiteTree

    def open_index(
        self,
        ref: Ref,
        target: str,
        hidden: Sequence[int] | None = None,
        boot: Sequence[BootRange] = (),
    ) -> None:
        """Get the environment index and the tree over it. Raises a FetchError or FormatError.

        ``hidden`` are the builds that a parent process takes from elsewhere; None: look. ``boot`` is asked
        for together with an index that is not cached.
        """
        self.index = cached_index(self.cache_root, ref, target, self.counters) or self._fetch_index(
            ref, target, boot
        )
        if hidden is None and self.settings.local:
            hidden = [build for build in self.index.visible if self._is_local(build)]
        self.hidden = list(hidden or ())
        folder = f"{self.cache_root}/v1/trees/{ref.digest[:32]}"
        if self.hidden:  # in another's tree their files would be seen
            self.index.hide(self.hidden)
            folder += "-" + sha256(repr(self.hidden).encode())[:16]
        self.tree = SiteTree(
            os.path.realpath(folder), self.index, self.fetcher, self.counters, temporary_folder
        )

    def _fetch_index(self, ref: Ref, target: str, boot: Sequence[BootRange]) -> EnvironmentIndex:
        from cloudimport.fetch.boot import Boot

        image, index = Boot(self.fetcher, boot, target), None
        if not boot:
            self._prepare()
        try:
            index = fetched_index(self.source, self.cache_root, ref, target, self.counters)
        finally:
            image.arrived(index)
        return index

    def _prepare(self) -> None:
        """Open connections (2 ms of CPU each), while the index comes, for what it will say is needed.

        The one that the index comes on is the last of them.
        """
        prepare = getattr(self._store, "prepare", None)
        if prepare is not None and not self.settings.shared:
            import threading

            try:
                for _ in range(CONNECTIONS - 1):
                    threading.Thread(target=prepare, name="cloudimport-connect", daemon=True).start()
            except RuntimeError:
                pass  # "can't start new thread": whoever reads connects

    def _is_local(self, build: int) -> bool:
        name = self.index.builds[build].pin.name
        if name not in self.settings.local:
            return False
        tables = (self.index.files, self.index.folders)
        return is_installed(
            name, [top for table in tables for top, having in table.items() if build in having]
        )

    def status_source(self) -> Source:
        """Return where the shelf's status is read: with less patience, since there is a way without it."""
        return Retrying(self._inner, _STATUS_ATTEMPTS, min(self.settings.deadline, _STATUS_DEADLINE))

    def pins(self) -> list[Pin]:
        """Return the pins that are taken from the shelf."""
        return [self.index.builds[number].pin for number in self.index.visible]

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent."""
        self.source.forget()
        self.counters.forget_lock()
        self.cache.forget_locks()
        self.fetcher.forget()
        self.tree.forget()
        if self.bursts is not None:
            self.bursts.forget()


def _bursts(holds: bool) -> Bursts:
    from cloudimport.importer.bursts import Bursts

    return Bursts(holds)


def _recorder(path: str) -> Recorder:
    from cloudimport.tracing import Recorder

    return Recorder(path)


def open_tree(parts: Parts) -> int | None:
    """Make the tree if it is new, let unused ones go then, and hold it; returns what holds it."""
    try:
        made = parts.tree.create()
    except OSError:
        return None  # modules still run from memory; whatever needs a file says so itself
    held = hold(os.path.dirname(parts.tree.root))
    if made:
        expire(f"{parts.cache_root}/v1/trees")
    return held


def child_record(parts: Parts, ref: Ref, target: str) -> dict[str, Any]:
    """Return what a child needs to put the same together, for JSON."""
    settings = parts.settings
    return {
        "python": [*sys.version_info[:2], sys.prefix],
        "runtime": os.path.dirname(os.path.abspath(__file__)),
        "shelf": parts.counting.url,
        "cache": parts.cache_root,
        "cache_bytes": settings.cache_bytes,
        "memory_bytes": settings.memory_bytes,
        "deadline": settings.deadline,
        "native": settings.native,
        "hold_gc": settings.hold_gc,
        "shared": settings.shared,
        "codec": codec.locate(),
        "index": list(ref),
        "hidden": parts.hidden,
        "target": target,
    }


def of_parent(record: Mapping[str, Any]) -> Parts:
    """Return the parts that a parent's record is of. Raises a CloudImportError if the index cannot be had."""
    settings = Settings(
        record["shelf"],
        "",
        "",
        record["cache"],
        record["cache_bytes"],
        record["memory_bytes"],
        record["deadline"],
        dict(os.environ),
        record["native"],
        hold_gc=record["hold_gc"],
        shared=record["shared"],
    )
    parts = Parts(settings, settings.shelf)
    try:
        parts.open_index(Ref(*record["index"]), record["target"], record["hidden"])
    except BaseException:
        parts.fetcher.close()
        raise
    return parts


class Unimported:
    """The environment of a parent process, of which this one makes files and imports nothing."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        """Raises a CloudImportError if the index cannot be had."""
        codec.locate(record["codec"])
        self._parts = of_parent(record)
        self.tree = self._parts.tree
        self._held = open_tree(self._parts)
        self._counted = (0, 0)

    def counts(self) -> tuple[int, int]:
        """Return (requests, bytes fetched) since the last time."""
        counting, before = self._parts.counting, self._counted
        self._counted = (counting.requests, counting.bytes)
        return self._counted[0] - before[0], self._counted[1] - before[1]
