"""`install()` and `uninstall()`, and where settings come from."""

from __future__ import annotations

import json
import os
import shutil
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudimport.ids import Pin
from shelf_tools.status import unyank, yank
from tests.semantics.conftest import INSTALL, World
from tests.support.children import Ran
from tests.support.faulty import FaultyServer
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.shelves import MadeShelf, write_tree

SNAPSHOT = """
import sys, os, builtins, io, pathlib, glob, shutil, tokenize, ctypes, sqlite3, subprocess
import ssl, pkgutil, tempfile
import importlib._bootstrap_external as external
os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "") + ":"
def state():
    modules = (builtins, io, os, tokenize, ctypes, sqlite3, sqlite3.dbapi2, subprocess,
        sys.modules["_ctypes"], sys.modules["_posixsubprocess"], sys.modules["_sqlite3"])
    functions = {(m.__name__, n): v for m in modules for n, v in vars(m).items() if callable(v)}
    classes = (getattr(pathlib, "_NormalAccessor", str), getattr(glob, "_Globber", str), getattr(glob,
        "_GlobberBase", str), getattr(glob, "_StringGlobber", str), ssl.SSLContext, external.FileLoader,
            external.ExtensionFileLoader)
    return (list(sys.meta_path), list(sys.path), list(sys.path_hooks), dict(sys.path_importer_cache),
        functions, [dict(vars(c)) for c in classes], dict(os.environ))
"""


def test_uninstall(world: World) -> None:
    """`uninstall()` leaves no trace in `sys.meta_path`, `sys.path`, `sys.path_hooks`,
    `sys.path_importer_cache`, `os.environ`, `builtins`, `os` or any other module; loaded modules go on
    working, and it can be installed again.
    """
    world.run(
        """
        import demo, nsp.a
        open(demo.__path__[0] + "/data/x.txt").close()
        captured, stat = open, os.stat
        root = ROOT
        cloudimport.uninstall()
        cloudimport.uninstall()
        after = state()
        assert before[:3] == after[:3] and before[6] == after[6]
        assert not [path for path in after[3] if root in path]
        for one, other in ((before[4], after[4]), *zip(before[5], after[5])):
            assert not [name for name in one if other.get(name) is not one[name]]
            assert not [name for name in other if name not in one]
        assert captured("../handler/main.py").readline() is not None and stat(".")
        assert demo.Thing().method() == 4
        assert cloudimport.stats() == {}
        try:
            import left
        except ModuleNotFoundError:
            pass
        else:
            raise SystemExit("left")
        again = cloudimport.install(lock=LOCK, cache=CACHE)
        import left, right
        assert left.x == 1 and demo.__path__[0].startswith(again.root)
        cloudimport.uninstall()
        assert state()[0] == before[0]
        """,
        prelude=SNAPSHOT
        + f"LOCK, CACHE = {str(world.shelf.lock)!r}, {str(world.cache)!r}\nimport cloudimport\n"
        "before = state()\nenv = cloudimport.install(lock=LOCK, cache=CACHE)\nROOT = env.root\n",
    )


def test_install_twice(world: World) -> None:
    """`install()` of the same environment again returns the one that is installed; of another it is an
    error that says to call `uninstall()`.
    """
    other = _publish(world.folder / "made", 9)
    out = world.run(f"""
        print(cloudimport.install(lock={str(world.shelf.lock)!r}, cache={str(world.cache)!r}) is env,
            sys.path.count(ROOT), len(sys.meta_path))
        try:
            cloudimport.install(lock={str(other.lock)!r}, cache={str(world.cache)!r})
        except cloudimport.ConfigurationError as error:
            print("uninstall()" in str(error))
        cloudimport.uninstall()
        cloudimport.install(lock={str(other.lock)!r}, cache={str(world.cache)!r})
        import thing
        print(thing.x)
        import subprocess
        code = "import sys, cloudimport; env = cloudimport.install(lock={str(world.shelf.lock)!r})"
        code += "; import demo; print(demo.x, len([p for p in sys.path if p.endswith('/site')]))"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
    """)
    assert out.replace(out.split()[2], "n", 1) == "True 1 n\nTrue\n9\n1 1"


