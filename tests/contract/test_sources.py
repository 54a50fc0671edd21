"""What every source and every wrapper must do, each over a real store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from cloudimport.errors import AbsentError, UnreachableError
from cloudimport.events import Counters
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.counting import Counting
from cloudimport.sources.opening import open_bare, open_source
from cloudimport.sources.retrying import Retrying
from cloudimport.sources.shared import Shared
from tests.support.certificates import make_server_context
from tests.support.faulty import Faulty, FaultyServer
from tests.support.s3servers import S3Server

BIG = bytes(range(256)) * 12345
OBJECTS = {
    "shelf.json": b"{}",
    "packages/a/1.0/t/pack-0": BIG,
    f"packages/a/1.0/t/pack-{'0a' * 32}": BIG,
    "packages/a/1.0%21b%2B/t/an odd+name é": b"odd",
    "empty": b"",
}


class Place(NamedTuple):
    """A shelf that holds ``OBJECTS``: its URL, the configuration to read it, and a wrapper."""

    url: str
    config: SourceConfig
    wrap: Callable[[Source], Source] = lambda source: source

    def open(self) -> Source:
        """Return a new source over the shelf."""
        return self.wrap(open_bare(self.url, self.config))


KINDS = (
    "folder",
    "moto",
    "radosgw",
    "s3-tls",
    "foreign-http",
    "foreign-local",
    "memory",
    "retrying",
    "counting",
    "shared",
    "faulty",
    "open_source",
)
WRAPPERS: dict[str, Callable[[Source], Source]] = {
    "retrying": lambda source: Retrying(source, attempts=3, deadline=5.0),
    "counting": Counting,
    "shared": lambda source: Shared(source, str(source.url).removeprefix("file://"), Counters()),
    "faulty": lambda source: Faulty(source, 10**9, "short"),
    "open_source": lambda source: open_source(source.url, SourceConfig()),
}


@pytest.fixture(params=KINDS)
def place(
    request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]
) -> Iterator[Place]:
    """A filled shelf of each kind."""
    with ExitStack() as stack:
        kind = request.param
        if kind in ("moto", "radosgw"):
            yield _s3_place(request.getfixturevalue(kind), new_bucket)
        elif kind == "memory":
            yield _memory_place(f"memory://{os.urandom(6).hex()}")
        else:
            _fill(tmp_path / "shelf")
            yield _folder_place(kind, tmp_path, stack)


@pytest.fixture
def source(place: Place) -> Iterator[Source]:
    """A source of each kind over a filled shelf."""
    opened = place.open()
    yield opened
    opened.close()


def _fill(folder: Path) -> None:
    for key, data in OBJECTS.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _s3_place(server: S3Server, new_bucket: Callable[[S3Server], str]) -> Place:
    bucket = new_bucket(server)
    client = server.client()
    for key, data in OBJECTS.items():
        client.put_object(Bucket=bucket, Key=f"some/root/{key}", Body=data)
    return Place(f"s3://{bucket}/some/root", SourceConfig(environ=server.environ))


def _memory_place(url: str) -> Place:
    import fsspec

    for key, data in OBJECTS.items():
        fsspec.filesystem("memory").pipe_file(f"{url}/{key}", data)
    return Place(url, SourceConfig())


def _folder_place(kind: str, tmp_path: Path, stack: ExitStack) -> Place:
    folder = tmp_path / "shelf"
    if kind == "foreign-local":
        return Place(f"local://{folder}", SourceConfig())
    if kind == "foreign-http":
        server = stack.enter_context(FaultyServer(folder))
        return Place(f"{server.endpoint}/bucket", SourceConfig())
    if kind == "s3-tls":
        context, root = make_server_context(tmp_path)
        server = stack.enter_context(FaultyServer(folder, tls=context))
        config = SourceConfig(endpoint_url=server.endpoint, ca_bundle=str(root), no_sign=True)
        return Place("s3://bucket", config)
    return Place(str(folder), SourceConfig(), WRAPPERS.get(kind, lambda source: source))


@pytest.mark.parametrize("key", OBJECTS)
def test_reads_a_whole_object(source: Source, key: str) -> None:
    """Without a window, all bytes of an object are returned, whatever its name and size."""
    assert source.read(key) == OBJECTS[key]


@pytest.mark.parametrize(
    ("start", "length"), [(0, 1), (5, 7), (1000, 2 << 20), (len(BIG) - 1, 1), (0, len(BIG))]
)
def test_reads_a_window(source: Source, start: int, length: int) -> None:
    """With a start and a length, exactly those bytes are returned."""
    assert source.read("packages/a/1.0/t/pack-0", start, length) == BIG[start : start + length]


def test_reads_from_a_start_to_the_end(source: Source) -> None:
    """With a start alone, the rest of the object is returned."""
    assert source.read("packages/a/1.0/t/pack-0", 1000) == BIG[1000:]


def test_reads_nothing_where_nothing_is_asked_for(source: Source) -> None:
    """A window of no bytes is no bytes."""
    assert source.read("shelf.json", 1, 0) == b""


@pytest.mark.parametrize(("start", "length"), [(0, 3), (1, 2), (2, 1), (2, None), (100, 1), (100, None)])
def test_a_window_past_the_end_is_an_error(source: Source, start: int, length: int | None) -> None:
    """Bytes that the object does not have are an UnreachableError that is final, never a short result."""
    with pytest.raises(UnreachableError) as caught:
        source.read("shelf.json", start, length)
    assert caught.value.key == "shelf.json"
    assert not caught.value.retryable


class Buffers:
    """Buffers of the given sizes, and what had come when each was asked for."""

    def __init__(self, *sizes: int) -> None:
        self.made: list[bytearray] = []
        self.before: list[bytes] = []
        self._sizes = sizes

    def __iter__(self) -> Iterator[memoryview]:
        for size in self._sizes:
            self.before.append(b"".join(self.made))
            self.made.append(bytearray(size))
            yield memoryview(self.made[-1])
        self.before.append(b"".join(self.made))


@pytest.mark.parametrize("sizes", [(1,), (5, 1, 70000, 16384, 16385, 1 << 20, 3)])
def test_fills_buffers(source: Source, sizes: tuple[int, ...]) -> None:
    """Buffers are filled in their order, and each is full before the next is asked for."""
    buffers = Buffers(*sizes)
    for _ in range(2):
        source.readv("packages/a/1.0/t/pack-0", 1000, sum(sizes), buffers)
        assert b"".join(buffers.made) == BIG[1000 : 1000 + sum(sizes)]
        ends = [sum(sizes[:count]) for count in range(len(sizes) + 1)]
        assert buffers.before == [BIG[1000 : 1000 + end] for end in ends]
        buffers = Buffers(*sizes)


@pytest.mark.parametrize(("key", "error"), [("shelf.json", UnreachableError), ("none", AbsentError)])
def test_fills_no_buffer_of_what_is_not_there(source: Source, key: str, error: type[Exception]) -> None:
    """Bytes that the object does not have, or no object, are the errors that ``read`` gives."""
    buffers = Buffers(1, 9)
    with pytest.raises(error) as caught:
        source.readv(key, 0, 10, buffers)
    assert caught.value.key == key  # type: ignore[attr-defined]
    assert len(buffers.made) <= 1
    source.readv("shelf.json", 0, 0, ())
    source.readv("shelf.json", 1, 1, made := Buffers(1))
    assert made.made == [b"}"]


def test_what_making_buffers_raises_goes_through(source: Source) -> None:
    """Whoever makes the buffers may give up, with an error of the system too; the source stays usable."""

    def given_up() -> Iterator[memoryview]:
        yield memoryview(bytearray(100_000))
        raise OSError("test")

    with pytest.raises(OSError, match=r"^test$"):
        source.readv("packages/a/1.0/t/pack-0", 0, 1 << 20, given_up())
    assert source.read("shelf.json") == b"{}"


def test_an_absent_object_is_an_absent_error(source: Source) -> None:
    """A missing object is an AbsentError that has the key and names the URL, and no ModuleNotFoundError."""
    with pytest.raises(AbsentError) as caught:
        source.read("packages/a/1.0/t/none")
    assert caught.value.key == "packages/a/1.0/t/none"
    assert "packages/a/1.0/t/none" in str(caught.value)
    assert source.url in str(caught.value)
    assert not isinstance(caught.value, ModuleNotFoundError)
    assert "\n" not in str(caught.value)


def test_reads_again_after_an_error(source: Source) -> None:
    """An error leaves the source usable."""
    with pytest.raises(AbsentError):
        source.read("none")
    assert source.read("shelf.json") == b"{}"


def test_reads_from_many_threads(source: Source) -> None:
    """Threads that read at once each get their own bytes."""

    def read(number: int) -> bool:
        start = number * 1001
        return source.read("packages/a/1.0/t/pack-0", start, 5000) == BIG[start : start + 5000]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(64)))


def test_may_be_used_after_close(source: Source) -> None:
    """Closing drops connections only, and may be done twice."""
    source.read("shelf.json")
    source.close()
    source.close()
    assert source.read("shelf.json") == b"{}"


FORK = """
import json, os, sys
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
url, settings = sys.argv[1], json.loads(sys.argv[2])
source = open_source(url, SourceConfig(**settings))
key, window = "packages/a/1.0/t/pack-0", (700, 90000)
data = source.read(key, *window)
pid = os.fork()
if pid == 0:
    source.forget()
    same = all(source.read(key, *window) == data for _ in range(5))
    source.close()
    os._exit(0 if same else 1)
assert all(source.read(key, *window) == data for _ in range(5))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert source.read(key, *window) == data
source.close()
"""


def test_a_forked_child_and_its_parent_read_on(place: Place) -> None:
    """A forked child that forgot the parent's connections reads at the same time as the parent."""
    if place.url.startswith("memory:"):
        # Another interpreter would see an empty store; there is nothing to share.
        assert place.open().forget() is None  # type: ignore[func-returns-value]
        return
    settings = {k: v for k, v in place.config._asdict().items() if v is not None and k != "environ"}
    settings["environ"] = dict(place.config.environ)
    command = [sys.executable, "-X", "dev", "-c", FORK, place.url, json.dumps(settings)]
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")


def test_counting_counts_requests_and_bytes_of_retries_too(tmp_path: Path) -> None:
    """A counter inside Retrying sees each attempt, and the bytes that were returned."""
    _fill(tmp_path)
    inner = open_bare(str(tmp_path), SourceConfig())
    counting = Counting(Faulty(inner, 1, UnreachableError("test"), times=2))
    assert Retrying(counting, sleep=lambda _: None).read("shelf.json") == b"{}"
    assert (counting.requests, counting.bytes) == (3, 2)
