"""Functions in a Lambda-like sandbox whose imports come from the shelf with only the layer attached."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.lambdas import Function, function, runtime_with_ric
from tests.support.layered import (
    LARGE_WORK,
    SMALL_WORK,
    WRAPPER,
    Published,
    box_for,
    emulator,
    post,
    publish_large,
    publish_small,
)
from tests.support.layers import MATRIX, built, layer_target, unpack
from tests.support.runtimes import find_python, running_version
from tests.support.s3servers import S3Server, free_port
from tests.support.shelves import write_tree

VERSION = running_version()
WAYS = ("wrapper", "redirect", "code")
REQUIREMENTS = Path(__file__).with_name("layer") / "requirements.txt"


@dataclass(frozen=True)
class Bench:
    """What the tests of a session share: folders of runtimes and layers, made once."""

    folder: Path

    def runtime(self, version: str = VERSION) -> Path:
        """Return a /var/runtime with AWS' client."""
        return runtime_with_ric(version, self.folder)

    def layer(self, version: str = VERSION) -> Path:
        """Return the layer as it is seen at /opt."""
        place = self.folder / f"opt-{version}"
        return place if place.exists() else unpack(built(version, self.folder).path, place)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Runtimes and layers."""
    return Bench(tmp_path_factory.mktemp("layered"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, moto: S3Server) -> Published:
    """A small environment on moto."""
    bucket = moto.make_bucket(f"shelf-{os.urandom(6).hex()}")
    return publish_small(tmp_path_factory.mktemp("small"), moto, bucket)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, moto: S3Server) -> Published:
    """pandas and boto3 on moto, for every Python of the matrix that is at hand."""
    bucket = moto.make_bucket(f"shelf-{os.urandom(6).hex()}")
    listed = tmp_path_factory.mktemp("large") / "requirements.txt"
    listed.write_text(REQUIREMENTS.read_text())
    targets = [str(layer_target(version)) for version in MATRIX if find_python(version)]
    return publish_large(listed, moto, bucket, targets)


@pytest.fixture(scope="module")
def table() -> Iterator[Callable[[str, Any], None]]:
    """Rows of what was seen, printed in the end (``pytest -s``)."""
    rows: list[str] = []
    yield lambda name, seen: rows.append(f"{name:32}{seen}")
    print("\n" + "\n".join(rows))  # noqa: T201 (figures for docs/layer.md)


def _started(one: Function) -> float:
    """Wait for the end of the init phase; returns how many seconds that took."""
    begun = time.monotonic()
    assert one.ready() is None, f"{one.ready()}\n{one.log}"
    return time.monotonic() - begun


def _figures(seen: dict[str, Any], start: float, second: float) -> str:
    stats, tmp = seen["stats"], {name: f"{size / 1e6:.1f}" for name, size in sorted(seen["tmp"].items())}
    return (
        f"init {start:.2f} s, second {second * 1e3:.0f} ms, {stats['requests']:.0f} requests, "
        f"{stats['bytes_fetched'] / 1e6:.1f} MB; MB in /tmp: {tmp}"
    )


def _run(one: Function, work: Any, name: str, told: Callable[[str, Any], None]) -> None:
    """Start, invoke twice: the answer is right, the second time asks the store for nothing; /tmp has native
    files, data, the index, and a cache of blocks that is bounded.
    """
    start = _started(one)
    seen = one.result({"measure": True})
    assert (seen["work"], seen["event"]) == (work, {"measure": True})
    assert seen["module"].startswith("/tmp/cloudimport/v1/trees/")
    assert seen["handler"] == "app.handler"
    assert seen["top"] == ["cloudimport"]
    assert 0 < seen["stats"]["requests"] < 60
    assert seen["tmp"].keys() <= {"blocks", "indexes", "native", "data"}  # modules run from memory
    assert seen["tmp"]["blocks"] <= 128 << 20
    again = one.invoke({"measure": True})
    assert again.value["work"] == work
    assert again.value["stats"]["requests"] == seen["stats"]["requests"]
    told(name, _figures(seen, start, again.seconds))


@pytest.mark.parametrize("way", WAYS)
def test_with_only_the_layer(
    way: str, bench: Bench, small: Published, tmp_path: Path, table: Callable[[str, Any], None]
) -> None:
    """An unmodified handler with the wrapper, or the redirect; and one with the line."""
    task = small.task(tmp_path / "task", code=way == "code")
    box = box_for(way, small, task, bench.runtime(), VERSION, layers=[bench.layer()])
    with function(box) as one:
        _run(one, SMALL_WORK, f"requests, {VERSION}, {way}", table)


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("version", MATRIX)
@pytest.mark.parametrize("way", WAYS)
def test_pandas_and_boto3(
    way: str,
    version: str,
    bench: Bench,
    large: Published,
    tmp_path: Path,
    table: Callable[[str, Any], None],
) -> None:
    """On each Python of the matrix, with the memory that a function has: the same handler, in three ways."""
    layer = bench.layer(version)
    task = large.task(tmp_path / "task", code=way == "code")
    box = box_for(way, large, task, bench.runtime(version), version, layers=[layer], memory_bytes=512 << 20)
    with function(box) as one:
        _run(one, LARGE_WORK, f"pandas, boto3, {version}, {way}", table)


def _emulated(box: Any, event: Any) -> tuple[Any, Any, str]:
    """Run a box by the emulator; returns two answers, and the log."""
    port, api = free_port(), free_port()
    entry = ("/rie", "--runtime-interface-emulator-address", f"127.0.0.1:{port}")
    entry += ("--runtime-api-address", f"127.0.0.1:{api}", "/var/runtime/bootstrap", box.handler)
    with function(replace(box, entry=entry, mounts=((emulator(), "/rie"),), confined=False)) as one:
        for _ in range(200):
            try:
                return post(port, event), post(port, event), one.log
            except ConnectionRefusedError:
                time.sleep(0.05)
            except OSError as error:
                if not isinstance(getattr(error, "reason", None), ConnectionRefusedError):
                    raise
                time.sleep(0.05)
        raise AssertionError(one.log)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the emulator's program is for x86-64")
@pytest.mark.parametrize("way", ["wrapper", "redirect"])
def test_by_the_emulator_of_aws(way: str, bench: Bench, small: Published, tmp_path: Path) -> None:
    """The official runtime interface emulator starts and invokes the same function."""
    box = box_for(way, small, small.task(tmp_path / "task"), bench.runtime(), VERSION, layers=[bench.layer()])
    first, second, log = _emulated(box, {"measure": True})
    assert first["work"] == second["work"] == SMALL_WORK, log
    assert first["handler"] == "app.handler"
    assert first["stats"]["requests"] == second["stats"]["requests"] > 0


@pytest.mark.long
@pytest.mark.network
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the emulator's program is for x86-64")
@pytest.mark.parametrize("version", MATRIX)
@pytest.mark.parametrize("way", WAYS)
def test_pandas_and_boto3_by_the_emulator(
    way: str, version: str, bench: Bench, large: Published, tmp_path: Path
) -> None:
    """The same by the emulator, on each Python, in three ways."""
    layer = bench.layer(version)
    task = large.task(tmp_path / "task", code=way == "code")
    first, second, log = _emulated(
        box_for(way, large, task, bench.runtime(version), version, layers=[layer]), {"measure": True}
    )
    assert first["work"] == second["work"] == LARGE_WORK, log
    assert first["stats"]["requests"] == second["stats"]["requests"] > 0


#: Another layer's wrapper, as several vendors have it: it takes the handler's place, and calls it.
_THEIRS = """\
#!/bin/sh
export THEIR_HANDLER="$_HANDLER"
export _HANDLER=their_wrapper.handler
exec {command}
"""
_THEIR_MODULE = """
import importlib, os, sys
seen = sorted(name for name in sys.modules if name.startswith("requests"))
module, _, name = os.environ["THEIR_HANDLER"].rpartition(".")
inner = getattr(importlib.import_module(module.replace("/", ".")), name)

