"""The fetcher: one fetch in flight a block, errors to those who wait, and nothing that depends on threads."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from cloudimport.cache.disk import DiskBlocks
from cloudimport.cache.hot import HotBlocks
from cloudimport.cache.tiered import BlockCache
from cloudimport.errors import AbsentError, CorruptError, FetchError, UnreachableError
from cloudimport.events import Counters
from cloudimport.fetch import engine
from cloudimport.fetch.engine import Fetcher
from cloudimport.format.index import BlockRef
from cloudimport.format.records import sha256
from cloudimport.sources.reading import hand_out

KEY = "packages/pkg/1.2%2Blocal/cp312-manylinux_2_34_x86_64/pack-00"
SIZE = 1000


class Pack:
    """A source with one object of ``count`` blocks; counts reads, and fails as ``fail`` says."""

    url = "test://"

    def __init__(self, count: int = 20) -> None:
        self.blocks = [(b"block %d " % number * SIZE)[:SIZE] for number in range(count)]
        self.data = b"".join(self.blocks)
        self.reads: list[tuple[int, int]] = []
        self.fail: Callable[[int, int, bytes], bytes] = lambda start, number, data: data
        self._lock = threading.Lock()

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes, or what ``fail`` makes of (start, number of the read, bytes)."""
        assert length is not None
        with self._lock:
            self.reads.append((start, length))
            number = len(self.reads)
        return self.fail(start, number, self.data[start : start + length])

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers likewise."""
        hand_out(self.read(key, start, length), buffers)

    def close(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""

    def ref(self, number: int, **more: Any) -> BlockRef:
        """Return a block's reference."""
        digest = sha256(self.blocks[number])
        return BlockRef(digest, KEY, number * SIZE, SIZE, SIZE, 0, False)._replace(**more)


def make(pack: Pack, memory: int = 1 << 20, workers: int = 8) -> Fetcher:
    """Return a fetcher that keeps blocks in memory."""
    counters = Counters()
    cache = BlockCache(HotBlocks(memory), DiskBlocks("/nonexistent/x", 0, counters), counters)
    # Without a disk, what memory holds is what may be fetched ahead.
    cache.room = lambda: memory  # type: ignore[method-assign]
    return Fetcher(pack, cache, counters, workers)


def stop(fetcher: Fetcher) -> None:
    """Wait until every queued range has been read."""
    until = time.monotonic() + 10
    while fetcher._flights and time.monotonic() < until:
        time.sleep(0.005)
    assert not fetcher._flights


def corrupt(data: bytes) -> bytes:
    """Return other bytes, as many."""
    return bytes(byte ^ 1 for byte in data)


def test_a_block_is_read_once_and_kept() -> None:
    """The second time there is no request."""
    pack = Pack()
    fetcher = make(pack)
    for _ in range(3):
        assert fetcher.load(pack.ref(3)) == pack.blocks[3]
    assert pack.reads == [(3 * SIZE, SIZE)]


def test_many_threads_make_one_request() -> None:
    """Single flight: whoever asks while a block is on its way waits for it."""
    pack = Pack()
    fetcher = make(pack)

    def slow(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.1)
        return data

    pack.fail = slow
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda _: fetcher.load(pack.ref(3)), range(16)))
    assert found == [pack.blocks[3]] * 16
    assert len(pack.reads) == 1


