"""Gets blocks: from the cache, else from the source, several ranges at once, one fetch in flight a block.

A range is worked on while it comes: who waits for one of its blocks goes on when that is there. Whoever
needs a block first helps itself: a range that no worker has started is run by the caller, so that nothing
depends on threads being there (after a fork, at interpreter shutdown).
No lock is held during I/O, and none while anything is imported.
Import budget: ``_thread``; ``threading`` and a thread with the first prefetch.
"""

from __future__ import annotations

import sys
import time
from _thread import RLock, allocate_lock, get_ident

from cloudimport.cache.tiered import BlockCache
from cloudimport.errors import CorruptError, FetchError, FormatError
from cloudimport.events import Counters
from cloudimport.fetch.plan import CONNECTIONS, Range, plan
from cloudimport.format import codec
from cloudimport.format.index import BlockRef
from cloudimport.format.keys import package_of
from cloudimport.format.records import sha256
from cloudimport.sources.base import Source
from cloudimport.sources.clock import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from typing import Protocol, TypeVar

    _T = TypeVar("_T")

    class Watch(Protocol):
        """Who hears what is needed, comes, and is waited for (``cloudimport.tracing``)."""

        def needed(self, ref: BlockRef) -> None:
            """Hear that somebody wants a block."""

        def accepted(self, ref: BlockRef) -> None:
            """Hear that a block has come, in the thread that has read it."""

        def waited(self, ref: BlockRef, began: float) -> None:
            """Hear that a thread has waited for a block since ``began`` (seconds, monotonic)."""

    class Growing(Protocol):
        """Files that are written as their blocks arrive (``cloudimport.site.growing``)."""

        def take(self, ref: BlockRef, pieces: Iterable[bytes | memoryview]) -> bool:
            """Write a block to its file; returns whether it is there."""

        def has(self, ref: BlockRef) -> bool:
            """Whether a block is in its file."""


#: A read that takes this long (seconds), and so many times as long as any took that has ended, is made again
#: for who waits for it; at most so many times a process: a slow network is not a slow read.
_PATIENCE, _PATIENCE_TIMES, _HEDGES = 1.0, 3.0, 8
#: Seconds between looks at two reads of which either will do, and after which a waiter looks by itself.
_LOOK, _LOOK_AGAIN = 0.02, 1.0
#: Bytes that are read at a time of what nobody wants, or nobody knows yet.
_PIECE = 64 << 10