def handler(event, context):
    return {**inner(event, context), "theirs": True}
"""
#: One that instruments by a sitecustomize on PYTHONPATH.
_AUTO = """\
#!/bin/sh
export PYTHONPATH="/opt/auto:/opt/python:$LAMBDA_RUNTIME_DIR"
exec {command}
"""
_AUTO_SITE = "import builtins, os\nbuiltins.instrumented = os.getpid()\n"


def _other_layer(folder: Path, script: str, command: str) -> Path:
    write_tree(
        folder,
        {
            "other-wrapper": script.format(command=command),
            "python/their_wrapper.py": _THEIR_MODULE,
            "auto/sitecustomize.py": _AUTO_SITE,
        },
    )
    (folder / "other-wrapper").chmod(0o755)
    return folder


_CHILD = """
import subprocess, sys

def child(event, context):
    code = "import requests, builtins; print(requests.__file__, hasattr(builtins, 'instrumented'))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    import builtins
    return {"child": ran.stdout.split(), "here": hasattr(builtins, "instrumented"), "error": ran.stderr}
"""


def _check_chained(
    first: str, version: str, work: Any, bench: Bench, published: Published, folder: Path
) -> None:
    """Run a function with two wrappers, of which ``first`` is the one that Lambda is told."""
    command = '"$@"' if first == "ours" else f'{WRAPPER} "$@"'
    layers = [bench.layer(version), _other_layer(folder / "other", _THEIRS, command)]
    chain = {"CLOUDIMPORT_EXEC_WRAPPER": "/opt/other-wrapper"} if first == "ours" else {}
    wrapper = WRAPPER if first == "ours" else "/opt/other-wrapper"
    more = {"layers": layers, "wrapper": wrapper, "environ": chain}
    task = published.task(folder / "task")
    with function(box_for("wrapper", published, task, bench.runtime(version), version, **more)) as one:
        _started(one)
        seen = one.result({"measure": True})
        assert (seen["theirs"], seen["work"]) == (True, work)
        assert seen["module"].startswith("/tmp/cloudimport/")


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_chained_with_one_that_takes_the_handlers_place(
    first: str, bench: Bench, small: Published, tmp_path: Path
) -> None:
    """Both orders: each calls the next, and the function imports from the shelf."""
    _check_chained(first, VERSION, SMALL_WORK, bench, small, tmp_path)


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("version", MATRIX)
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_pandas_and_boto3_chained(
    first: str, version: str, bench: Bench, large: Published, tmp_path: Path
) -> None:
    """The same on each Python, with pandas and boto3."""
    bench.layer(version)
    _check_chained(first, version, LARGE_WORK, bench, large, tmp_path)


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_chained_with_one_that_has_a_sitecustomize(
    first: str, bench: Bench, small: Published, tmp_path: Path
) -> None:
    """Theirs runs in the function and in its children, beside ours."""
    command = '"$@"' if first == "ours" else f'{WRAPPER} "$@"'
    layers = [bench.layer(), _other_layer(tmp_path / "other", _AUTO, command)]
    chain = {"CLOUDIMPORT_EXEC_WRAPPER": "/opt/other-wrapper"} if first == "ours" else {}
    wrapper = WRAPPER if first == "ours" else "/opt/other-wrapper"
    task = small.task(tmp_path / "task", {"app.py": small.handler + _CHILD})
    box = box_for(
        "wrapper", small, task, bench.runtime(), VERSION, layers=layers, wrapper=wrapper, environ=chain
    )
    with function(replace(box, handler="app.child")) as one:
        _started(one)
        seen = one.result({})
        assert seen["here"] is True
        assert seen["child"][0].startswith("/tmp/cloudimport/"), seen["error"]
        assert seen["child"][1] == "True"


@pytest.mark.parametrize(
    ("environ", "files", "kind", "told"),
    [
        (
            {"CLOUDIMPORT_LOCK": "/var/task/none.lock"},
            {},
            "ConfigurationError",
            "/var/task/none.lock cannot be read: ",
        ),
        ({}, {"cloudimport.lock": ""}, "ConfigurationError", "/var/task/cloudimport.lock"),
        (
            {"CLOUDIMPORT_DEADLINE": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
            {},
            "UnreachableError",
            "s3://",
        ),
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, {}, "DeniedError", "s3://"),
    ],
)
@pytest.mark.parametrize("way", ["wrapper", "redirect"])
def test_install_errors_are_errors_of_the_init_phase(
    way: str,
    environ: dict[str, str],
    files: dict[str, str],
    kind: str,
    told: str,
    bench: Bench,
    small: Published,
    tmp_path: Path,
) -> None:
    """One line, its type by name, in the answer and in the log; no frame of ours, no crash."""
    task = small.task(tmp_path / "task", files)
    box = box_for(way, small, task, bench.runtime(), VERSION, layers=[bench.layer()], environ=environ)
    with function(box) as one:
        answer = one.ready()
        assert answer is not None
        assert answer.kind == "init-error", one.log
        said = answer.value
        assert (said["errorType"], said["stackTrace"]) == (kind, [])
        assert told in said["errorMessage"]
        assert "\n" not in said["errorMessage"]
        assert f"[ERROR] {kind}: {said['errorMessage']}" in one.log
        assert "  File " not in one.log  # the headline of a traceback is AWS' client's, always


def test_no_lockfile(bench: Bench, small: Published, tmp_path: Path) -> None:
    """A function without one is told where it is looked for."""
    task = small.task(tmp_path / "task")
    (task / "cloudimport.lock").unlink()
    with function(box_for("wrapper", small, task, bench.runtime(), VERSION, layers=[bench.layer()])) as one:
        answer = one.ready()
        assert answer is not None
        assert answer.value["errorMessage"].startswith(
            "neither cloudimport.lock nor requirements.txt is in /var/task: "
        )


@pytest.mark.network
def test_a_layer_for_another_machine(bench: Bench, small: Published, tmp_path: Path) -> None:
    """It is named, with what to attach."""
    other = "arm64" if os.uname().machine == "x86_64" else "x86_64"
    layer = unpack(built(VERSION, bench.folder, other).path, tmp_path / "opt")
    task = small.task(tmp_path / "task")
    with function(box_for("wrapper", small, task, bench.runtime(), VERSION, layers=[layer])) as one:
        answer = one.ready()
        assert answer is not None
        said = answer.value["errorMessage"]
        assert said.startswith(f"this layer of cloudimport is for cpython-{VERSION.replace('.', '')}-")
        assert said.endswith("attach the layer of the function's Python and architecture")


def test_the_cache_of_blocks_is_bounded(bench: Bench, small: Published, tmp_path: Path) -> None:
    """By its setting, which is 128M unless a function says other."""
    environ = {"CLOUDIMPORT_CACHE_SIZE": "600k"}
    task = small.task(tmp_path / "task")
    layers = [bench.layer()]
    box = box_for("wrapper", small, task, bench.runtime(), VERSION, layers=layers, environ=environ)
    with function(box) as one:
        _started(one)
        seen = one.result({"measure": True})
        assert seen["work"] == SMALL_WORK
        assert 0 < seen["tmp"]["blocks"] <= 700 << 10  # files take whole pages


_WHO = """
import mine, theirs, queue, runtimes, layered, subprocess, sys