@pytest.mark.parametrize("count", [2, 8])
def test_threads_that_race_make_one_request_each_block(count: int) -> None:
    """However threads interleave, a block that the cache keeps is requested once."""
    for _ in range(60):
        pack = Pack(4)
        fetcher = make(pack)
        barrier = threading.Barrier(count)

        def work(
            _: int, fetcher: Fetcher = fetcher, pack: Pack = pack, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            for number in range(4):
                assert fetcher.load(pack.ref(number)) == pack.blocks[number]

        with ThreadPoolExecutor(count) as pool:
            list(pool.map(work, range(count)))
        assert len(pack.reads) == 4


def test_prefetch_reads_ranges_in_the_background() -> None:
    """Blocks that lie together come in one request, and are there when they are needed."""
    pack = Pack()
    fetcher = make(pack)
    fetcher.prefetch(pack.ref(number) for number in range(10))
    stop(fetcher)
    assert [fetcher.load(pack.ref(number)) for number in range(10)] == pack.blocks[:10]
    assert pack.reads == [(0, 10 * SIZE)]
    assert fetcher._counters.snapshot()["round_trips"] == 1


def test_prefetch_of_one_block_is_one_round_trip() -> None:
    """It counts once, whoever reads it."""
    pack = Pack()
    fetcher = make(pack)
    fetcher.prefetch([pack.ref(1)])
    stop(fetcher)
    assert fetcher._counters.snapshot()["round_trips"] == 1


def test_prefetch_of_a_block_that_lands_meanwhile_is_no_round_trip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was in flight when it was asked for is neither fetched nor counted again."""
    pack = Pack()
    fetcher = make(pack)
    begun = threading.Event()
    ended = threading.Event()

    def slow(start: int, number: int, data: bytes) -> bytes:
        begun.set()
        ended.wait(5)
        return data

    def land(cache: BlockCache, ref: BlockRef) -> bool:
        """Let the block land just after it was looked for."""
        found = cache.look(ref) is not None
        ended.set()
        reader.join()
        return found

    pack.fail = slow
    monkeypatch.setattr(BlockCache, "__contains__", land)
    reader = threading.Thread(target=fetcher.load, args=[pack.ref(1)])
    reader.start()
    begun.wait(5)
    fetcher.prefetch([pack.ref(1)])
    ended.set()
    reader.join()
    stop(fetcher)
    assert fetcher._counters.snapshot()["round_trips"] == len(pack.reads) == 1


def test_a_closed_fetcher_starts_nothing_that_was_queued() -> None:
    """What is needed after all is read by whoever needs it."""
    pack = Pack()
    fetcher = make(pack, workers=0)
    fetcher.prefetch([pack.ref(1)])
    fetcher.close()
    fetcher._workers = 1
    fetcher.prefetch([pack.ref(3)])
    until = time.monotonic() + 5
    while fetcher.is_near(pack.ref(3)) and not pack.reads and time.monotonic() < until:
        time.sleep(0.005)
    assert pack.reads == [(3 * SIZE, SIZE)]
    assert fetcher.load(pack.ref(1)) == pack.blocks[1]


@pytest.mark.parametrize("room", [0, 1, SIZE, 5 * SIZE, 5 * SIZE + 1])
def test_prefetch_never_exceeds_the_room(room: int) -> None:
    """What could not be kept is not fetched ahead."""
    pack = Pack()
    fetcher = make(pack, memory=room)
    fetcher.prefetch(pack.ref(number) for number in range(20))
    stop(fetcher)
    assert sum(length for _, length in pack.reads) <= room


def test_without_threads_callers_help_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, what was to be fetched ahead is read by who needs it."""

    class NoThread:
        def __init__(self, **_: Any) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    pack = Pack()
    fetcher = make(pack)
    monkeypatch.setattr("threading.Thread", NoThread)
    fetcher.prefetch(pack.ref(number) for number in range(10))
    assert fetcher.load(pack.ref(9)) == pack.blocks[9]
    assert pack.reads == [(0, 10 * SIZE)]
    assert fetcher._threads == 0


def test_a_failure_reaches_those_who_wait_and_only_them() -> None:
    """A range that fails in a worker is the error of who needs a block of it; others get theirs."""
    pack = Pack(200)
    fetcher = make(pack)

    def fail(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.05)
        if start < 10 * SIZE:
            raise UnreachableError("it broke off", key=KEY)
        return data

    pack.fail = fail
    far = pack.ref(199)
    fetcher.prefetch([pack.ref(0), pack.ref(1), far._replace(key=KEY + "1")])
    with ThreadPoolExecutor(2) as pool:
        bad, good = (
            pool.submit(fetcher.load, pack.ref(1)),
            pool.submit(fetcher.load, far._replace(key=KEY + "1")),
        )
        assert good.result() == pack.blocks[199]
        with pytest.raises(UnreachableError) as caught:
            bad.result()
    assert caught.value.package == "pkg==1.2+local"
    assert caught.value.key == KEY


def test_a_failure_can_be_tried_again() -> None:
    """After an error the next try asks the store anew."""
    pack = Pack()
    fetcher = make(pack)

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 1:
            raise AbsentError("gone", key=KEY)
        return data

    pack.fail = fail
    with pytest.raises(AbsentError):
        fetcher.load(pack.ref(3))
    assert fetcher.load(pack.ref(3)) == pack.blocks[3]


def test_each_waiter_has_an_error_of_its_own() -> None:
    """Waiters get equal errors, not one: a traceback does not grow with who else failed."""
    pack = Pack()
    fetcher = make(pack)

    def fail(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.1)
        raise CorruptError("bad", key=KEY, package="pkg==1", expected="a", actual="b")

    pack.fail = fail
    errors: list[CorruptError] = []

    def wait() -> None:
        try:
            fetcher.load(pack.ref(3))
        except CorruptError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(error) for error in errors}) == 4
    assert {(str(e), e.key, e.package, e.expected, e.actual) for e in errors} == {
        ("bad", KEY, "pkg==1", "a", "b")
    }
    assert {len(traceback.extract_tb(error.__traceback__)) for error in errors} <= {4, 5}


