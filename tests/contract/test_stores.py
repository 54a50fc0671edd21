"""What every store must do, and what it says when it cannot."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, UnreachableError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_bare
from shelf_tools.store import Store, open_store
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.s3servers import S3Server, free_port

BIG = os.urandom(1 << 20) * 20
KINDS = ("folder", "moto", "radosgw", "fsspec-memory", "fsspec-local")


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]) -> Store:
    """An empty store of each kind."""
    kind = request.param
    if kind == "folder":
        return open_store(str(tmp_path / "a" / "shelf"), {})
    if kind == "fsspec-memory":
        return open_store(f"memory://{os.urandom(6).hex()}", {})
    if kind == "fsspec-local":
        return open_store(f"local://{tmp_path}/b/shelf", {})
    return _s3_store(request.getfixturevalue(kind), new_bucket)


def _s3_store(server: S3Server, new_bucket: Callable[[S3Server], str]) -> Store:
    return open_store(f"s3://{new_bucket(server)}/some/root", server.environ)


def test_put_writes_and_writes_again(store: Store) -> None:
    """An object that was put can be read, and putting it again is harmless."""
    store.put("packages/a/1.0%21b/t/pack-0", b"bytes")
    store.put("packages/a/1.0%21b/t/pack-0", b"bytes")
    found = store.read_versioned("packages/a/1.0%21b/t/pack-0")
    assert found is not None
    assert found[0] == b"bytes"


def test_put_takes_a_file(store: Store, tmp_path: Path) -> None:
    """A file of many parts is written whole."""
    path = tmp_path / "pack"
    path.write_bytes(BIG)
    store.put("packages/pack", path)
    found = store.read_versioned("packages/pack")
    assert found is not None
    assert found[0] == BIG


def test_create_writes_once(store: Store) -> None:
    """The first create writes; the second changes nothing and says so."""
    assert store.create("envs/x.json", b"first")
    assert not store.create("envs/x.json", b"second")
    found = store.read_versioned("envs/x.json")
    assert found is not None
    assert found[0] == b"first"


def test_replace_compares_versions(store: Store) -> None:
    """A replacement needs the version that is there now, and makes a new one."""
    assert store.replace("p.json", b"one", None)
    assert not store.replace("p.json", b"other", None)
    first = store.read_versioned("p.json")
    assert first is not None
    assert store.replace("p.json", b"two", first[1])
    assert not store.replace("p.json", b"three", first[1])
    second = store.read_versioned("p.json")
    assert second is not None
    assert second[0] == b"two"
    assert second[1] != first[1]


def test_replace_of_an_absent_object_writes_nothing(store: Store) -> None:
    """An object that is gone is not made again by a replacement of an old version."""
    assert store.create("p.json", b"one")
    found = store.read_versioned("p.json")
    assert found is not None
    store.delete("p.json")
    assert not store.replace("p.json", b"two", found[1])
    assert store.read_versioned("p.json") is None


def test_an_absent_object_reads_as_none(store: Store) -> None:
    """Absent is None, not an error."""
    assert store.read_versioned("none") is None
    store.put("some", b"")
    assert store.read_versioned("some/none") is None


def test_list_yields_keys_with_the_prefix(store: Store) -> None:
    """Listing gives whole keys by a prefix of text, and nothing of the store's own files."""
    keys = {"packages/a/1", "packages/a/2", "packages/ab/1", "envs/x.json"}
    for key in keys:
        store.put(key, b"x")
    assert store.create("shelf.json", b"{}")
    found = store.read_versioned("shelf.json")
    assert found is not None
    assert store.replace("shelf.json", b"{ }", found[1])
    assert set(store.list("")) == {*keys, "shelf.json"}
    assert set(store.list("packages/a")) == {"packages/a/1", "packages/a/2", "packages/ab/1"}
    assert set(store.list("packages/a/")) == {"packages/a/1", "packages/a/2"}
    assert list(store.list("none/")) == []


