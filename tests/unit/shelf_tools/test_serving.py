"""Parts of ``shelf serve`` by themselves: names and handlers, variables, logs, and the bounded tier."""

from __future__ import annotations

import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from cloudimport.errors import ConfigurationError, YankedError
from cloudimport.format.lock import Lock
from cloudimport.ids import Pin, Target
from shelf_tools import slots
from shelf_tools.cli import main
from shelf_tools.environments import read_lock
from shelf_tools.interpreters import Interpreter, find_interpreter
from shelf_tools.lambdabox.box import Box
from shelf_tools.serving import preparing
from shelf_tools.serving.logs import FILE_BYTES, FILES, TAIL_BYTES, Log, prune
from shelf_tools.serving.pool import Keeping
from shelf_tools.serving.preparing import Preparer, Sizes
from shelf_tools.serving.registry import Registry, UnknownFunctionError
from shelf_tools.serving.server import Server
from shelf_tools.serving.tier import Tier, TierError
from shelf_tools.serving.worker import Plan, Worker
from shelf_tools.status import yank
from tests.support.shelves import MadeShelf, write_tree


@pytest.mark.parametrize(
    ("code", "handler"),
    [
        ("def handler(event, context):\n    pass\n", "handler"),
        ("async def lambda_handler(event, context): ...\ndef handler(): ...\n", "lambda_handler"),
        ("handler = make()\n", "handler"),
        ("handler: object = make()\n", "handler"),
        ("from x import *\n", "lambda_handler"),
        ("def other():\n    handler = 1\n", "lambda_handler"),
        ("def handler_of(x): ...\n", "lambda_handler"),
    ],
)
def test_which_handler_a_module_has(tmp_path: Path, code: str, handler: str) -> None:
    """AWS' default name, or ``handler`` where that alone is defined; found without running anything."""
    write_tree(tmp_path, {"a/lambda_function.py": code})
    assert Registry(tmp_path).find("a").handler == f"lambda_function.{handler}"


def test_names(tmp_path: Path) -> None:
    """Folders with a handler whose names AWS would take; others are not found, whatever they look like."""
    write_tree(
        tmp_path,
        {"a/f.py": "", "b/lambda_function.py": "", "c/x.py": "", "d.e/f.py": "", ".g/f.py": "", "f.py": ""},
    )
    registry = Registry(tmp_path / "a" / "..")
    assert registry.names() == ["a", "b"]
    for name in ("c", "d.e", ".g", "", ".", "..", "a/../b", "a/", "/a", "a\0", "a\n", "é", "x" * 65):
        with pytest.raises(UnknownFunctionError):
            registry.find(name)
    with pytest.raises(ConfigurationError, match="is no folder"):
        Registry(tmp_path / "none")


def test_a_function_s_stamp_changes_with_its_files(tmp_path: Path) -> None:
    """Code, lockfile, list and variables: whatever changes, new sandboxes are made."""
    write_tree(tmp_path, {"a/f.py": "", "a/requirements.txt": "x==1\n", "a.env": "A=1\n"})
    registry = Registry(tmp_path)
    seen = {registry.find("a").stamp}
    for name, text in (
        ("a/f.py", "x"),
        ("a/requirements.txt", ""),
        ("a.env", ""),
        ("a/cloudimport.lock", ""),
    ):
        (tmp_path / name).write_text(text)
        seen.add(registry.find("a").stamp)
    assert len(seen) == 5
    assert registry.find("a").lock is not None


def test_files_below_count(tmp_path: Path) -> None:
    """A helper that is edited in place, where no folder's time changes, means new sandboxes, too."""
    write_tree(tmp_path, {"a/f.py": "", "a/helper.py": "x = 1\n", "a/data/deep/x.json": "1"})
    registry = Registry(tmp_path)
    seen = {registry.find("a").stamp, registry.find("a").stamp}
    for name in ("a/helper.py", "a/data/deep/x.json"):
        (tmp_path / name).write_text("other")
        seen.add(registry.find("a").stamp)
    (tmp_path / "a/data/deep/x.json").rename(tmp_path / "a/data/deep/y.json")
    seen.add(registry.find("a").stamp)
    assert len(seen) == 4
    write_tree(tmp_path / "a/data", {"__pycache__/x.pyc": ""})
    assert registry.find("a").stamp in seen


def test_variables(tmp_path: Path) -> None:
    """Lines KEY=VALUE, comments and empty lines; anything else is an error with its line."""
    write_tree(tmp_path, {"a/f.py": "", "a.env": "# c\n\nA=1=2\n  B=x y\nC=\n"})
    registry = Registry(tmp_path)
    assert registry.find("a").variables == {"A": "1=2", "B": "x y", "C": ""}
    (tmp_path / "a.env").write_text("A=1\nno\n")
    with pytest.raises(ConfigurationError, match=r"a\.env, line 2: expected KEY=VALUE"):
        registry.find("a")