def test_a_damaged_block_in_a_range_spoils_no_other() -> None:
    """The good blocks of a range are kept; the damaged one is read alone, and heals."""
    pack = Pack()
    fetcher = make(pack)

    def fail(start: int, number: int, data: bytes) -> bytes:
        return (
            data[: 3 * SIZE] + corrupt(data[3 * SIZE : 4 * SIZE]) + data[4 * SIZE :] if number == 1 else data
        )

    pack.fail = fail
    fetcher.prefetch(pack.ref(number) for number in range(6))
    assert [fetcher.load(pack.ref(number)) for number in range(6)] == pack.blocks[:6]
    assert pack.reads == [(0, 6 * SIZE), (3 * SIZE, SIZE)]


def test_a_short_range_gives_the_blocks_it_has() -> None:
    """A source that breaks its promise and returns fewer bytes never gives wrong ones."""
    pack = Pack()
    fetcher = make(pack)
    pack.fail = lambda start, number, data: data[: len(data) // 2] if number == 1 else data
    fetcher.prefetch(pack.ref(number) for number in range(6))
    assert [fetcher.load(pack.ref(number)) for number in range(6)] == pack.blocks[:6]


def test_a_block_that_stays_damaged_is_named() -> None:
    """After a second look the error names package, key, expected and actual digest."""
    pack = Pack()
    fetcher = make(pack)
    pack.fail = lambda start, number, data: corrupt(data)
    with pytest.raises(CorruptError) as caught:
        fetcher.load(pack.ref(3))
    error = caught.value
    assert (error.package, error.key) == ("pkg==1.2+local", KEY)
    assert (error.expected, error.actual) == (sha256(pack.blocks[3]), sha256(corrupt(pack.blocks[3])))
    assert isinstance(error, ImportError)
    assert all(part in str(error) for part in ("pkg==1.2+local", KEY, error.expected, error.actual))
    assert len(pack.reads) == 2


@pytest.mark.parametrize("error", [ValueError("a bug"), MemoryError(), OSError("odd")])
def test_an_odd_error_in_a_worker_ends_no_worker(error: Exception) -> None:
    """What no source should raise does not stop the worker, and whoever needs the block hears of it."""
    pack = Pack(100)
    fetcher = make(pack, workers=1)

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 1:
            time.sleep(0.05)
            raise error
        return data

    pack.fail = fail
    other = pack.ref(50, key=KEY + "1")
    fetcher.prefetch([pack.ref(0), pack.ref(1), other])
    assert fetcher.load(pack.ref(1)) == pack.blocks[1]
    stop(fetcher)
    assert fetcher.load(other) == pack.blocks[50]
    assert fetcher._threads == 1


def test_an_interrupted_reader_leaves_nobody_waiting() -> None:
    """Ctrl-C in one thread is that thread's alone: others that wait for the block read it themselves."""
    pack = Pack()
    fetcher = make(pack)
    started = threading.Event()

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 1:
            started.set()
            time.sleep(0.1)
            raise KeyboardInterrupt
        return data

    pack.fail = fail
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetcher.load, pack.ref(3))
        started.wait()
        second = pool.submit(fetcher.load, pack.ref(3))
        assert second.result(5) == pack.blocks[3]
        with pytest.raises(KeyboardInterrupt):
            first.result(5)