CODE = '''import mine, theirs, queue, runtimes
print(*(getattr(m, 'whose', 'stdlib') for m in (mine, theirs, queue, runtimes)))'''

def handler(event, context):
    whose = [getattr(module, "whose", "stdlib") for module in (mine, theirs, queue, runtimes, layered)]
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    return {"whose": whose, "child": ran.stdout.split(), "error": ran.stderr, "path": sys.path}
"""


@pytest.mark.parametrize("way", WAYS)
def test_who_wins(way: str, bench: Bench, small: Published, tmp_path: Path) -> None:
    """The standard library, the function's own folder, the shelf, then layers and the runtime's packages."""
    other = write_tree(
        tmp_path / "other",
        {f"python/{name}.py": "whose = 'layer'\n" for name in ("mine", "theirs", "layered")},
    )
    more = write_tree(tmp_path / "more", {"runtimes.py": "whose = 'runtime'\n"})
    first = "import cloudimport; cloudimport.install()\n" if way == "code" else ""
    task = small.task(tmp_path / "task", {"app.py": first + _WHO, "mine.py": "whose = 'function'\n"})
    box = box_for(
        way,
        small,
        task,
        bench.runtime(),
        VERSION,
        layers=[bench.layer(), other],
    )
    with function(replace(box, mounts=((more, box.site_folders()[0]),))) as one:
        _started(one)
        seen = one.result({})
        assert seen["whose"] == ["function", "shelf", "stdlib", "shelf", "layer"]
        assert seen["child"] == ["function", "shelf", "stdlib", "shelf"], seen["error"]
        places = [entry.split("/")[1] for entry in seen["path"]]
        assert places.index("tmp") == 1


def test_a_function_that_sets_pythonpath(bench: Bench, small: Published, tmp_path: Path) -> None:
    """The runtime leaves layers out then; the wrapper sees to it that ours is found all the same."""
    first = "import vendored\n"
    task = small.task(tmp_path / "task", {"app.py": first + small.handler, "vendor/vendored.py": ""})
    environ = {"PYTHONPATH": "/var/task/vendor"}
    layers = [bench.layer()]
    box = box_for("wrapper", small, task, bench.runtime(), VERSION, layers=layers, environ=environ)
    with function(box) as one:
        _started(one)
        assert one.result({})["work"] == SMALL_WORK


_CANARY = """
import sys, json
compiled = []
def hook(name, arguments):
    if name == "compile":
        compiled.append(str(arguments[1]))