def test_a_log_keeps_the_last(tmp_path: Path) -> None:
    """Much is written: two files are kept, bounded, and the tail is the end of it."""
    log = Log(tmp_path / "one.log")
    log.begin()
    line = b"x" * 1023 + b"\n"
    with open(log.end, "wb", closefd=False) as pipe:
        for _ in range(3 * FILE_BYTES // len(line)):
            pipe.write(line)
        pipe.write(b"the end")
        pipe.flush()
        log.settle()
    assert log.tail().endswith(b"the end")
    assert len(log.tail()) == TAIL_BYTES
    log.begin()
    assert log.tail() == b""
    log.started()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= FILE_BYTES


def test_old_logs_go(tmp_path: Path) -> None:
    """Of too many files the oldest are removed."""
    for number in range(FILES + 5):
        (tmp_path / f"{number}.log").touch()
        os.utime(tmp_path / f"{number}.log", (number, number))
    prune(tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert len(left) == FILES
    assert "4.log" not in left
    assert "5.log" in left


class Shelves:
    """A shelf with two packages, an environment of each, and a tier."""

    def __init__(self, folder: Path) -> None:
        (folder / "work").mkdir()
        self.shelf = MadeShelf(folder / "work")
        self.locks: dict[str, Lock] = {}
        for name in ("one", "two"):
            self.shelf.add(name, "1.0", {f"{name}.py": "x = 1\n", f"{name}.bin": os.urandom(100_000)})
            self.shelf.environment(f"{name}==1.0")
            self.locks[name] = read_lock(self.shelf.lock)
        self.folder = folder / "tier"

    def ensure(self, tier: Tier, name: str, key: str = "a", secret: str = "s") -> Path:
        """Have a tier filled."""
        (target,) = self.locks[name].targets
        keys = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        return tier.ensure(self.shelf.url, keys, self.locks[name], target, name)


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    """Two environments."""
    return Shelves(tmp_path)


def test_many_at_once_fill_once(shelves: Shelves) -> None:
    """Each object is read once, whoever asks and however often."""
    tier = Tier(shelves.folder, 1 << 30)
    with ThreadPoolExecutor(16) as pool:
        folders = set(pool.map(lambda _: shelves.ensure(tier, "one"), range(50)))
    assert len(folders) == 1
    traffic = tier.traffic()
    assert (traffic.requests, traffic.objects) == (2, 2)
    assert traffic.bytes == sum(path.stat().st_size for path in folders.pop().rglob("*") if path.is_file())


def test_a_umask_keeps_no_sandbox_out(shelves: Shelves) -> None:
    """Sandboxes have other uids than a server that is root: they read all of a tier."""
    mask = os.umask(0o077)
    try:
        folder = shelves.ensure(Tier(shelves.folder, 1 << 30), "one")
    finally:
        os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o444 for path in folder.rglob("*") if path.name[0] != "."} == {0o444}


def test_another_identity_has_another_folder(shelves: Shelves) -> None:
    """What one may read, another may not."""
    tier = Tier(shelves.folder, 1 << 30)
    first, second = shelves.ensure(tier, "one"), shelves.ensure(tier, "one", "b")
    assert first != second
    assert tier.traffic().objects == 4
    # Who knows a key's id alone does not get what was read with it, and a corrected secret is used.
    assert shelves.ensure(tier, "one", "a", "other") not in (first, second)
    assert tier.traffic().objects == 6


def test_what_is_damaged_is_fetched_again(shelves: Shelves) -> None:
    """A server that starts checks what is there; only what is wrong comes anew."""
    folder = shelves.ensure(Tier(shelves.folder, 1 << 30), "one")
    (pack,) = folder.rglob("pack-*")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    left = pack.with_name(".tmp-of-a-killed-server")
    left.touch()
    tier = Tier(shelves.folder, 1 << 30)
    shelves.ensure(tier, "one")
    assert pack.read_bytes() == whole
    assert not left.exists()
    assert (tier.traffic().requests, tier.traffic().objects) == (1, 1)
    again = Tier(shelves.folder, 1 << 30)
    shelves.ensure(again, "one")
    assert again.traffic().requests == 0


def test_folders_of_former_keys_go(shelves: Shelves) -> None:
    """Temporary keys leave a folder each: those that no server uses make room, oldest first."""
    used = Tier(shelves.folder, 250_000)
    kept = shelves.ensure(used, "one", "of another server")
    folders = []
    for number in range(4):
        tier = Tier(shelves.folder, 250_000)
        folders.append(shelves.ensure(tier, "one", f"temporary-{number}"))
        os.utime(folders[-1] / ".using", (number, number))
        tier.close()
    assert [folder.exists() for folder in folders] == [False, False, False, True]
    assert set(shelves.folder.iterdir()) == {kept, folders[-1]}
    used.close()
    shelves.ensure(Tier(shelves.folder, 150_000), "two", "last")
    assert not kept.exists()


def test_what_runs_goes_last(shelves: Shelves) -> None:
    """Packages of functions without a sandbox make room before those of others."""
    tier = Tier(shelves.folder, 250_000, lambda: {"one"})
    shelves.shelf.add("three", "1.0", {"three.py": "", "three.bin": os.urandom(100_000)})
    shelves.shelf.environment("three==1.0")
    shelves.locks["three"] = read_lock(shelves.shelf.lock)
    for name in ("one", "two", "three"):
        folder = shelves.ensure(tier, name)
    assert {path.parents[2].name for path in folder.rglob("pack-*")} == {"one", "three"}


def test_a_tier_is_bounded(shelves: Shelves) -> None:
    """What was needed first makes room for what is needed now, and comes back when it is needed again."""
    tier = Tier(shelves.folder, 150_000)
    for name in ("one", "two", "one"):
        folder = shelves.ensure(tier, name)
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 150_000
        assert list(folder.rglob(f"packages/{name}/*/*/pack-*"))
    with pytest.raises(TierError, match="may hold 1000 bytes"):
        shelves.ensure(Tier(shelves.folder / "small", 1000), "one")


@cache
def _running(target: Target, given: tuple[Path, ...]) -> Interpreter | None:
    """Return the interpreter that runs, asked once: others take a process each."""
    return find_interpreter(target, given) if target.python == sys.version_info[:2] else None


class Prepared:
    """Functions, a shelf with two packages, and what prepares them for this Python, without a runtime."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(preparing, "runtime_layer", lambda *_: folder / "layer")
        monkeypatch.setattr(preparing, "find_interpreter", _running)
        self.shelves, self.cache, self.folder = Shelves(folder), folder / "cache", folder / "f"
        self.said: list[str] = []
        self.tier = Tier(self.cache / "tier", 1 << 30)
        self.preparer = self.new()

    def new(self, **environ: str) -> Preparer:
        """Return one with the environment of a server."""
        return Preparer(self.cache, self.shelves.shelf.url, environ, (), self.tier, self.said.append)

    def box(self, name: str, preparer: Preparer | None = None) -> Box:
        """Prepare a function."""
        function = Registry(self.folder).find(name)
        return (preparer or self.preparer).box(function, Sizes(1 << 28, 1 << 24, 3.0))

    def add(self, name: str, env: str = "", requirements: str = "") -> None:
        """Write a function."""
        files = {f"{name}/f.py": "", f"{name}.env": env}
        if requirements:
            files[f"{name}/requirements.txt"] = requirements
        write_tree(self.folder, files)


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """No function yet."""
    return Prepared(tmp_path, monkeypatch)


def test_what_the_server_rewrites_arrives_rewritten(prepared: Prepared, tmp_path: Path) -> None:
    """A function's own file of roots and shelf are told by where they are inside."""
    write_tree(tmp_path, {"roots.pem": ""})
    url = prepared.shelves.shelf.url
    env = f"AWS_CA_BUNDLE={tmp_path}/roots.pem\nCLOUDIMPORT_SHELF={url}\nCLOUDIMPORT_YANKED=refuse\n"
    prepared.add("a", f"{env}COLOUR=red\nCLOUDIMPORT_CACHE_SIZE=64M\n", "one==1.0\n")
    box = prepared.box("a")
    seen = {inside: source for source, inside in box.mounts}
    assert seen[box.environ["AWS_CA_BUNDLE"]] == tmp_path / "roots.pem"
    assert seen[box.environ["CLOUDIMPORT_SHELF"]] == Path(url.removeprefix("file://"))
    assert (box.environ["CLOUDIMPORT_YANKED"], box.environ["COLOUR"]) == ("ignore", "red")
    assert box.environ["CLOUDIMPORT_CACHE_SIZE"] == "64M"


def test_packages_that_are_not_needed_any_more_are_not_heeded(prepared: Prepared) -> None:
    """A function that lost its list is not refused for what stood in it."""
    prepared.add("a", "CLOUDIMPORT_YANKED=refuse\n", "one==1.0\n")
    prepared.box("a")
    yank(prepared.shelves.shelf.store, Pin.parse("one==1.0"), "bad")
    with pytest.raises(YankedError):
        prepared.preparer.heed(Registry(prepared.folder).find("a"))
    (prepared.folder / "a" / "requirements.txt").unlink()
    prepared.box("a")
    prepared.preparer.heed(Registry(prepared.folder).find("a"))


def test_a_profile_and_roots_stay_outside(prepared: Prepared, tmp_path: Path) -> None:
    """A sandbox has the keys of a profile, no files of profiles, and no lockfile that is signed."""
    write_tree(tmp_path, {"keys": "[team]\naws_access_key_id = t\naws_secret_access_key = u\n"})
    prepared.add("a", f"AWS_PROFILE=team\nCLOUDIMPORT_ROOT={'0' * 64}\n")
    box = prepared.box("a", prepared.new(AWS_SHARED_CREDENTIALS_FILE=str(tmp_path / "keys")))
    assert box.environ["AWS_ACCESS_KEY_ID"] == "t"
    assert not {"AWS_PROFILE", "CLOUDIMPORT_ROOT"} & set(box.environ)


def test_an_event_that_cannot_be_run_is_told(prepared: Prepared, tmp_path: Path) -> None:
    """Nobody waits for it, and it has no log: the server says which one, and why."""
    prepared.add("a", requirements="none==1.0\n")
    said: queue.Queue[str] = queue.Queue()
    worker = Worker(
        Plan(
            prepared.folder,
            prepared.cache,
            tmp_path / "logs",
            prepared.shelves.shelf.url,
            {},
            Sizes(1 << 28, 1 << 24, 3.0),
            Keeping(1, 1, 1.0, 1.0),
            1 << 30,
            note=said.put,
        )
    )
    with closing(worker):
        worker.later("a", b"1")
        line = said.get(timeout=30)
    assert line.startswith("a: an asynchronous invocation was not run: NotPublishedError: ")
    assert "none==1" in line


def test_more_sandboxes_than_uids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As root each has a uid of its own: too many are refused at the start, not when they are needed."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    arguments = ["serve", "--functions", str(tmp_path), "--cache", str(tmp_path / "c")]
    assert main([*arguments, "--concurrency", str(slots.COUNT - 15)]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert f"give {slots.COUNT - 16} or less" in line
    assert not (tmp_path / "c").exists()


class Told:
    """A worker that only tells."""

    def status(self) -> dict[str, Any]:
        """Return what there is to tell."""
        return {"functions": {}}


@contextmanager
def answering(host: str = "127.0.0.1") -> Iterator[int]:
    """Run the HTTP side alone; yields its port."""
    server = Server(host, 0, Told())  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def ask(port: int, request: str) -> str:
    """Send a request and return the first line of the answer, without waiting for more."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(request.encode())
        return connection.makefile("rb").readline().decode().strip()


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: -1\r\n\r\n",
        "Content-Length: ten\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_body_with_a_size_that_is_none(framing: str) -> None:
    """It is refused before anything of it is read: "-1" would be all that comes."""
    with answering() as port:
        assert ask(port, f"POST /run/a HTTP/1.1\r\nHost: localhost\r\n{framing}").split()[1] == "400"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Host: localhost:5000", "200"),
        ("Host: 127.0.0.1:5000", "200"),
        ("Host: [::1]:5000", "200"),
        ("Host: localhost\r\nSec-Fetch-Site: none", "200"),
        ("Host: localhost\r\nSec-Fetch-Site: cross-site", "403"),
        ("Host: localhost\r\nOrigin: http://elsewhere", "403"),
        ("Host: elsewhere.example:5000", "403"),
        ("Host: localhost.elsewhere.example", "403"),
        ("Host: [", "403"),
    ],
)
def test_web_pages_do_not_read_what_runs(headers: str, status: str) -> None:
    """Not even one whose name leads to the loopback: it would read names of functions, and paths."""
    with answering() as port:
        assert ask(port, f"GET /status HTTP/1.1\r\n{headers}\r\n\r\n").split()[1] == status
        posted = ask(port, f"POST /run/ HTTP/1.1\r\n{headers}\r\nContent-Length: 0\r\n\r\n")
        assert posted.split()[1] == {"200": "404"}.get(status, status)


def test_on_other_addresses_any_name_does() -> None:
    """Who listens there is reached by the machine's name."""
    with answering("0.0.0.0") as port:
        assert ask(port, "GET /status HTTP/1.1\r\nHost: worker.example\r\n\r\n").split()[1] == "200"