def test_import_is_light(world: World) -> None:
    """`import cloudimport` and `install()`, and an import from a folder or S3 shelf, load no third-party
    module and start no thread before the first fetch.
    """
    out = world.run(
        """
        import threading
        standard = sys.stdlib_module_names
        third = lambda: sorted({n.partition(".")[0] for n in sys.modules} - standard - {"cloudimport",
            "__main__", "sitecustomize"} - before)
        print(third(), threading.active_count())
        import single
        print(third())
        """,
        prelude="import sys\nbefore = {n.partition('.')[0] for n in sys.modules}\n" + world.install(),
    )
    assert out == "[] 1\n['single']"


def test_warm_start_is_lighter(world: World) -> None:
    """With a lock and a warm cache `install()` loads next to nothing of the standard library, and makes no
    source: what packages do not need themselves costs nothing.
    """
    world.run("")
    heavy = "re typing json hashlib threading socket ssl contextlib copy collections functools inspect enum"
    install = world.install().split("faulthandler.dump_traceback_later(60, exit=True)\n")[1]
    out = world.run(
        f"print(sorted((set({heavy.split()}) | {{'cloudimport.sources.s3'}}) & set(sys.modules) - before))",
        prelude="import sys\nbefore = set(sys.modules)\n" + install,
    )
    assert out == "[]"


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An S3 server with an empty bucket; yields the environment variables that reach it."""
    pytest.importorskip("moto")
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    environ = {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }
    client = boto3.client(
        "s3",
        endpoint_url=environ["AWS_ENDPOINT_URL_S3"],
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="semantics")
    client.close()
    yield environ
    server.stop()


def test_s3(world: World, s3: dict[str, str], tmp_path: Path) -> None:
    """From a shelf on S3 imports are the same, in threads, forked children and child interpreters, and
    still no third party is loaded.
    """
    (tmp_path / "work").mkdir()
    shelf = MadeShelf(tmp_path / "work", "s3://semantics/prefix", s3)
    shelf.add(
        "thing", "1", {"thing/__init__.py": "x = 9\n", "thing/data.txt": "data", "thing/late.py": "y = 1\n"}
    )
    shelf.add("other", "1", {"other.py": "z = 2\n"})
    shelf.environment()
    out = World(shelf, tmp_path, s3).run("""
        import subprocess, thing
        print(thing.x, open(os.path.join(thing.__path__[0], "data.txt")).read())
        pid = os.fork()
        if not pid:
            import thing.late, other
            os._exit(other.z + thing.late.y)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        import thing.late
        print(thing.late.y, subprocess.check_output([sys.executable, "-c", "import other; print(other.z)"],
            text=True).strip())
        print([n for n in ("boto3", "botocore", "urllib3", "requests", "s3fs", "fsspec", "zstandard",
            "backports") if n in sys.modules])
    """)
    assert out == "9 data\n3\n1 2\n[]"


def _publish(folder: Path, value: int) -> MadeShelf:
    folder.mkdir(parents=True)
    shelf = MadeShelf(folder)
    shelf.add("thing", "1", {"thing.py": f"x = {value}\n"})
    shelf.environment()
    return shelf


ASK = """
import os, sys
import cloudimport
os.environ['CLOUDIMPORT_CACHE'] = {cache!r}
cloudimport.install({arguments})
import thing
print(thing.x)
"""


def test_precedence(world: World) -> None:
    """A setting is taken from the argument, else from the environment variable, else from what is found;
    the lock may name the shelf, which argument and variable override.
    """
    one, two, three = (_publish(world.folder / name, at) for at, name in enumerate(("one", "two", "three")))
    write_tree(world.handler, {"requirements.txt": "thing==1\n", "cloudimport.lock": three.lock.read_text()})

    def ask(arguments: str, **env: str) -> str:
        script = ASK.format(cache=str(world.cache), arguments=arguments)
        return world.run("", prelude=script, env=env)

    assert ask("") == "2"
    assert ask("", CLOUDIMPORT_LOCK=str(two.lock)) == "1"
    assert ask(f"lock={str(one.lock)!r}", CLOUDIMPORT_LOCK=str(two.lock)) == "0"
    assert ask(f"{str(one.requirements)!r}, shelf={one.url!r}", CLOUDIMPORT_SHELF=two.url) == "0"
    assert ask(f"{str(one.requirements)!r}", CLOUDIMPORT_SHELF=two.url) == "1"


def test_search(world: World) -> None:
    """Lock and requirements are looked for in `LAMBDA_TASK_ROOT`, else in the folder of `__main__`; in the
    current folder only for `python -c`. What lies in the current folder of a script decides nothing.
    """
    one, two, three = (_publish(world.folder / name, at) for at, name in enumerate(("one", "two", "three")))
    write_tree(world.handler, {"cloudimport.lock": one.lock.read_text()})
    script = ASK.format(cache=str(world.cache), arguments="")
    elsewhere = f"import os; os.chdir({str(two.work)!r})\n" + script
    assert world.run("", prelude=elsewhere) == "0"
    assert world.run("", prelude=elsewhere, env={"LAMBDA_TASK_ROOT": str(three.work)}) == "2"
    call = f"[sys.executable, '-c', {script!r}], cwd={str(two.work)!r}, text=True"
    command = f"import subprocess, sys\nprint(subprocess.check_output({call}).strip())"
    assert world.run("", prelude=command) == "1"
    (world.handler / "cloudimport.lock").unlink()
    ran = world.start("", prelude=elsewhere)
    assert "ConfigurationError: neither cloudimport.lock nor requirements.txt is in" in ran.stderr


def test_lock_must_match(world: World) -> None:
    """A lock beside a `requirements.txt` that it does not match is an error that says how to make it again;
    a lock of another interpreter's target, too.
    """
    one = _publish(world.folder / "one", 0)
    write_tree(world.handler, {"requirements.txt": "thing==2\n", "cloudimport.lock": one.lock.read_text()})
    script = ASK.format(cache=str(world.cache), arguments="")
    ran = world.start("", prelude=script)
    assert "does not match" in ran.stderr
    assert "shelf publish -r" in ran.stderr
    record = json.loads(one.lock.read_text())
    record["targets"] = {"cp310-manylinux_2_17_aarch64": next(iter(record["targets"].values()))}
    write_tree(world.handler, {"requirements.txt": "thing==1\n", "cloudimport.lock": json.dumps(record)})
    assert "NotPublishedError" in world.start("", prelude=script).stderr


def test_lock_without_store(world: World) -> None:
    """With a lock and a warm cache nothing is asked of the store that anybody waits for: it may be gone."""
    one = _publish(world.folder / "one", 7)
    script = ASK.format(cache=str(world.cache), arguments=f"lock={str(one.lock)!r}")
    assert world.run("", prelude=script) == "7"
    shutil.move(one.url, one.url + "-away")
    assert world.run("", prelude=script + "print(cloudimport.stats()['requests'])") == "7\n0"


def test_cache_of_others(world: World) -> None:
    """A cache folder that others can write to, or that is another user's, is refused: what lies there is
    executed.
    """
    os.makedirs(world.cache)
    os.chmod(world.cache, 0o777)
    ran = world.start("")
    assert "can be written by others" in ran.stderr
    os.chmod(world.cache, 0o700)
    if os.geteuid() == 0:
        os.chown(world.cache, 1234, 1234)
        assert "belongs to another user (uid 1234): set CLOUDIMPORT_CACHE" in world.start("").stderr


def test_hold_gc(world: World) -> None:
    """With `CLOUDIMPORT_HOLD_GC=1` garbage collection is held back from the beginning of an import to its
    end, also if that is an error; what a module sets itself stays, and so does what was frozen.
    """
    shelf = MadeShelf(world.folder / "made")
    files = {
        "outer/__init__.py": "import gc, outer.inner\ninside = gc.get_threshold()[0]\n",
        "outer/inner.py": "import gc\ninside = gc.get_threshold()[0]\nkept = [[] for _ in range(5000)]\n",
        "wrong.py": "import outer.inner\nraise ValueError\n",
        "outer/late.py": "kept = [[] for _ in range(5000)]\n",
        "own.py": "import gc\ngc.set_threshold(5, 6, 7)\n",
        "many.py": "import gc\nold = len(gc.get_objects(2))\nkept = [[] for _ in range(5000)]\n",
    }
    shelf.add("thing", "1", files)
    shelf.environment()
    script = """
        import gc, threading
        before, count = gc.get_threshold(), gc.get_stats()[0]["collections"]
        import outer
        held = outer.inside == outer.inner.inside > before[0]
        print(held, gc.get_stats()[0]["collections"] - count < 3, gc.get_threshold() == before)
        print(type(outer.__spec__).__name__, "_bursts" in vars(outer.__spec__), outer.__spec__._initializing)
        try:
            import wrong
        except ValueError:
            print("wrong", gc.get_threshold() == before)
        import many
        print(len(gc.get_objects(2)) - many.old > 4000, gc.get_freeze_count())
        gc.freeze()
        frozen = gc.get_freeze_count()
        threads = [threading.Thread(target=__import__, args=(name,)) for name in ("own", "outer.late")]
        [t.start() for t in threads]
        [t.join() for t in threads]
        print(gc.get_threshold(), gc.get_freeze_count() >= frozen * 0.9)
        """
    prelude = INSTALL.format(lock=str(shelf.lock), cache=str(world.cache))
    out = world.run(script, prelude=prelude, env={"CLOUDIMPORT_HOLD_GC": "1"})
    assert out.splitlines() == [
        "True True True",
        "ModuleSpec False False",
        "wrong True",
        "True 0",
        "(5, 6, 7) True",
    ]
    assert world.run(script, prelude=prelude).startswith(
        "False False True\nModuleSpec False False\nwrong True"
    )


def _own_shelf(world: World) -> MadeShelf:
    """Return a shelf with the packages ``one`` and ``two`` of which no pin is yanked yet."""
    (world.folder / "made").mkdir()
    shelf = MadeShelf(world.folder / "made")
    shelf.add("one", "1", {"one.py": "x = 1\n"})
    shelf.add("two", "2", {"two.py": "y = 2\n"})
    shelf.environment()
    return shelf


def _over_http(server: HttpServer) -> dict[str, str]:
    return {
        "CLOUDIMPORT_SHELF": "s3://bucket",
        "AWS_ENDPOINT_URL_S3": server.endpoint,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }


#: Imports, and then lives for as long as the background takes, or for some seconds if it does not ask.
LIVES = """
import one, time
def asked():
    status = CACHE + "/v1/status"
    return os.path.isdir(status) and [n for n in os.listdir(status) if not n.endswith(".tmp")]