def test_a_reader_that_needs_its_own_block_does_not_wait_for_itself() -> None:
    """A signal handler or destructor that imports in the middle of a fetch gets its block, not a deadlock."""
    pack = Pack()
    fetcher = make(pack)
    inner: list[bytes] = []

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 1:
            inner.append(fetcher.load(pack.ref(3)))
        return data

    pack.fail = fail
    assert fetcher.load(pack.ref(3)) == pack.blocks[3]
    assert inner == [pack.blocks[3]]


def test_blocks_of_one_digest_in_two_packs_have_errors_of_their_own() -> None:
    """Equal blocks of two packages do not share a fate: one package's missing pack is not the other's."""
    pack = Pack()
    fetcher = make(pack)
    release = threading.Event()

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 1:
            release.wait(5)
            raise AbsentError("no such pack", key=KEY)
        release.set()
        return data

    pack.fail = fail
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(fetcher.load, pack.ref(3))
        while not pack.reads:
            time.sleep(0.005)
        second = pool.submit(fetcher.load, pack.ref(3, key="packages/other/1/t/pack-1"))
        assert second.result(5) == pack.blocks[3]
        with pytest.raises(AbsentError):
            first.result(5)


def test_a_fork_during_a_prefetch_leaves_a_working_child() -> None:
    """A child forked while ranges are under way, even with the lock held, fetches for itself."""
    pack = Pack()
    fetcher = make(pack)

    def slow(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.2)
        return data

    pack.fail = slow
    fetcher.prefetch(pack.ref(number) for number in range(6))
    time.sleep(0.05)
    held = threading.Thread(target=lambda: _hold(fetcher))
    held.start()
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            fetcher.forget()
            fetcher._cache.forget_locks()
            fetcher._counters.forget_lock()
            status = 0 if fetcher.load(pack.ref(5)) == pack.blocks[5] else 2
        finally:
            os._exit(status)
    held.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert fetcher.load(pack.ref(5)) == pack.blocks[5]


def _hold(fetcher: Fetcher) -> None:
    with fetcher._lock, fetcher._cache._hot._lock, fetcher._counters._lock:
        time.sleep(0.1)


def test_waiting_costs_no_processor() -> None:
    """Idle workers and those who wait sleep: no busy loop."""
    pack = Pack(40)
    fetcher = make(pack)

    def slow(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.5)
        return data

    pack.fail = slow
    fetcher.prefetch(pack.ref(number, key=f"{KEY}{number}") for number in range(8))
    before = time.process_time()
    assert fetcher.load(pack.ref(7, key=f"{KEY}7")) == pack.blocks[7]
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


def test_no_more_workers_than_allowed() -> None:
    """However much is to be fetched, at most so many requests run at once."""
    pack = Pack(64)
    fetcher = make(pack, workers=3)
    running, most, lock = [0], [0], threading.Lock()

    def slow(start: int, number: int, data: bytes) -> bytes:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.005)
        with lock:
            running[0] -= 1
        return data

    pack.fail = slow
    for at in range(0, 64, 8):
        fetcher.prefetch(pack.ref(number, key=f"{KEY}{number}") for number in range(at, at + 8))
    stop(fetcher)
    assert most[0] == 3
    assert len(pack.reads) == 64


