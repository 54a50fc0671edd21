"""The runtime in a sandbox like Lambda's: frozen and thawed, with keys that change, a store that goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shelf_tools.lambdabox.runtime import lay_out
from tests.support.doors import Door, wait_until
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.lambdas import Function, function, make_box, runtime_with_ric
from tests.support.plainlayers import runtime_layer
from tests.support.runtimes import running_version
from tests.support.s3servers import S3Server, User, moto_server
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf, write_tree

MIB = 1 << 20
APP = """
import cloudimport
cloudimport.install()
import importlib, os, sys

def handler(event, context):
    try:
        module = importlib.import_module(event["import"])
    except ImportError as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        return {"error": names[0], "kinds": names, "text": str(error)}
    return {"value": module.value, "stats": cloudimport.stats(), "loaded": cloudimport.loaded()}
"""
#: As many packages, each of which a test imports once.
PACKAGES = [f"part{n}" for n in range(4)]


@dataclass
class Shop:
    """A shelf on a server, and what a function in a box is made of."""

    server: S3Server
    shelf: MadeShelf
    folder: Path

    def task(self, code: str = APP) -> Path:
        """Make a function's folder."""
        task = self.folder / f"task-{os.urandom(4).hex()}"
        write_tree(task, {"app.py": code})
        shutil.copy(self.shelf.lock, task)
        return task

    def layer(self) -> Path:
        """Return a layer with the runtime and its codec, made once."""
        layer = self.folder / "layer"
        return layer if layer.exists() else runtime_layer(layer)

    @contextmanager
    def running(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        code: str = APP,
        keys: bool = True,
        runtime: Path | None = None,
        **more: Any,
    ) -> Iterator[Function]:
        """Run the function; ``environ`` wins over the server's own, of which ``keys`` may be left out.

        ``runtime``: a laid out /var/runtime, by default one with our own client.
        """
        runtime = runtime or self.folder / "runtime"
        if not runtime.exists():
            lay_out(runtime, running_version())
        own = {k: v for k, v in self.server.environ.items() if keys or "KEY" not in k}
        variables = {**own, "CLOUDIMPORT_YANKED": "ignore", **(environ or {})}
        box = make_box(
            self.task(code), runtime, running_version(), environ=variables, layers=[self.layer()], **more
        )
        with function(box) as one:
            yield one


def _lines(one: Function) -> list[dict[str, Any]]:
    """Return what was said of cold starts."""
    found = [json.loads(line) for line in one.log.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("message") == "cold start"]


def _fill(shelf: MadeShelf) -> None:
    for name in PACKAGES:
        shelf.add(
            name, "1", {f"{name}/__init__.py": f"value = {name!r}\nbulk = {os.urandom(2000).hex()!r}\n"}
        )
    native = os.urandom(12 * MIB)
    shelf.add("stout", "1", {"stout/__init__.py": "from stout import _native\n", _extension("stout"): native})
    shelf.environment()