@pytest.mark.parametrize("store", ["moto", "radosgw"], indirect=True)
def test_list_goes_over_many_pages(store: Store) -> None:
    """Listing gives more keys than one answer of S3 holds."""
    keys = {f"k/{number}" for number in range(1005)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert set(store.list("k/")) == keys


def test_entries_have_sizes_and_times(store: Store) -> None:
    """A listing has each object's size, and when it was last written, by the store's own clock."""
    store.put("packages/a", b"12345")
    store.put("packages/b", b"")
    first = {entry.key: entry for entry in store.entries("packages/")}
    assert {key: entry.size for key, entry in first.items()} == {"packages/a": 5, "packages/b": 0}
    assert set(first) == set(store.list("packages/"))
    time.sleep(1.1)  # S3 has whole seconds
    store.put("packages/a", b"12345")
    second = {entry.key: entry.modified for entry in store.entries("packages/")}
    before, after, other = first["packages/a"].modified, second["packages/a"], second["packages/b"]
    assert before is not None
    assert after is not None
    assert 1 <= after - before < 120
    assert other == first["packages/b"].modified
    assert list(store.entries("none/")) == []


def test_an_unfinished_thing_is_no_object_and_can_be_removed(store: Store) -> None:
    """What a writer has begun is in no listing; it is found, with its size, and removed."""
    store.put("packages/a/x", b"x")
    begin = {"FolderStore": _begin_file, "S3Store": _begin_upload}.get(type(store).__name__)
    if begin is None:
        assert list(store.unfinished()) == []  # fsspec has no word for it
        return
    begin(store)
    assert list(store.list("")) == ["packages/a/x"]
    (one,) = store.unfinished()
    assert one.size == 5 << 20
    assert one.modified is not None
    store.discard(one)
    store.discard(one)
    assert list(store.unfinished()) == []
    assert list(store.list("")) == ["packages/a/x"]


def _begin_file(store: Any) -> None:
    left = Path(store.url.removeprefix("file://"), "packages", "b", ".tmp-1-abc")
    left.parent.mkdir()
    left.write_bytes(b"5" * (5 << 20))


def _begin_upload(store: Any) -> None:
    place = {"Bucket": store._bucket, "Key": store._name("packages/b/x")}
    upload = store._client().create_multipart_upload(**place)["UploadId"]
    store._client().upload_part(UploadId=upload, PartNumber=1, Body=b"5" * (5 << 20), **place)


def test_delete_removes_and_may_be_repeated(store: Store) -> None:
    """A deleted object is absent; deleting it again is harmless."""
    store.put("x", b"x")
    store.delete("x")
    store.delete("x")
    assert store.read_versioned("x") is None


def test_only_folders_and_s3_promise_atomic_writes(store: Store) -> None:
    """``atomic`` is what racing publishers may rely on."""
    assert store.atomic == store.url.startswith(("s3://", "file://"))


def _race(number: int, act: Callable[[int], bool]) -> list[int]:
    """Return which of ``number`` threads that start together won."""
    barrier = Barrier(number)

    def run(index: int) -> bool:
        barrier.wait()
        return act(index)

    with ThreadPoolExecutor(number) as pool:
        return [index for index, won in enumerate(pool.map(run, range(number))) if won]


@pytest.mark.parametrize("store", ["folder", "moto", "radosgw"], indirect=True)
def test_sixteen_that_create_have_one_winner(store: Store) -> None:
    """Of 16 racing creators exactly one is told that it wrote, and its bytes are there."""
    for attempt in range(5):
        key = f"race/{attempt}.json"
        winners = _race(16, lambda index, key=key: store.create(key, b"%d" % index))  # type: ignore[misc]
        found = store.read_versioned(key)
        assert found is not None
        assert [b"%d" % index for index in winners] == [found[0]]


@pytest.mark.parametrize("store", ["folder", "moto", "radosgw"], indirect=True)
def test_sixteen_that_replace_one_version_have_one_winner(store: Store) -> None:
    """Of 16 racing replacements of one version exactly one is told that it wrote."""
    assert store.create("p.json", b"start")
    found = store.read_versioned("p.json")
    assert found is not None
    version = found[1]
    winners = _race(16, lambda index: store.replace("p.json", b"%d" % index, version))
    now = store.read_versioned("p.json")
    assert now is not None
    assert [b"%d" % index for index in winners] == [now[0]]


@pytest.mark.parametrize("store", ["folder", "moto", "radosgw"], indirect=True)
def test_what_is_written_the_runtime_reads(store: Store, request: pytest.FixtureRequest) -> None:
    """The source of the same URL reads what the store wrote."""
    store.put("packages/x", b"0123456789")
    environ = {}
    if store.url.startswith("s3://"):
        environ = request.getfixturevalue(request.node.callspec.params["store"]).environ
    source = open_bare(store.url, SourceConfig(environ=environ))
    assert source.read("packages/x", 2, 5) == b"23456"
    source.close()


@pytest.mark.parametrize("name", ["moto", "radosgw"])
def test_a_missing_bucket_is_an_absent_error(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Every operation on a bucket that does not exist says so in one line that names it."""
    store = open_store("s3://no-such-bucket-here/root", request.getfixturevalue(name).environ)
    path = tmp_path / "pack"
    path.write_bytes(BIG)
    for act in (
        lambda: store.put("k", b"x"),
        lambda: store.put("k", path),
        lambda: store.create("k", b"x"),
        lambda: store.replace("k", b"x", "0123"),
        lambda: store.read_versioned("k"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(AbsentError, match="no-such-bucket-here") as caught:
            act()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["moto", "radosgw"])
@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_are_a_denied_error(
    name: str, variable: str, request: pytest.FixtureRequest, new_bucket: Callable[[S3Server], str]
) -> None:
    """A key that the server does not know, or that signs wrongly, is a DeniedError."""
    server = request.getfixturevalue(name)
    store = open_store(f"s3://{new_bucket(server)}", {**server.environ, variable: "WRONG"})
    for act in (
        lambda: store.put("k", b"x"),
        lambda: store.create("k", b"x"),
        lambda: store.read_versioned("k"),
    ):
        with pytest.raises(DeniedError):
            act()


def test_no_keys_are_a_denied_error() -> None:
    """Without any credentials the error says so."""
    with pytest.raises(DeniedError, match="credentials"):
        open_store("s3://bucket", {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}).put("k", b"")


def test_a_dead_endpoint_is_an_unreachable_error() -> None:
    """An endpoint where nobody listens is an UnreachableError."""
    environ = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{free_port()}",
    }
    with pytest.raises(UnreachableError, match="s3://bucket/k"):
        open_store("s3://bucket", environ).read_versioned("k")


def test_a_create_whose_answer_was_lost_still_wins() -> None:
    """Where the first try wrote and its answer was lost, the repetition's 412 is not a defeat."""
    held: dict[str, bytes] = {}

    def handle(request: Request) -> Reply:
        if request.method == "GET":
            return Reply(body=held["k"], headers={"ETag": '"1"'})
        if held:
            return Reply(412, b"<Error><Code>PreconditionFailed</Code></Error>")
        held["k"] = b"mine"
        return Reply(503, b"<Error><Code>SlowDown</Code></Error>")

    with HttpServer(handle) as server:
        environ = {
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": server.endpoint,
        }
        assert open_store("s3://bucket", environ).create("k", b"mine")
        assert not open_store("s3://bucket", environ).create("k", b"another's")


def test_a_folder_hides_what_a_killed_writer_left(tmp_path: Path) -> None:
    """A temporary file that was left behind is in no listing and is no key."""
    store = open_store(str(tmp_path), {})
    store.put("packages/a", b"x")
    left = tmp_path / "packages" / ".tmp-1-abc"
    left.write_bytes(b"half")
    assert list(store.list("")) == ["packages/a"]
    with pytest.raises(ConfigurationError):
        store.read_versioned("packages/.tmp-1-abc")


def test_a_folder_loses_empty_folders_and_no_writes(tmp_path: Path) -> None:
    """With the last file of a folder the folder goes, beside those who are about to write into it."""
    store = open_store(str(tmp_path / "shelf"), {})
    store.put("packages/a/1/x", b"x")
    store.delete("packages/a/1/x")
    assert list((tmp_path / "shelf").iterdir()) == []
    keys = [f"packages/a/{number}/x" for number in range(4)]

    def write(key: str) -> int:
        for _ in range(100):
            store.put(key, b"x")
            assert store.read_versioned(key) is not None
            store.delete(key)
            store.delete(key)
        return 1

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, keys)) == [1] * 4
    assert list((tmp_path / "shelf").iterdir()) == []