class _Latch:
    """What threads wait for, once. An event of ``threading`` would do; this needs no import."""

    def __init__(self) -> None:
        self.is_set = False
        self._lock = allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Let everybody pass, now and later. To be called once."""
        self.is_set = True
        self._lock.release()

    def wait(self, seconds: float = float("inf")) -> bool:
        """Return when it is set, or after so many seconds; returns whether it is set."""
        until = time.monotonic() + seconds
        while not self.is_set and (left := until - time.monotonic()) > 0:
            # Not for ever: a waiter that a signal handler has thrown out may have kept the lock.
            if self._lock.acquire(timeout=min(left, _LOOK_AGAIN)):
                self._lock.release()
        return self.is_set


class _Task:
    """One ranged read under way, or waiting for somebody to start it."""

    def __init__(self, wanted: Range, is_counted: bool = False, is_early: bool = False) -> None:
        self.range = wanted
        #: The blocks that it brings, and where each begins in what is read.
        self.places = {ref: ref.offset - wanted.start for ref in wanted.blocks}
        #: For a read that began before it was known what it brings: set when that is. What such a read does
        #: not bring is read from where it lies otherwise.
        self.known = _Latch() if is_early else None
        #: Whether its round trip is counted already: ranges of one prefetch travel together.
        self.is_counted = is_counted
        #: Who runs it, by a token that only its run has (an interruption leaves no doubt), and its thread.
        self.owner: object = None
        self.thread = 0
        #: When it began (seconds, monotonic), and when something of it came last.
        self.began = self.moved = 0.0
        self.done = _Latch()
        #: What threads wait for, and what they get.
        self.awaited: dict[BlockRef, _Latch] = {}
        self.blocks: dict[BlockRef, bytes] = {}
        self.error: FetchError | None = None

    def settled(self, ref: BlockRef) -> _Latch:
        """Return what is set when a block has come, or will not come by this. To be called locked."""
        return self.done if self.done.is_set else self.awaited.setdefault(ref, _Latch())


class Fetcher:
    """Plain bytes of blocks, wherever they are."""

    def __init__(
        self, source: Source, cache: BlockCache, counters: Counters, workers: int = CONNECTIONS
    ) -> None:
        self.source = source
        self._cache = cache
        self._counters = counters
        self._workers = workers
        #: Who hears what happens; None: nobody wants to know.
        self.watch: Watch | None = None
        #: The longest that a read took that has ended (seconds), and how many more may be read twice.
        self._longest, self._hedges_left = 0.0, _HEDGES
        #: Where blocks go that belong to one native file, and need not be kept here then.
        self.growing: Growing | None = None
        self.forget()

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent's threads."""
        # Reentrant: a signal handler may import while this thread holds it.
        self._lock = RLock()
        self._wakeup: threading.Condition | None = None
        self._flights: dict[BlockRef, _Task] = {}
        self._queue: list[_Task] = []
        self._threads = 0
        self._idle = 0

    def load(self, ref: BlockRef) -> bytes:
        """Return the plain bytes of a block. Raises a FetchError."""
        if self.watch is not None:
            self.watch.needed(ref)
        data = self._cache.get(ref)
        return self._timed(self._fetch, ref) if data is None else data

    def kept(self, ref: BlockRef, at: int, length: int) -> bytes | memoryview | None:
        """Return ``length`` of a block's plain bytes from ``at`` if the cache has them, else None."""
        if self.watch is not None:
            self.watch.needed(ref)
        return self._cache.part(ref, at, length)

    def note(self, refs: Iterable[BlockRef]) -> None:
        """Have it heard that these blocks are needed now, whether or not anybody must wait for them."""
        if self.watch is not None:
            for ref in refs:
                self.watch.needed(ref)

    def arrive(self, ref: BlockRef) -> bytes | None:
        """Wait until a block is in the file that grows of it; return it if none does. Raises a FetchError."""
        if self.watch is not None:
            self.watch.needed(ref)
        with self._lock:
            is_coming = ref in self._flights
        data = None
        if is_coming:
            data = self._timed(self._join, ref)
        if self._has_grown(ref):
            return None
        return self.load(ref) if data is None else data

    def prefetch(self, refs: Iterable[BlockRef]) -> None:
        """Start fetching those of ``refs`` that the cache does not have; returns at once, raises nothing."""
        missing, room = [], self._cache.room()
        for ref in refs:
            if not self.is_near(ref):
                room -= ref.size
                if room < 0:
                    break
                missing.append(ref)
        tasks = self._submit(missing)
        if tasks:
            self._counters.add("round_trips")
            self._start_workers(len(tasks))

    def is_near(self, ref: BlockRef) -> bool:
        """Whether a block is in the cache, or on its way."""
        # In this order: what lands meanwhile is in the cache before it leaves the flights.
        return ref in self._flights or ref in self._cache

    @property
    def is_busy(self) -> bool:
        """Whether anything is being fetched, or is to be."""
        return bool(self._flights or self._queue)

    def drop(self, ref: BlockRef) -> None:
        """Forget a block that turned out to be wrong or is no longer needed."""
        self._cache.drop(ref)

    def free(self, wanted: int) -> bool:
        """Make room on the cache's disk for somebody else; returns whether anything was freed."""
        return self._cache.free(wanted)

    def close(self) -> None:
        """Start no read that was only queued, and close the source; whoever needs a block reads it still."""
        with self._lock:
            self._queue.clear()
        self.source.close()

    def _has_grown(self, ref: BlockRef) -> bool:
        return self.growing is not None and self.growing.has(ref)

    def _submit(self, refs: list[BlockRef]) -> list[_Task]:
        """Make tasks for blocks that are not in flight, and queue them."""
        with self._lock:
            missing = [ref for ref in refs if ref not in self._flights and not self._has_grown(ref)]
            tasks = [_Task(wanted, True) for wanted in plan(missing)]
            for task in tasks:
                self._flights.update(dict.fromkeys(task.places, task))
            self._queue.extend(tasks)
        return tasks

    def begin(self, key: str, start: int, length: int) -> _Task:
        """Start reading a range of which ``known`` will say what it brings; returns at once."""
        task = _Task(Range(key, start, length, ()), True, is_early=True)
        with self._lock:
            self._queue.append(task)
        self._start_workers(1)
        return task

    def known(self, task: _Task, places: dict[BlockRef, int]) -> None:
        """Say which blocks a read that began early brings, and where each begins; to be called once."""
        assert task.known is not None
        with self._lock:
            if not task.done.is_set:
                task.places = places
                self._flights.update((ref, task) for ref in places if ref not in self._flights)
        task.known.set()

    def _fetch(self, ref: BlockRef) -> bytes:
        """Fetch a block that the cache does not have, or wait for whoever is fetching it."""
        data = self._join(ref)
        if data is None:  # the range was damaged there, or its reader was interrupted
            data = self._join(ref)
        return self._read_block(ref) if data is None else data

    def _timed(self, get: Callable[[BlockRef], _T], ref: BlockRef) -> _T:
        """Return what ``get`` does, counting the time as waited for the network."""
        began, running = time.monotonic(), clock.now()
        try:
            return get(ref)
        finally:
            self._counters.add("wait_seconds", clock.now() - running)
            if self.watch is not None:
                self.watch.waited(ref, began)

    def _join(self, ref: BlockRef) -> bytes | None:
        """Return a block from the task that brings it, or None if that brought only others.

        Raises a FetchError.
        """
        with self._lock:
            task = self._flights.get(ref)
            if task is None:
                task = self._flights[ref] = _Task(plan([ref])[0])
            settled = task.settled(ref)
        self._run(task)
        if not settled.is_set and (task.thread == get_ident() or sys.is_finalizing()):
            return None  # in a signal handler or a destructor on its way, or its thread never runs again
        hedged = self._hedge(task, ref, settled)
        if hedged is not None:
            return hedged
        settled.wait()
        data = task.blocks.get(ref)
        if data is None and task.error is not None:
            import copy

            raise copy.copy(task.error) from task.error
        return data

    def _hedge(self, task: _Task, ref: BlockRef, settled: _Latch) -> bytes | None:
        """Wait for a block; where that takes oddly long, return it by another read. None: look, or wait."""
        while self._hedges_left > 0:
            # As long as none has ended nothing tells what is odd.
            patience = max(_PATIENCE, _PATIENCE_TIMES * self._longest) if self._longest else float("inf")
            left = task.moved + patience - time.monotonic()
            if left <= 0:
                break
            if settled.wait(min(left, _LOOK_AGAIN)):
                return None
        else:
            return None
        self._hedges_left -= 1
        self._counters.add("hedges")
        import threading

        again = _Task(plan([ref])[0])
        try:
            threading.Thread(target=self._run, args=(again,), name="cloudimport-fetch", daemon=True).start()
        except RuntimeError:  # "can't start new thread"
            return None
        while not settled.is_set and not again.done.wait(_LOOK):
            pass
        return None if settled.is_set else again.blocks.get(ref)

    def _run(self, task: _Task) -> None:
        """Run a task unless somebody does, or did. Raises no FetchError: waiters look for themselves."""
        me = object()
        try:
            if self._claim(task, me):
                self._read(task)
        except FetchError as error:
            error.package = error.package or package_of(task.range.key)
            task.error = None if task.known else error
        finally:
            if task.owner is me:
                self._land(task)

    def _claim(self, task: _Task, me: object) -> bool:
        with self._lock:
            if task.owner is not None:
                return False
            task.owner, task.thread = me, get_ident()
            task.began = task.moved = time.monotonic()
            if task in self._queue:
                self._queue.remove(task)
            return True

    def _land(self, task: _Task) -> None:
        with self._lock:
            for ref in task.places:
                if self._flights.get(ref) is task:
                    del self._flights[ref]
            task.done.set()
            for latch in task.awaited.values():
                latch.set()

    def _settle(self, task: _Task, ref: BlockRef, data: bytes | None) -> None:
        """Tell those who wait for a block that it has come; None: that they have to look for it."""
        with self._lock:
            if self._flights.get(ref) is task:
                del self._flights[ref]
            latch = task.awaited.pop(ref, None)
            if latch is not None and data is not None:  # else it need not stay in memory
                task.blocks[ref] = data
            task.moved = time.monotonic()
        if latch is not None:
            latch.set()

    def _read(self, task: _Task) -> None:
        """Read a range and hand out its blocks. Raises a FetchError."""
        wanted = task.range
        if task.is_counted:
            self.source.readv(wanted.key, wanted.start, wanted.length, self._unpacked(task))
        else:  # one that somebody waits for already
            [ref] = wanted.blocks
            data = self._cache.look(ref)  # it may have landed since its first waiter looked
            task.blocks[ref] = self._read_block(ref) if data is None else data
        self._longest = max(self._longest, time.monotonic() - task.began)

    def _unpacked(self, task: _Task) -> Iterator[memoryview]:
        """Yield room for what a range brings, and hand out each block when it has come."""
        length = task.range.length
        held = bytearray()
        if task.known is not None:
            while not task.known.is_set and len(held) < length:
                room = memoryview(bytearray(min(_PIECE, length - len(held))))
                yield room
                held += room
            task.known.wait()
        places = sorted(task.places.items(), key=lambda item: item[1])
        block = memoryview(bytearray(max((ref.length for ref, _ in places), default=0)))
        at = len(held)
        for ref, begin in places:
            if max(begin, len(held)) < at and begin + ref.length > len(held):
                self._settle(task, ref, None)  # it begins within the one before, which no layout of ours has
                continue
            yield from _gap(begin - at)
            stored, there = block[: ref.length], max(0, min(len(held) - begin, ref.length))
            stored[:there] = held[begin : begin + there]
            if there < ref.length:
                yield stored[there:]
            at = max(at, begin + ref.length)
            try:
                self._settle(task, ref, self._take(ref, stored))
            except CorruptError:
                self._settle(task, ref, None)  # whoever needs it reads it alone and hears what is wrong
        yield from _gap(length - at)

    def _take(self, ref: BlockRef, stored: memoryview) -> bytes | None:
        """Check and keep a block; return it unless it is in the file that grows of it.

        Raises CorruptError.
        """
        growing = self.growing
        if ref.exclusive and growing is not None and growing.take(ref, _in_pieces(ref, stored)):
            self._came(ref)
            return None
        return self._accept(ref, stored)

    def _read_block(self, ref: BlockRef) -> bytes:
        """Read one block by itself, twice if the first answer is damaged. Raises a FetchError."""
        self._counters.add("round_trips")
        try:
            return self._accept(ref, self.source.read(ref.key, ref.offset, ref.length))
        except CorruptError:
            self._counters.add("round_trips")
            return self._accept(ref, self.source.read(ref.key, ref.offset, ref.length))

    def _accept(self, ref: BlockRef, stored: bytes | memoryview) -> bytes:
        """Check, keep and return a block. Raises CorruptError."""
        plain = check(ref, stored)
        self._came(ref)
        if not (ref.exclusive and self.growing is not None and self.growing.take(ref, (plain,))):
            self._cache.put(ref, plain)
        return plain

    def _came(self, ref: BlockRef) -> None:
        self._counters.add("blocks_fetched")
        if self.watch is not None:
            self.watch.accepted(ref)

    def _start_workers(self, wanted: int) -> None:
        import threading

        with self._lock:
            if self._wakeup is None:
                self._wakeup = threading.Condition(self._lock)
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
        assert wakeup is not None
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
                task = self._queue.pop(0)
            try:
                self._run(task)
            except Exception:  # noqa: BLE001
                pass  # whoever needs a block of it finds none, asks for it, and hears what is wrong