def test_every_error_is_an_import_error() -> None:
    """What a fetch ends in is an ImportError, and never a ModuleNotFoundError."""
    assert issubclass(FetchError, ImportError)
    assert not issubclass(FetchError, ModuleNotFoundError)


class Trickle(Pack):
    """A source that hands out a block when it is let; counts those that it was asked for."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.let = threading.Semaphore(0)
        self.broken = count

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill a buffer each time that ``let`` is released; break off at block ``broken``."""
        self.reads.append((start, length))
        at = start
        for buffer in buffers:
            assert self.let.acquire(timeout=10)
            if at // SIZE >= self.broken:
                raise UnreachableError("test: it broke off", key=key)
            buffer[:] = self.data[at : at + len(buffer)]
            at += len(buffer)


def test_a_block_is_there_before_its_range_is() -> None:
    """Who waits for the first block of a range goes on when that has come, whatever comes after it."""
    pack = Trickle(4)
    fetcher = make(pack)
    fetcher.prefetch(pack.ref(number) for number in range(4))
    for number in range(4):
        assert fetcher.is_near(pack.ref(number))
        pack.let.release()
        assert fetcher.load(pack.ref(number)) == pack.blocks[number]
        assert pack.ref(number) not in fetcher._flights
    stop(fetcher)
    assert pack.reads == [(0, 4 * SIZE)]


def test_what_has_come_stays_when_the_rest_does_not() -> None:
    """Who waits for a block that a broken range has brought gets it; the others hear what is wrong."""
    pack = Trickle(4)
    pack.broken = 2
    fetcher = make(pack, memory=0)  # nothing is kept: what comes goes to who waits
    fetcher._cache.room = lambda: 1 << 20  # type: ignore[method-assign]
    fetcher.prefetch(pack.ref(number) for number in range(4))
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(fetcher.load, pack.ref(number)) for number in range(4)]
        task = fetcher._flights[pack.ref(0)]
        until = time.monotonic() + 10
        while len(task.awaited) < 4 and time.monotonic() < until:
            time.sleep(0.005)
        pack.let.release(3)
        assert [waiting[number].result(10) for number in range(2)] == pack.blocks[:2]
        for number in (2, 3):
            with pytest.raises(UnreachableError, match="broke off"):
                waiting[number].result(10)
    assert len(pack.reads) == 1


def test_a_damaged_block_does_not_wait_for_its_range() -> None:
    """It is read again, alone, while the rest of the range is on its way."""
    pack = Trickle(4)
    pack.data = pack.data[:SIZE] + corrupt(pack.blocks[1]) + pack.data[2 * SIZE :]
    pack.fail = lambda start, number, data: pack.blocks[1]
    fetcher = make(pack)
    fetcher.prefetch(pack.ref(number) for number in range(4))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(fetcher.load, pack.ref(1))
        pack.let.release(2)
        assert waiting.result(10) == pack.blocks[1]
    assert pack.ref(2) in fetcher._flights
    pack.let.release(2)
    stop(fetcher)
    assert pack.reads == [(0, 4 * SIZE), (SIZE, SIZE)]


def test_an_early_read_is_unpacked_when_it_is_known() -> None:
    """What has come before it is known what it is, and what comes after that, is the same to who waits."""
    for known_after in range(5):
        pack = Trickle(4)
        fetcher = make(pack)
        read, places = begun(fetcher, pack, [0, 1, 2, 3])
        engine_piece, engine._PIECE = engine._PIECE, 700  # so that pieces end within blocks
        try:
            for _ in range(known_after):
                pack.let.release()
            time.sleep(0.02)
            fetcher.known(read, places)
            pack.let.release(20)
            assert [fetcher.load(pack.ref(number)) for number in range(4)] == pack.blocks
            stop(fetcher)
        finally:
            engine._PIECE = engine_piece
        assert pack.reads == [(0, 4 * SIZE)]


