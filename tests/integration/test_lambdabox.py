"""The Lambda-like sandbox: what a function sees there, what it may do, and how it is told of."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from shelf_tools.lambdabox.box import Box
from shelf_tools.lambdabox.runtime import lay_out
from tests.support.children import REPOSITORY
from tests.support.lambdas import Function, function, make_box, prefix_of, runtime_with_ric
from tests.support.runtimes import running_version
from tests.support.shelves import write_tree

VERSION = running_version()

HANDLER = """
import os, site, sys, logging

def handler(event, context):
    known = {**globals(), "context": context}
    return {name: eval(text, known) for name, text in event.items()}

def failing(event, context):
    raise ValueError("no good")

def leaving(event, context):
    os._exit(event)

def both(event):
    return [event, sys.path]
"""


@pytest.fixture(scope="session")
def runtimes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runtimes, each made once."""
    return tmp_path_factory.mktemp("lambda-runtimes")


@pytest.fixture(params=["aws", "ours"])
def runtime(request: pytest.FixtureRequest, runtimes: Path) -> Path:
    """A /var/runtime with AWS' interface client, and one with ours."""
    if request.param == "aws":
        return runtime_with_ric(VERSION, runtimes)
    return lay_out(runtimes / "ours", VERSION)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A function's folder, which nobody but its owner can enter."""
    tmp_path.chmod(0o700)
    return write_tree(tmp_path / "task", {"app.py": HANDLER})