def _extension(name: str) -> str:
    import sysconfig

    return f"{name}/_native{sysconfig.get_config_var('EXT_SUFFIX')}"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shelf on moto, which enforces policies."""
    bubblewrap()
    folder = tmp_path_factory.mktemp("shop")
    with moto_server() as server:
        server.make_bucket("shelf")
        (folder / "work").mkdir()
        shelf = MadeShelf(folder / "work", "s3://shelf/root", server.environ)
        _fill(shelf)
        yield Shop(server, shelf, folder)


def _processes(one: Function) -> list[int]:
    """Return the process that was started and all below it."""
    found = [one.process.pid]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*"):
            try:
                found += [int(child) for child in (task / "children").read_text().split()]
            except OSError:
                continue
    return found


@contextmanager
def frozen(one: Function) -> Iterator[None]:
    """Stop all processes of a sandbox while the block runs."""
    pids = _processes(one)
    assert len(pids) > 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def _value(one: Function, name: str) -> dict[str, Any]:
    found: dict[str, Any] = one.result({"import": name})
    assert found.get("value") == name, f"{found}\n{one.log}"
    return found


def test_frozen_between_invocations(shop: Shop) -> None:
    """Connections that the store has closed while the sandbox was frozen cost nothing but themselves: the
    next import works, and is not tried again.
    """
    with Door(shop.server.endpoint) as door, shop.running({"AWS_ENDPOINT_URL": door.endpoint}) as one:
        before = _value(one, "part0")["stats"]["requests"]
        with frozen(one):
            door.cut()
            time.sleep(1.5)
        after = _value(one, "part1")["stats"]["requests"]
        assert after == before + 1


def _imported_across_a_freeze(shop: Shop, deadline: int, seconds: float, *, is_cut: bool) -> Any:
    """Freeze a sandbox that waits for the store, which then takes new requests; return what it imported.

    ``is_cut``: whether the connection that it waits at is closed, else it stays mute.
    """
    with Door(shop.server.endpoint) as door:
        environ = {"AWS_ENDPOINT_URL": door.endpoint, "CLOUDIMPORT_DEADLINE": str(deadline)}
        with shop.running(environ) as one:
            _value(one, "part0")
            door.mute()
            found: list[Any] = []
            asking = threading.Thread(target=lambda: found.append(one.result({"import": "part1"})))
            asking.start()
            wait_until(lambda: door.muted, "the function asks the store")
            with frozen(one):
                if is_cut:
                    door.cut()
                door.open()
                time.sleep(seconds)
            asking.join()
    return found[0]


@pytest.mark.parametrize("seconds", [3.0, pytest.param(30.0, marks=pytest.mark.long)])
def test_frozen_in_the_midst_of_a_fetch(shop: Shop, seconds: float) -> None:
    """The time for which a sandbox was frozen is no part of the deadline: a fetch that it was in the midst
    of, with the connection gone meanwhile, works at once, be the deadline shorter than the freeze.
    """
    found = _imported_across_a_freeze(shop, 2, seconds, is_cut=True)
    assert found.get("value") == "part1", found


def test_frozen_where_nobody_says_that_the_connection_is_gone(shop: Shop) -> None:
    """A connection that a router has forgotten says nothing: it is given up when the sandbox is thawed."""
    found = _imported_across_a_freeze(shop, 12, 7.0, is_cut=False)
    assert found.get("value") == "part1", found


def test_the_store_is_gone_for_a_while(shop: Shop) -> None:
    """A store that refuses connections for three seconds delays an import, and fails none."""
    with Door(shop.server.endpoint) as door, shop.running({"AWS_ENDPOINT_URL": door.endpoint}) as one:
        _value(one, "part0")
        door.shut()
        timer = threading.Timer(3.0, door.open)
        timer.start()
        _value(one, "part1")
        timer.join()


def test_the_store_is_gone_for_good(shop: Shop) -> None:
    """Then the import ends within the deadline in an `ImportError` of ours, with which the handler does what
    it likes; when the store is there again, the same sandbox imports the same package.
    """
    with Door(shop.server.endpoint) as door:
        environ = {"AWS_ENDPOINT_URL": door.endpoint, "CLOUDIMPORT_DEADLINE": "2"}
        with shop.running(environ) as one:
            _value(one, "part0")
            door.shut()
            found = one.result({"import": "part1"})
            assert found["error"] == "UnreachableError"
            assert {"ImportError", "CloudImportError"} <= set(found["kinds"])
            assert "ModuleNotFoundError" not in found["kinds"]
            assert "part1" in found["text"]
            assert "gave up after" in found["text"]
            door.open()
            _value(one, "part1")


def _grant(user: User, shop: Shop, *keys: str) -> None:
    arn = "arn:aws:s3:::shelf/root"
    statement = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": [f"{arn}/{key}" for key in keys]}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    with closing(shop.server.client("iam")) as iam:
        iam.put_user_policy(UserName=user.name, PolicyName="reader", PolicyDocument=document)


def _new_keys(user: User, shop: Shop) -> tuple[str, str]:
    """Replace a user's keys: the old ones are refused from now on."""
    with closing(shop.server.client("iam")) as iam:
        iam.delete_access_key(UserName=user.name, AccessKeyId=user.server.access_key)
        made = iam.create_access_key(UserName=user.name)["AccessKey"]
    return made["AccessKeyId"], made["SecretAccessKey"]