def test_blocks_that_overlap_are_read_alone() -> None:
    """An index may claim what it likes: never is more asked for than a range has, nor a byte given twice."""
    pack = Trickle(3)
    fetcher = make(pack)
    middle = pack.data[SIZE // 2 : SIZE // 2 + SIZE]
    other = pack.ref(0, digest=sha256(middle), offset=SIZE // 2)
    fetcher.prefetch([pack.ref(0), other, pack.ref(2)])
    for _ in range(4):
        pack.let.release()
    stop(fetcher)
    assert pack.reads == [(0, 3 * SIZE)]
    assert fetcher.load(other) == middle
    assert [fetcher.load(pack.ref(number)) for number in (0, 2)] == [pack.blocks[0], pack.blocks[2]]
    assert pack.reads[1:] == [(SIZE // 2, SIZE)]


def begun(fetcher: Fetcher, pack: Pack, numbers: list[int]) -> Any:
    """Begin a read of what has some of the pack's blocks, one after the other."""
    read = fetcher.begin(KEY.replace("pack", "boot"), 0, len(numbers) * SIZE)
    return read, {pack.ref(number): at * SIZE for at, number in enumerate(numbers)}


def test_a_read_that_began_early_brings_blocks_of_the_pack() -> None:
    """What it brings is known later; then whoever needs a block waits for it, and makes no request."""
    pack = Pack()
    fetcher = make(pack)
    read, places = begun(fetcher, pack, [0, 1, 2, 3])
    fetcher.known(read, places)
    assert [fetcher.load(pack.ref(number)) for number in (3, 0, 2)] == [pack.blocks[n] for n in (3, 0, 2)]
    fetcher.prefetch(pack.ref(number) for number in range(4))
    stop(fetcher)
    assert pack.reads == [(0, 4 * SIZE)]


def test_a_read_that_began_early_may_fail() -> None:
    """What it does not bring, for whatever reason, is read from the pack; nobody hears of it."""
    for fault in ("absent", "short", "wrong", "other"):
        pack = Pack()
        fetcher = make(pack)

        def fail(start: int, number: int, data: bytes, fault: str = fault) -> bytes:
            if number > 1:
                return data
            if fault == "absent":
                raise AbsentError("no such object", key=KEY)
            return {"short": data[:10], "wrong": corrupt(data), "other": data[::-1]}[fault]

        pack.fail = fail
        read, places = begun(fetcher, pack, [0, 1])
        time.sleep(0.05)  # it may have failed before it is known what it brings
        fetcher.known(read, places)
        assert [fetcher.load(pack.ref(number)) for number in range(2)] == pack.blocks[:2]
        assert not fetcher._flights


def test_a_read_that_began_early_may_be_of_no_use() -> None:
    """Where the index is not what was thought, its bytes are dropped."""
    pack = Pack()
    fetcher = make(pack)
    read, _ = begun(fetcher, pack, [0, 1])
    fetcher.known(read, {})
    assert fetcher.load(pack.ref(1)) == pack.blocks[1]
    assert (SIZE, SIZE) in pack.reads


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits does so for a moment only."""
    monkeypatch.setattr(engine, "_PATIENCE", 0.05)
    monkeypatch.setattr(engine, "_LOOK_AGAIN", 0.02)


class Stuck:
    """A pack of which one read has ended, and makes the next one wait until it is let go."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.pack = Pack()
        self.fetcher = make(self.pack)
        assert self.fetcher.load(self.pack.ref(19)) == self.pack.blocks[19]
        self.pack.fail = self._fail

    def _fail(self, start: int, number: int, data: bytes) -> bytes:
        if number == 2:
            assert self.gone.wait(30)
        return data


@pytest.mark.usefixtures("impatient")
def test_a_read_that_is_stuck_is_made_again() -> None:
    """A block whose read takes oddly long is read by another connection, and is there before that is."""
    stuck = Stuck()
    pack, fetcher = stuck.pack, stuck.fetcher
    fetcher.prefetch(pack.ref(number) for number in range(3))
    try:
        assert fetcher.load(pack.ref(1)) == pack.blocks[1]
        assert pack.reads[1:] == [(0, 3 * SIZE), (SIZE, SIZE)]
    finally:
        stuck.gone.set()
    stop(fetcher)
    assert [fetcher.load(pack.ref(number)) for number in range(3)] == pack.blocks[:3]
    assert len(pack.reads) == 3


@pytest.mark.usefixtures("impatient")
def test_whichever_comes_first() -> None:
    """Who reads again takes what the first read brings meanwhile, and does not wait for the second."""
    stuck = Stuck()
    pack, fetcher = stuck.pack, stuck.fetcher
    never = threading.Event()

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 3:
            stuck.gone.set()
            assert never.wait(30)
        return stuck._fail(start, number, data)

    pack.fail = fail
    fetcher.prefetch(pack.ref(number) for number in range(3))
    try:
        assert fetcher.load(pack.ref(1)) == pack.blocks[1]
        assert not never.is_set()
    finally:
        never.set()


@pytest.mark.usefixtures("impatient")
def test_there_is_an_end_to_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network that is slow for all, only so many are made again; whoever waits then gets his block."""
    monkeypatch.setattr(engine, "_HEDGES", 2)
    stuck = Stuck()
    pack, fetcher = stuck.pack, stuck.fetcher
    fetcher.prefetch(pack.ref(number) for number in range(6))
    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(fetcher.load, pack.ref(number)) for number in range(6)]
        until = time.monotonic() + 10
        while sum(future.done() for future in found) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert sum(future.done() for future in found) == 2
        stuck.gone.set()
        assert [future.result(10) for future in found] == pack.blocks[:6]
    assert len(pack.reads) == 4


@pytest.mark.usefixtures("impatient")
def test_what_the_second_read_says_does_not_count() -> None:
    """If reading again fails, the first read decides."""
    stuck = Stuck()
    pack = stuck.pack

    def fail(start: int, number: int, data: bytes) -> bytes:
        if number == 3:
            threading.Timer(0.05, stuck.gone.set).start()
            raise UnreachableError("no")
        return stuck._fail(start, number, data)

    pack.fail = fail
    stuck.fetcher.prefetch(pack.ref(number) for number in range(3))
    assert stuck.fetcher.load(pack.ref(1)) == pack.blocks[1]
    assert len(pack.reads) == 3


@pytest.mark.usefixtures("impatient")
def test_nothing_is_odd_before_a_read_has_ended() -> None:
    """The first reads of a process may take as long as the network does."""
    pack = Pack()

    def slowly(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.3)
        return data

    pack.fail = slowly
    fetcher = make(pack)
    fetcher.prefetch(pack.ref(number) for number in range(3))
    assert fetcher.load(pack.ref(1)) == pack.blocks[1]
    assert len(pack.reads) == 1


def test_patience_grows_with_what_reads_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every read takes long, a long one is nothing odd."""
    monkeypatch.setattr(engine, "_PATIENCE", 0.01)
    pack = Pack()

    def slowly(start: int, number: int, data: bytes) -> bytes:
        time.sleep(0.2 if number == 1 else 0.3)
        return data

    pack.fail = slowly
    fetcher = make(pack, workers=1)
    for at in (0, 10):
        fetcher.prefetch([pack.ref(at), pack.ref(at + 1)])
        until = time.monotonic() + 10
        while at == 0 and fetcher.is_near(pack.ref(0)) and not fetcher._longest and time.monotonic() < until:
            time.sleep(0.01)
        assert fetcher.load(pack.ref(at + 1)) == pack.blocks[at + 1]
    assert len(pack.reads) == 2