until = time.monotonic() + {seconds}
while not asked() and time.monotonic() < until:
    time.sleep(.05)
time.sleep(.3)
print("asked" if asked() else "not asked")
"""


def _start(world: World, shelf: MadeShelf, code: str = "import one", **env: str) -> Ran:
    prelude = INSTALL.format(lock=str(shelf.lock), cache=str(world.cache))
    return world.start(f"CACHE = {str(world.cache)!r}\n" + textwrap.dedent(code), prelude=prelude, env=env)


def test_yanked(world: World) -> None:
    """A pin that was yanked is a `YankedWarning` with the curator's reason, once, without anything being
    deployed anew: the shelf is asked in the background when a process's first imports are through, and what
    it says is good for `CLOUDIMPORT_STATUS_TTL` seconds for all processes of the cache. Children do not
    repeat it.
    """
    shelf = _own_shelf(world)
    yank(shelf.store, Pin.parse("two==2"), "a hole\n[31m in it")
    with FaultyServer(Path(shelf.url)) as server:
        env = _over_http(server)
        first = _start(world, shelf, LIVES.format(seconds=20), **env)
        assert first.ok() == "asked"
        assert "YankedWarning: two==2 is yanked: a hole [31m in it (s3://bucket): publish" in first.stderr
        paths = [request.target for request in server.requests]
        # Not before the first import: after all that this needs.
        assert paths.count("/bucket/status.json") == 1
        assert paths[-1] == "/bucket/status.json"
        unyank(shelf.store, Pin.parse("two==2"))
        code = "import subprocess\nimport one\n" + LIVES.format(seconds=0)
        code += "subprocess.run([sys.executable, '-c', 'import two; print(two.y)'], check=True)\n"
        second = _start(world, shelf, code, **env)
        assert second.ok() == "2\nasked"
        assert second.stderr.count("two==2 is yanked: a hole") == 1
        assert "main.py:4: YankedWarning" in second.stderr
        assert [r.target for r in server.requests].count("/bucket/status.json") == 1
        # What is known from earlier is told though it is old; what comes then is told to the next.
        third = _start(
            world, shelf, "import one, time; time.sleep(1.5)", CLOUDIMPORT_STATUS_TTL="0.001", **env
        )
        assert third.stderr.count("is yanked") == 1
        assert [r.target for r in server.requests].count("/bucket/status.json") == 2
        assert "yanked" not in _start(world, shelf, **env).stderr
        ignored = _start(
            world,
            shelf,
            "import one, time; time.sleep(1.5)",
            CLOUDIMPORT_YANKED="ignore",
            CLOUDIMPORT_STATUS_TTL="0.001",
            **env,
        )
        assert ignored.ok() == ""
        assert [r.target for r in server.requests].count("/bucket/status.json") == 2


def test_yanked_where_warnings_are_errors(world: World) -> None:
    """Where warnings are errors `install()` raises the one that it knows of, with nothing installed; one that
    comes in the background is a line on standard error, and ends nothing.
    """
    shelf = _own_shelf(world)
    yank(shelf.store, Pin.parse("one==1"), "a hole")
    first = _start(world, shelf, LIVES.format(seconds=20), PYTHONWARNINGS="error")
    assert first.ok() == "asked"
    assert first.stderr.startswith("cloudimport: one==1 is yanked: a hole (")
    assert first.stderr.count("\n") == 1
    script = f"""
        import sys, cloudimport
        try:
            cloudimport.install(lock={str(shelf.lock)!r}, cache={str(world.cache)!r})
        except cloudimport.YankedWarning as warning:
            print(warning)
        print([f for f in sys.meta_path if type(f).__module__.startswith("cloudimport")])
        """
    out = world.run(script, prelude="", env={"PYTHONWARNINGS": "error"}).splitlines()
    assert out[0].startswith("one==1 is yanked: a hole (")
    assert out[1] == "[]"


def test_yanked_refused(world: World) -> None:
    """With `CLOUDIMPORT_YANKED=refuse` a yanked pin is a `YankedError` of `install()` that names pin and
    reason, before anything is imported. The shelf is asked at once with the index, or when what is known is
    too old.
    """
    shelf = _own_shelf(world)
    refuse = {"CLOUDIMPORT_YANKED": "refuse"}
    with _Meeting(Path(shelf.url), ("envs/", "status.json")) as server:
        # Each of the two is answered when both were asked for: one after the other would not do.
        env = {**_over_http(server), **refuse}
        assert _start(world, shelf, "import one\nprint(one.x)", **env).ok() == "1"
        assert server.met
        count = len(server.requests)
        assert _start(world, shelf, "print(cloudimport.stats()['requests'])", **env).ok() == "0"
        assert len(server.requests) == count
        yank(shelf.store, Pin.parse("one==1"), "a hole")
        refused = _start(world, shelf, CLOUDIMPORT_STATUS_TTL="0.001", **env)
        assert refused.returncode == 1
        line = refused.stderr.splitlines()[-1]
        assert line.startswith("cloudimport.errors.YankedError: one==1 is yanked: a hole (s3://bucket)")
        assert "CLOUDIMPORT_YANKED=warn" in line
        count = len(server.requests)
        again = _start(world, shelf, **env)
        assert again.stderr.splitlines()[-1] == line
        assert len(server.requests) == count


@pytest.mark.parametrize("why", ["absent", "denied", "unreachable", "malformed"])
def test_no_status(world: World, why: str) -> None:
    """Where the shelf does not say which pins are yanked (it is of before there was such, the reader may not
    ask, or it does not answer) nothing happens; with `CLOUDIMPORT_YANKED=refuse` that is a warning, and with
    `CLOUDIMPORT_STATUS_UNKNOWN=refuse` an error.
    """
    shelf = _own_shelf(world)
    answer = {"denied": 403, "unreachable": 503}.get(why, 0)
    status = Path(shelf.url) / "status.json"
    if why == "absent":
        status.unlink()
    elif why == "malformed":
        status.write_text("[")
    kept = why in ("absent", "denied", "malformed")
    with _Refusing(Path(shelf.url), answer) as server:
        env = _over_http(server)
        code = LIVES.format(seconds=20 if kept else 3)
        first = _start(world, shelf, code, **env)
        assert first.ok() == ("asked" if kept else "not asked")
        assert first.stderr == ""
        asked = server.asked
        assert asked
        assert _start(world, shelf, **env).stderr == ""
        assert server.asked == asked
        going = _start(world, shelf, "import one\nprint(one.x)", CLOUDIMPORT_YANKED="refuse", **env)
        assert going.ok() == "1"
        assert "YankedWarning: whether pins are yanked is not known: " in going.stderr
        refused = _start(
            world, shelf, CLOUDIMPORT_YANKED="refuse", CLOUDIMPORT_STATUS_UNKNOWN="refuse", **env
        )
        assert refused.returncode == 1
        name = {"absent": "Absent", "denied": "Denied", "unreachable": "Unreachable", "malformed": "Format"}[
            why
        ]
        last = refused.stderr.splitlines()[-1]
        assert last.startswith(f"cloudimport.errors.{name}Error: whether pins are yanked is not known, and ")
        assert "s3://bucket/status.json" in last


def test_yanked_settings(world: World) -> None:
    """What is no setting of these, or contradicts another, is an error in one line."""
    for name, value, words in (
        ("CLOUDIMPORT_YANKED", "no", "is none of warn, refuse, ignore"),
        ("CLOUDIMPORT_STATUS_UNKNOWN", "no", "is none of go-on, refuse"),
        ("CLOUDIMPORT_STATUS_UNKNOWN", "refuse", "needs CLOUDIMPORT_YANKED=refuse"),
        ("CLOUDIMPORT_STATUS_TTL", "-1", "is not a number of seconds"),
    ):
        last = world.start("", env={name: value}).stderr.splitlines()[-1]
        assert last.startswith("cloudimport.errors.ConfigurationError: ")
        assert words in last


class _Refusing(FaultyServer):
    """Answers a status to whoever asks for ``status.json``, 0: what is there."""

    def __init__(self, folder: Path, status: int) -> None:
        super().__init__(folder)
        self.status, self.asked = status, 0

    def _answer(self, request: Request) -> Reply:
        if request.target.endswith("/status.json"):
            self.asked += 1
            if self.status:
                self.faults[request.number] = self.status
        return super()._answer(request)


class _Meeting(FaultyServer):
    """Answers the first requests for certain keys when all of them have come."""

    def __init__(self, folder: Path, keys: tuple[str, ...]) -> None:
        super().__init__(folder)
        self._keys = {key: threading.Event() for key in keys}
        self.met = False

    def _answer(self, request: Request) -> Reply:
        for key, came in self._keys.items():
            if f"/{key}" in request.target:
                came.set()
                self.met = all(event.wait(20) for event in self._keys.values())
        return super()._answer(request)