sys.addaudithook(hook)
before = set(sys.modules)
import cloudimport
environment = cloudimport.install()
loaded = {name: getattr(sys.modules[name], "__file__", None) for name in set(sys.modules) - before}
import requests, bulk
compiled_here = [name for name in compiled if name.startswith(("/opt", "/tmp"))]

import ctypes, importlib.util, os, subprocess
CODE = "import requests, cloudimport, bulk; print(requests.__file__, cloudimport.stats()['requests'])"

def handler(event, context):
    libc = ctypes.CDLL(None)
    libc.open.restype = ctypes.c_int
    found = libc.open(os.fsencode(os.path.dirname(bulk.__file__) + "/data/f7"), 0)  # by way of the filler
    text = os.read(found, 100).decode() if found >= 0 else ""
    before = cloudimport.stats()["requests"]
    away = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, env=away)
    return {"compiled": compiled_here, "loaded": loaded, "text": text, "child": ran.stdout.split(),
            "error": ran.stderr, "warm": cloudimport.stats()["requests"] - before,
            "codec": importlib.util.find_spec("backports") is not None}
"""


def _spoilt(layer: Path, folder: Path) -> Path:
    """Return a copy of a layer whose sources cannot be compiled."""
    shutil.copytree(layer, folder)
    for path in folder.rglob("*.py"):
        path.write_text("this is no Python (\n")
    return folder


@pytest.mark.parametrize("spoilt", [False, True], ids=["as built", "sources spoilt"])
def test_canary(spoilt: bool, bench: Bench, small: Published, tmp_path: Path) -> None:
    """No source of the layer or of a package is compiled, nor in children and the filler; a warm import asks
    the store for nothing; ``install()`` loads what the layer and the standard library have.
    """
    layer = _spoilt(bench.layer(), tmp_path / "opt") if spoilt else bench.layer()
    task = small.task(tmp_path / "task", {"app.py": _CANARY})
    with function(box_for("code", small, task, bench.runtime(), VERSION, layers=[layer])) as one:
        _started(one)
        seen = one.result({})
    assert seen["compiled"] == []
    assert seen["text"] == "data 7\n", one.log
    assert seen["child"][0].startswith("/tmp/cloudimport/"), seen["error"]
    assert seen["child"][1:] == ["0"]
    assert seen["warm"] == 0
    assert seen["codec"] is False  # its name is left to the function
    files = [file for file in seen["loaded"].values() if file]
    assert len(files) > 20
    assert [
        file for file in files if not file.startswith(("/opt/python/cloudimport/", "/var/lang/lib/"))
    ] == []
    assert [file for file in files if "site-packages" in file] == []


def test_canary_of_the_wrapper(bench: Bench, small: Published, tmp_path: Path) -> None:
    """The way of the wrapper compiles no source of the layer."""
    layer = _spoilt(bench.layer(), tmp_path / "opt")
    task = small.task(tmp_path / "task")
    with function(box_for("wrapper", small, task, bench.runtime(), VERSION, layers=[layer])) as one:
        _started(one)
        assert one.result({})["work"] == SMALL_WORK


_WARM = """
import subprocess, sys, os

def warm(event, context):
    code = "import pandas, boto3, cloudimport; print(pandas.__file__, cloudimport.stats()['requests'])"
    away = {**os.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=away)
    return {"work": work(), "child": ran.stdout.split(), "error": ran.stderr}
"""


@pytest.mark.long
@pytest.mark.network
@pytest.mark.parametrize("version", MATRIX)
def test_canary_with_pandas_and_boto3(version: str, bench: Bench, large: Published, tmp_path: Path) -> None:
    """On each Python no source of the layer is compiled, and a warm import asks the store for nothing."""
    layer = _spoilt(bench.layer(version), tmp_path / "opt")
    task = large.task(tmp_path / "task", {"app.py": large.handler + _WARM})
    box = box_for("wrapper", large, task, bench.runtime(version), version, layers=[layer])
    with function(replace(box, handler="app.warm")) as one:
        _started(one)
        seen = one.result({})
    assert seen["work"] == LARGE_WORK
    assert seen["child"][0].startswith("/tmp/cloudimport/"), seen["error"]
    assert seen["child"][1:] == ["0"]