def test_credentials_of_the_container_endpoint_change(shop: Shop) -> None:
    """Credentials that the store no longer takes are asked for again, once, and the import works: the
    endpoint for containers, and for functions with SnapStart, has new ones.
    """
    user = shop.server.make_user("snap")
    _grant(user, shop, "*")
    keys = [(user.server.access_key, user.server.secret_key)]

    def answer(request: Request) -> Reply:
        said = {
            "AccessKeyId": keys[-1][0],
            "SecretAccessKey": keys[-1][1],
            "Expiration": "2099-01-01T00:00:00Z",
        }
        return Reply(body=json.dumps(said).encode())

    with HttpServer(answer) as endpoint:
        environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{endpoint.endpoint}/keys"}
        with shop.running(environ, keys=False) as one:
            _value(one, "part0")
            keys.append(_new_keys(user, shop))
            _value(one, "part1")
            assert len(endpoint.requests) == 2


def test_credentials_of_a_file_change(shop: Shop) -> None:
    """So is the file of shared credentials read again, and only then; that they are refused for good is a
    `DeniedError`.
    """
    user = shop.server.make_user("filed")
    _grant(user, shop, "*")
    secrets = shop.folder / "secrets"
    secrets.mkdir()

    def write(access: str, secret: str) -> None:
        text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        (secrets / "credentials").write_text(text)

    write(user.server.access_key, user.server.secret_key)
    environ = {"AWS_SHARED_CREDENTIALS_FILE": "/mnt/secrets/credentials"}
    with shop.running(environ, keys=False, mounts=((secrets, "/mnt/secrets"),)) as one:
        _value(one, "part0")
        new = _new_keys(user, shop)
        assert one.result({"import": "part1"})["error"] == "DeniedError"
        write(*new)
        _value(one, "part1")


def test_functions_with_roles_of_their_own(shop: Shop) -> None:
    """Functions that share a shelf read what their own role may read: another package is a `DeniedError`."""
    for name, other in (("part0", "part1"), ("part1", "part0")):
        user = shop.server.make_user(f"role-{name}")
        _grant(user, shop, "envs/*", f"packages/{name}/*")
        with shop.running(user.server.environ) as one:
            _value(one, name)
            found = one.result({"import": other})
            assert found["error"] == "DeniedError"
            assert other in found["text"]


def test_what_a_cold_start_says_and_leaves(shop: Shop) -> None:
    """One line of JSON tells of the cold start, and what it says was written is what lies in /tmp; there is
    no HOME and no /dev/shm.
    """
    code = (
        APP
        + """
def sizes(event, context):
    try:
        import multiprocessing
        multiprocessing.Lock()
    except OSError:
        lacks = True
    lacks = lacks and not os.path.exists("/dev/shm") and "HOME" not in os.environ
    place = os.statvfs("/tmp")  # to look at files would make them appear
    return (place.f_blocks - place.f_bfree) * place.f_frsize, lacks

def handler(event, context, imports=handler):
    return imports(event, context) if event else sizes(event, context)
"""
    )
    with shop.running(code=code) as one:
        stats = _value(one, "part0")["stats"]
        wait_until(lambda: _lines(one), "a line about the cold start")
        written, lacks = one.result()
        assert lacks
        said = stats["bytes_written"] + stats["bytes_cached"]
        assert said <= written <= said + 64 * 1024  # the last page of each file
        assert stats["cache_limit"] == 128 * MIB
        _value(one, "part1")
        time.sleep(1.0)
        [line] = _lines(one)
    assert line["function"] == "function"
    assert list(line["loaded"]) == ["part0==1"]
    assert line["requests"] == stats["requests"]
    assert line["bytes_written"] + line["bytes_cached"] == said