def test_a_plugin_without_times_leaves_them_open(tmp_path: Path) -> None:
    """Where a plugin does not say when an object was written, nobody guesses."""
    store: Any = open_store(f"local://{tmp_path}/shelf", {})
    store.put("a", b"x")

    class Silent:
        """A file system that knows no times."""

        def __getattr__(self, name: str) -> Any:
            return getattr(system, name)

        def find(self, top: str, detail: bool) -> dict[str, Any]:
            return {name: {"size": row["size"]} for name, row in system.find(top, detail=detail).items()}

        def modified(self, name: str) -> None:
            raise NotImplementedError

    system, store._system = store._system, Silent()
    assert [(entry.key, entry.size, entry.modified) for entry in store.entries("")] == [("a", 1, None)]


def test_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    """Whether it wins, loses or fails, a write leaves nothing but its object."""
    store = open_store(str(tmp_path), {})
    store.create("a/b", b"x")
    store.create("a/b", b"y")
    store.put("a/c", b"z")
    (tmp_path / "a" / "folder").mkdir()
    with pytest.raises(UnreachableError):
        store.put("a/folder", b"")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b", "c", "folder"]


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/../../b", "a//b", "a/./b", "a\0b"])
def test_a_folder_keeps_to_its_root(tmp_path: Path, key: str) -> None:
    """A key that would leave the folder is refused."""
    with pytest.raises(ConfigurationError):
        open_store(str(tmp_path), {}).put(key, b"x")


def test_a_folder_without_hard_links_still_creates_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links are not supported, those who create exclude each other by a lock."""

    def refuse(*paths: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    store = open_store(str(tmp_path), {})
    winners = _race(16, lambda index: store.create("k", b"%d" % index))
    found = store.read_versioned("k")
    assert found is not None
    assert [b"%d" % index for index in winners] == [found[0]]


@pytest.mark.parametrize("url", ["", "s3://", "s3:///x", "file://host/x", "gs://", "nonsense://x"])
def test_a_malformed_url_is_a_configuration_error(url: str) -> None:
    """A URL that cannot be a shelf is refused in one line."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(url, {})
    assert "\n" not in str(caught.value)