def _gap(length: int) -> Iterator[memoryview]:
    """Yield room for bytes that nobody wants."""
    room = memoryview(bytearray(max(0, min(length, _PIECE))))
    while length > 0:
        yield room[:length]
        length -= len(room)


def check(ref: BlockRef, stored: bytes | memoryview) -> bytes:
    """Return the plain bytes of a block whose stored bytes have the right digest. Raises CorruptError."""
    _verify(ref, stored)
    try:
        return codec.decode(ref.codec, stored, ref.size)
    except FormatError as error:
        raise _malformed(ref, error) from error


def _in_pieces(ref: BlockRef, stored: memoryview) -> Iterator[bytes | memoryview]:
    """Yield the plain bytes of a block. Raises CorruptError, be it in the end."""
    _verify(ref, stored)
    try:
        yield from codec.pieces(ref.codec, stored, ref.size)
    except FormatError as error:
        raise _malformed(ref, error) from error


def _verify(ref: BlockRef, stored: bytes | memoryview) -> None:
    actual = sha256(stored)
    if actual != ref.digest:
        raise _damaged(ref, f" is damaged: expected sha256 {ref.digest}, got {actual}", ref.digest, actual)


def _malformed(ref: BlockRef, error: FormatError) -> CorruptError:
    return _damaged(ref, f": {error}", f"{ref.size} bytes", str(error))


def _damaged(ref: BlockRef, text: str, expected: str, actual: str) -> CorruptError:
    package = package_of(ref.key)
    return CorruptError(
        f"{package}: block at byte {ref.offset} of {ref.key}{text}",
        key=ref.key,
        package=package,
        expected=expected,
        actual=actual,
    )