def test_what_a_function_sees(task: Path, runtime: Path) -> None:
    """The documented folders and variables, a bounded /tmp of its own, a user that may do nothing."""
    os.environ["OF_THE_DEVELOPER"] = "1"
    try:
        box = make_box(task, runtime, VERSION, name="app", environ={"OWN": "2"})
        with function(box) as one:
            assert one.ready() is None, one.log
            seen = one.result(
                {
                    "uid": "os.getuid()",
                    "environ": "dict(os.environ)",
                    "tmp": "os.statvfs('/tmp').f_blocks * os.statvfs('/tmp').f_frsize",
                    "written": "open('/tmp/a', 'w').write('abc')",
                    "top": "sorted(os.listdir('/'))",
                    "etc": "os.listdir('/etc')",
                    "dev": "sorted(os.listdir('/dev'))",
                    "prefix": "sys.prefix",
                    "path": "sys.path",
                    "modes": "[os.access(p, os.W_OK) for p in ('/', '/var/task', '/opt', '/dev', '/etc')]",
                    "processes": "[p for p in os.listdir('/proc') if p.isdigit()]",
                    "context": "[context.function_name, context.memory_limit_in_mb]",
                    "left": "context.get_remaining_time_in_millis()",
                    "packages": "[os.listdir(p) for p in site.getsitepackages() if os.path.isdir(p)]",
                }
            )
    finally:
        del os.environ["OF_THE_DEVELOPER"]
    assert seen["uid"] == 993
    assert seen["tmp"] == 512 << 20
    assert "shm" not in seen["dev"]
    assert {"home", "root", "work", "run", "sys"}.isdisjoint(seen["top"])
    assert "shadow" not in seen["etc"]
    assert seen["prefix"] == "/var/lang"
    site = f"/opt/python/lib/python{VERSION}/site-packages"
    assert seen["path"][:4] == ["/var/task", site, "/opt/python", "/var/runtime"]
    assert not any(seen["modes"])
    assert seen["packages"]
    assert not any(seen["packages"])
    assert len(seen["processes"]) <= 3
    assert seen["context"] == ["app", "512"]
    assert 0 < seen["left"] <= 60_000
    environ = seen["environ"]
    assert environ["OWN"] == "2"
    assert "OF_THE_DEVELOPER" not in environ
    assert environ["AWS_LAMBDA_FUNCTION_NAME"] == "app"
    assert environ["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python{VERSION}"


def test_errors_are_told_as_aws_does(task: Path, runtime: Path) -> None:
    """A handler's exception has its type, text and trace; the next invocation is answered."""
    with function(make_box(task, runtime, VERSION, handler="app.failing")) as one:
        for _ in range(2):
            answer = one.invoke()
            assert answer.kind == "error"
            assert (answer.value["errorType"], answer.value["errorMessage"]) == ("ValueError", "no good")
            assert "/var/task/app.py" in answer.value["stackTrace"][-1]
        assert "[ERROR] ValueError: no good" in one.log


@pytest.mark.parametrize(
    ("handler", "kind", "text"),
    [
        ("missing.handler", "Runtime.ImportModuleError", "No module named 'missing'"),
        ("app.nothing", "Runtime.HandlerNotFound", "Handler 'nothing' missing on module 'app'"),
        ("app", "Runtime.MalformedHandlerName", "Bad handler 'app'"),
    ],
)
def test_what_cannot_start_says_why(task: Path, runtime: Path, handler: str, kind: str, text: str) -> None:
    """An error of the init phase is told as one, to who waits and to who comes later."""
    with function(make_box(task, runtime, VERSION, handler=handler)) as one:
        for answer in (one.ready(), one.invoke()):
            assert answer is not None
            assert answer.kind in ("init-error", "error")
            assert answer.value["errorType"] == kind
            assert text in answer.value["errorMessage"]


def test_a_runtime_that_dies_or_hangs(task: Path, runtime: Path) -> None:
    """An exit in the midst of an invocation is told with its status; time is up when it is."""
    with function(make_box(task, runtime, VERSION, handler="app.leaving")) as one:
        answer = one.invoke(3)
        assert answer.kind == "exit"
        assert "exit status 3" in answer.value["errorMessage"]
        assert one.invoke(0).kind == "exit"
    with function(make_box(task, runtime, VERSION)) as one:
        answer = one.invoke({"sleep": "__import__('time').sleep(60)"}, timeout=0.3)
        assert answer.kind == "timeout"
        assert "Task timed out after 0.30 seconds" in answer.value["errorMessage"]


def test_layers_lie_over_one_another(task: Path, runtimes: Path, tmp_path: Path) -> None:
    """Several layers are one /opt: what is in several comes from the last, folders have what each has."""
    first = write_tree(tmp_path / "1", {"python/a/__init__.py": "", "python/same.py": "v = 1", "bin/x": "#!"})
    second = write_tree(tmp_path / "2", {"python/a/b.py": "w = 3", "python/same.py": "v = 2"})
    (second / "python" / "link.py").symlink_to("same.py")
    runtime = lay_out(runtimes / "layers", VERSION)
    with function(make_box(task, runtime, VERSION, layers=(first, second))) as one:
        values = one.result(
            {"v": "__import__('same').v", "w": "__import__('a.b').b.w", "l": "__import__('link').v"}
        )
        assert values == {"v": 2, "w": 3, "l": 2}
        assert one.result({"top": "sorted(os.listdir('/opt'))"}) == {"top": ["bin", "python"]}


def test_a_wrapper_gets_the_command(task: Path, runtime: Path, tmp_path: Path) -> None:
    """``AWS_LAMBDA_EXEC_WRAPPER`` runs in front; one that is missing, or not executable, is an exit."""
    layer = write_tree(
        tmp_path / "layer", {"wrap": '#!/bin/sh\nexport WRAPPED="$*"\nexec "$@"\n', "plain": ""}
    )
    (layer / "wrap").chmod(0o755)
    box = make_box(task, runtime, VERSION, layers=(layer,), wrapper="/opt/wrap")
    with function(box) as one:
        command = one.result({"wrapped": "os.environ['WRAPPED']"})["wrapped"]
        assert command == f"/var/lang/bin/python{VERSION} /var/runtime/bootstrap.py"
    for wrapper, status, said in (
        ("/opt/none", 127, "does not exist"),
        ("/opt/plain", 126, "not an executable"),
    ):
        with function(make_box(task, runtime, VERSION, layers=(layer,), wrapper=wrapper)) as one:
            answer = one.ready()
            assert answer is not None
            assert f"exit status {status}" in answer.value["errorMessage"]
            assert said in one.log


def test_our_client_calls_with_the_event_alone(task: Path, runtimes: Path) -> None:
    """A handler named with ``(event)`` gets no context, as OpenLambda's do."""
    runtime = lay_out(runtimes / "event", VERSION)
    with function(make_box(task, runtime, VERSION, handler="app.both(event)")) as one:
        assert one.result({"a": 1})[0] == {"a": 1}


def test_secrets_are_not_in_the_command(task: Path, runtimes: Path) -> None:
    """The function's variables are not in the command line, which everybody on the machine can read."""
    runtime = lay_out(runtimes / "secrets", VERSION)
    with function(make_box(task, runtime, VERSION, environ={"TOKEN": "s3cr3t"})) as one:
        assert one.result({"token": "os.environ['TOKEN']"}) == {"token": "s3cr3t"}
        shown = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert not any(b"s3cr3t" in command for command in shown)
        assert any(b"/var/runtime" in command for command in shown)


_KILLED = """
import os, signal, sys
from pathlib import Path
from shelf_tools.lambdabox.box import Box
box = Box(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), entry=("/usr/bin/sleep", sys.argv[4]))
box.start()
import time
while True:
    time.sleep(0.1)
    if any(b"sleep\\0" + sys.argv[4].encode() in Path(f"/proc/{p}/cmdline").read_bytes()
           for p in os.listdir("/proc") if p.isdigit() and os.path.exists(f"/proc/{p}/cmdline")):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_outlives_who_started_it(task: Path, runtimes: Path) -> None:
    """A starter that is killed takes the sandbox with it."""
    runtime = lay_out(runtimes / "killed", VERSION)
    seconds = str(10_000 + os.getpid())
    command = [sys.executable, "-c", _KILLED, prefix_of(VERSION), task, runtime, seconds]
    done = subprocess.run(command, cwd=REPOSITORY, timeout=60, check=False)
    assert done.returncode == -9
    for _ in range(100):
        if not _runs(seconds):
            return
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError("it runs on")


def _runs(seconds: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"sleep\0{seconds}".encode() in path.read_bytes():
                return True
        except OSError:
            continue
    return False


def test_a_prefix_without_python_is_named(tmp_path: Path) -> None:
    """A folder that is no CPython's is an error that says so."""
    with pytest.raises(Exception, match="is no prefix of a CPython"):
        Box(tmp_path, tmp_path, tmp_path).command()


def test_it_outlives_the_thread_that_started_it(task: Path, runtimes: Path) -> None:
    """A server starts a sandbox for a request; the sandbox is there for the next one."""
    box = make_box(task, lay_out(runtimes / "threads", VERSION), VERSION)
    made: list[Function] = []
    thread = threading.Thread(target=lambda: made.append(Function(box)))
    thread.start()
    thread.join()
    try:
        for _ in range(2):
            assert made[0].result({"one": "1"}) == {"one": 1}
    finally:
        made[0].stop()
