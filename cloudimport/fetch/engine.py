"""Gets blocks: from the cache, else from the source, several ranges at once, one fetch in flight a block.

Whoever needs a block first helps itself: a range that no worker has started is run by the
caller, so that nothing depends on threads being there (after a fork, at interpreter shutdown).
No lock is held during I/O, and none while anything is imported.
Import budget: ``threading``, ``collections``, ``copy``; no thread is started before the first prefetch.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Iterable

from cloudimport.cache.tiered import BlockCache
from cloudimport.errors import CorruptError, FetchError, FormatError
from cloudimport.events import Counters
from cloudimport.fetch.plan import Range, plan
from cloudimport.format import codec
from cloudimport.format.index import BlockRef
from cloudimport.format.keys import package_of
from cloudimport.format.records import sha256
from cloudimport.sources.base import Source

#: Connections at a time: 8 reach the network's limit (docs/decisions/0006).
WORKERS = 8


class _Task:
    """One ranged read under way, or waiting for somebody to start it."""

    def __init__(self, wanted: Range) -> None:
        self.range = wanted
        self.claimed = False
        self.done = threading.Event()
        self.blocks: dict[str, bytes] = {}
        self.error: FetchError | None = None


class Fetcher:
    """Plain bytes of blocks, wherever they are."""

    def __init__(self, source: Source, cache: BlockCache, counters: Counters, workers: int = WORKERS) -> None:
        self.source = source
        self._cache = cache
        self._counters = counters
        self._workers = workers
        self.forget()

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent's threads."""
        self._lock = threading.Lock()
        self._wakeup = threading.Condition(self._lock)
        self._flights: dict[str, _Task] = {}
        self._queue: deque[_Task] = deque()
        self._threads = 0
        self._idle = 0

    def load(self, ref: BlockRef) -> bytes:
        """Return the plain bytes of a block. Raises a FetchError."""
        data = self._cache.get(ref)
        return self._fetch(ref) if data is None else data

    def prefetch(self, refs: Iterable[BlockRef]) -> None:
        """Start fetching those of ``refs`` that the cache does not have; returns at once, raises nothing."""
        missing, room = [], self._cache.room()
        for ref in refs:
            if ref not in self._cache:
                room -= ref.size
                if room < 0:
                    break
                missing.append(ref)
        tasks = self._submit(missing)
        if tasks:
            self._counters.add("round_trips")
            self._start_workers(len(tasks))

    def drop(self, ref: BlockRef) -> None:
        """Forget a block that turned out to be wrong or is no longer needed."""
        self._cache.drop(ref)

    def free(self, wanted: int) -> bool:
        """Make room on the cache's disk for somebody else; returns whether anything was freed."""
        return self._cache.free(wanted)

    def _submit(self, refs: list[BlockRef]) -> list[_Task]:
        """Make tasks for blocks that are not in flight, and queue them."""
        with self._lock:
            tasks = [_Task(wanted) for wanted in plan(r for r in refs if r.digest not in self._flights)]
            for task in tasks:
                self._flights.update(dict.fromkeys((b.digest for b in task.range.blocks), task))
            self._queue.extend(tasks)
        return tasks

    def _fetch(self, ref: BlockRef) -> bytes:
        """Fetch a block that the cache does not have, or wait for whoever is fetching it."""
        started = time.monotonic()
        with self._lock:
            task = self._flights.get(ref.digest)
        if task is None:
            submitted = self._submit([ref])
            self._counters.add("round_trips", len(submitted))
            with self._lock:
                task = submitted[0] if submitted else self._flights.get(ref.digest)
        try:
            return self._finish(ref, task)
        finally:
            self._counters.add("wait_seconds", time.monotonic() - started)

    def _finish(self, ref: BlockRef, task: _Task | None) -> bytes:
        if task is None:  # it arrived between two looks; a cache that could not keep it says None
            data = self._cache.get(ref)
            return self._read_alone(ref) if data is None else data
        if self._claim(task):
            self._run(task)
        task.done.wait()
        if task.error is not None:
            raise copy.copy(task.error) from task.error
        data = task.blocks.get(ref.digest)
        return self._read_alone(ref) if data is None else data

    def _claim(self, task: _Task) -> bool:
        with self._lock:
            if task.claimed:
                return False
            task.claimed = True
            try:
                self._queue.remove(task)
            except ValueError:
                pass
            return True

    def _run(self, task: _Task) -> None:
        """Read a range and hand out its blocks. Never raises a FetchError: waiters look for themselves."""
        wanted = task.range
        try:
            data = memoryview(self.source.read(wanted.key, wanted.start, wanted.length))
            for ref in wanted.blocks:
                at = ref.offset - wanted.start
                self._accept(task, ref, data[at : at + ref.length])
        except FetchError as error:
            task.error = error
        finally:
            with self._lock:
                for ref in wanted.blocks:
                    self._flights.pop(ref.digest, None)
            task.done.set()

    def _accept(self, task: _Task, ref: BlockRef, stored: memoryview) -> None:
        try:
            plain = check(ref, stored)
        except CorruptError:
            return  # whoever needs this block reads it alone and hears what is wrong
        self._counters.add("blocks_fetched")
        self._cache.put(ref, plain)
        task.blocks[ref.digest] = plain

    def _read_alone(self, ref: BlockRef) -> bytes:
        """Read one block by itself, twice if the first answer is damaged. Raises a FetchError."""
        for attempt in (0, 1):
            self._counters.add("round_trips")
            try:
                plain = check(ref, self.source.read(ref.key, ref.offset, ref.length))
            except CorruptError:
                if attempt:
                    raise
                continue
            self._counters.add("blocks_fetched")
            self._cache.put(ref, plain)
            return plain
        raise AssertionError("unreachable")

    def _start_workers(self, wanted: int) -> None:
        with self._lock:
            missing = min(wanted - self._idle, self._workers - self._threads)
            self._wakeup.notify(wanted)
        for _ in range(max(0, missing)):
            with self._lock:
                self._threads += 1
            try:
                threading.Thread(target=self._work, name="cloudimport-fetch", daemon=True).start()
            except RuntimeError:  # "can't start new thread": callers help themselves
                with self._lock:
                    self._threads -= 1
                return

    def _work(self) -> None:
        """Run queued tasks until there have been none for a while (seconds)."""
        lock, wakeup = self._lock, self._wakeup
        while True:
            with lock:
                if not self._queue:
                    self._idle += 1
                    woken = wakeup.wait(5.0)
                    self._idle -= 1
                    if not self._queue:
                        if woken:
                            continue
                        self._threads -= 1
                        return
                task = self._queue.popleft()
                task.claimed = True
            self._run(task)


def check(ref: BlockRef, stored: bytes | memoryview) -> bytes:
    """Return the plain bytes of a block whose stored bytes have the right digest. Raises CorruptError."""
    package = package_of(ref.key)
    actual = sha256(stored)
    if actual != ref.digest:
        where = f"block at byte {ref.offset} of {ref.key}"
        raise CorruptError(
            f"{package}: {where} is damaged: expected sha256 {ref.digest}, got {actual}",
            key=ref.key,
            package=package,
            expected=ref.digest,
            actual=actual,
        )
    try:
        return codec.decode(ref.codec, stored, ref.size)
    except FormatError as error:
        raise CorruptError(f"{package}: {ref.key}: {error}", key=ref.key, package=package) from error