def test_frozen_before_the_line(shop: Shop) -> None:
    """A sandbox that is frozen as soon as its initialisation is through says it when it is thawed."""
    with shop.running(code="import cloudimport\ncloudimport.install()\nimport part0\n" + APP) as one:
        assert one.ready() is None
        with frozen(one):
            said = len(_lines(one))
            time.sleep(0.6)
        wait_until(lambda: _lines(one), "a line about the cold start")
    assert said in (0, 1)


def test_the_line_of_a_function_that_is_called_once(shop: Shop) -> None:
    """With AWS' own client it comes when the one invocation has ended, with metrics if they are wanted."""
    code = "import cloudimport\ncloudimport.install()\nimport part0\nhandler = lambda event, context: 1\n"
    own = runtime_with_ric(running_version(), shop.folder)
    with shop.running({"CLOUDIMPORT_METRICS": "Imports"}, code=code, runtime=own) as one:
        assert one.result() == 1
        wait_until(lambda: _lines(one), "a line about the cold start")
        [line] = _lines(one)
    assert list(line["loaded"]) == ["part0==1"]
    assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Imports"


def test_tmp_that_is_too_small(shop: Shop) -> None:
    """A native file for which /tmp has no room is a `NoSpaceError` that names file, bytes and setting, and
    the function goes on.
    """
    with shop.running(tmp_bytes=8 * MIB) as one:
        found = one.result({"import": "stout"})
        assert found["error"] == "NoSpaceError"
        assert "ImportError" in found["kinds"]
        for text in (
            _extension("stout"),
            str(12 * MIB),
            "ephemeral storage",
            "CLOUDIMPORT_CACHE",
            "stout==1",
        ):
            assert text in found["text"], found
        _value(one, "part0")


@pytest.mark.long
def test_keys_are_replaced_on_radosgw(radosgw: S3Server, tmp_path: Path) -> None:
    """The same on a server of another make: the keys of a user are replaced, and its old ones are refused."""
    bubblewrap()
    name = f"rotating{os.urandom(4).hex()}"
    (tmp_path / "work").mkdir()
    shelf, url = MadeShelf(tmp_path / "work"), f"s3://{name}/root"
    _fill(shelf)
    user = radosgw.make_user(name)
    with closing(radosgw.client()) as client:
        client.create_bucket(Bucket=name)
        statement = {"Effect": "Allow", "Principal": {"AWS": user.arn}, "Action": "s3:GetObject"}
        document = {
            "Version": "2012-10-17",
            "Statement": [{**statement, "Resource": f"arn:aws:s3:::{name}/*"}],
        }
        client.put_bucket_policy(Bucket=name, Policy=json.dumps(document))
    run_shelf("promote", shelf.url, url, "--all", env=radosgw.environ).ok()
    shop, secrets = Shop(radosgw, shelf, tmp_path), tmp_path / "secrets"
    secrets.mkdir()

    def write(access: str, secret: str) -> None:
        text = f"[default]\naws_access_key_id = {access}\naws_secret_access_key = {secret}\n"
        (secrets / "credentials").write_text(text)

    def admin(*words: str) -> None:
        command = [*radosgw.admin, "key", *words, f"--uid={name}"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)

    write(user.server.access_key, user.server.secret_key)
    environ = {"AWS_SHARED_CREDENTIALS_FILE": "/mnt/secrets/credentials", "CLOUDIMPORT_SHELF": url}
    with shop.running(environ, keys=False, mounts=((secrets, "/mnt/secrets"),)) as one:
        _value(one, "part0")
        admin("create", f"--access-key=NEW{name}", "--secret-key=NEWSECRET")
        admin("rm", f"--access-key={user.server.access_key}")
        write(f"NEW{name}", "NEWSECRET")
        _value(one, "part1")
