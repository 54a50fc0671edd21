"""Retrying, counting and faulty sources."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudimport.errors import AbsentError, CorruptError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.counting import Counting
from cloudimport.sources.folder import FolderSource
from cloudimport.sources.reading import final
from cloudimport.sources.retrying import Retrying
from tests.support.faulty import Faulty, unreachable


@pytest.fixture
def folder(tmp_path: Path) -> FolderSource:
    """A folder with one object of ten bytes."""
    (tmp_path / "k").write_bytes(b"0123456789")
    return FolderSource(str(tmp_path))


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.pauses.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        """Return the time in seconds."""
        return self.now


def _retrying(source: Faulty, time: Time, attempts: int = 5, deadline: float = 60.0) -> Retrying:
    return Retrying(source, attempts, deadline, sleep=time.sleep, clock=time.clock, random=lambda: 1.0)


def test_a_passing_fault_is_tried_again(folder: FolderSource) -> None:
    """Reads that fail four times succeed the fifth time."""
    time = Time()
    assert _retrying(Faulty(folder, 1, unreachable(), times=4), time).read("k", 2, 3) == b"234"
    assert time.pauses == [0.1, 0.2, 0.4, 0.8]


def test_pauses_are_bounded(folder: FolderSource) -> None:
    """The backoff doubles up to five seconds."""
    time = Time()
    _retrying(Faulty(folder, 1, unreachable(), times=9), time, attempts=10).read("k")
    assert max(time.pauses) == 5.0
    assert time.pauses[-2:] == [5.0, 5.0]


def test_the_last_error_says_how_often_and_how_long(folder: FolderSource) -> None:
    """After the last attempt the error has the count, the seconds, the key and the cause."""
    cause = unreachable()
    with pytest.raises(
        UnreachableError, match=r"it broke off \(gave up after 3 attempts in 0\.3 s\)"
    ) as caught:
        _retrying(Faulty(folder, 1, cause, times=99), Time(), attempts=3).read("k")
    assert caught.value.key == "k"
    assert caught.value.__cause__ is cause


def test_a_store_that_asks_to_slow_down_is_asked_until_the_deadline(folder: FolderSource) -> None:
    """Its answers are not counted as attempts; the deadline stays."""
    error, time = unreachable(), Time()
    error.throttled = True
    assert _retrying(Faulty(folder, 1, error, times=12), time, attempts=3).read("k") == b"0123456789"
    assert len(time.pauses) == 12
    with pytest.raises(UnreachableError, match="gave up after"):
        _retrying(Faulty(folder, 1, error, times=99), Time(), attempts=3).read("k")


def test_patience_with_a_store_that_refuses_at_once(folder: FolderSource) -> None:
    """Attempts go on until so many seconds have gone, and within the deadline."""
    time = Time()
    faulty = Faulty(folder, 1, unreachable(), times=99)
    with pytest.raises(UnreachableError, match="gave up after"):
        Retrying(faulty, 5, 60.0, 8.0, sleep=time.sleep, clock=time.clock, random=lambda: 1.0).read("k")
    assert 8.0 <= time.now - 1000.0 < 13.0
    again = Time()
    with pytest.raises(UnreachableError, match="gave up after"):
        Retrying(faulty, 5, 2.0, 8.0, sleep=again.sleep, clock=again.clock, random=lambda: 1.0).read("k")
    assert again.now - 1000.0 < 2.0


def test_no_attempt_begins_after_the_deadline(folder: FolderSource) -> None:
    """Where the next pause would end after the deadline, it is given up at once."""
    time = Time()
    faulty = Faulty(folder, 1, unreachable(), times=99)
    with pytest.raises(UnreachableError, match="gave up after"):
        _retrying(faulty, time, attempts=99, deadline=1.0).read("k")
    assert time.now - 1000.0 < 1.0
    assert faulty.reads == 4


@pytest.mark.parametrize(
    "error", [AbsentError("x"), DeniedError("x"), CorruptError("x"), final(UnreachableError("x"))]
)
def test_other_errors_are_not_tried_again(folder: FolderSource, error: FetchError) -> None:
    """What trying again does not mend passes through as it is."""
    faulty = Faulty(folder, 1, error)
    with pytest.raises(type(error)) as caught:
        _retrying(faulty, Time()).read("k")
    assert caught.value is error
    assert faulty.reads == 1


def test_jitter_is_a_random_part_of_the_pause(folder: FolderSource) -> None:
    """By default a pause lies between nothing and the backoff."""
    time = Time()
    Retrying(Faulty(folder, 1, unreachable(), times=4), sleep=time.sleep, clock=time.clock).read("k")
    assert all(0 <= pause <= 0.1 * 2**n for n, pause in enumerate(time.pauses))


def test_counters_are_right_under_threads(folder: FolderSource) -> None:
    """Requests and bytes of many threads are all counted."""
    counting = Counting(folder)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: counting.read("k", 1, 3), range(500)))
    assert (counting.requests, counting.bytes) == (500, 1500)


def test_a_failed_read_counts_as_a_request(folder: FolderSource) -> None:
    """A request that failed was made all the same."""
    counting = Counting(folder)
    with pytest.raises(AbsentError):
        counting.read("none")
    assert (counting.requests, counting.bytes) == (1, 0)


def test_faults_come_at_their_count(folder: FolderSource) -> None:
    """The k-th read, and no other, is short or wrong."""
    short, wrong = Faulty(folder, 2, "short"), Faulty(folder, 2, "wrong")
    assert [short.read("k") for _ in range(3)] == [b"0123456789", b"01234", b"0123456789"]
    assert [wrong.read("k") == b"0123456789" for _ in range(3)] == [True, False, True]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../k", "a/../../k", "k\0"])
def test_a_folder_keeps_to_its_root(folder: FolderSource, key: str) -> None:
    """A key that would leave the folder is absent."""
    with pytest.raises(AbsentError):
        folder.read(key)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Where the whole folder is missing, the error says so."""
    with pytest.raises(AbsentError, match="there is no folder"):
        FolderSource(str(tmp_path / "none")).read("k")


def test_a_folder_is_no_object(folder: FolderSource, tmp_path: Path) -> None:
    """A key that is a folder is absent."""
    (tmp_path / "d").mkdir()
    for key in ("d", "k/x"):
        with pytest.raises(AbsentError):
            folder.read(key)


@pytest.mark.parametrize("window", [(-1, None), (0, -1)])
def test_a_negative_window_is_a_value_error(folder: FolderSource, window: tuple[int, int | None]) -> None:
    """A caller's mistake is not a store's error."""
    with pytest.raises(ValueError, match="cannot start"):
        folder.read("k", *window)
