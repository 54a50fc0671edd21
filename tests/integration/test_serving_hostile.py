"""Functions that mean harm, or mean well and fail: each is contained, and the next request is answered."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.serving import Served, serving, wait_until_gone
from tests.support.shelves import write_tree


class Case(NamedTuple):
    """A function's body (``event`` is 1 the first time), and what Invoke answers then: types, and a text."""

    code: str
    kind: str
    text: str


CASES = {
    "bomb": Case(
        "while True:\n        if os.fork() == 0:\n            signal.pause()",
        # The limit on processes, or on memory: whichever comes first.
        "BlockingIOError Runtime.ExitError",
        "",
    ),
    "forks_on": Case("while True:\n        try: os.fork()\n        except OSError: pass", "", ""),
    "loop": Case("while True: pass", "Sandbox.Timedout", "Task timed out after 3.00 seconds"),
    "deaf": Case(
        "[signal.signal(n, signal.SIG_IGN) for n in (2, 15)]\n    while True: time.sleep(1)",
        "Sandbox.Timedout",
        "Task timed out",
    ),
    "memory": Case(
        "held = []\n    while True: held.append(bytearray(1 << 20)); time.sleep(0.001)",
        "Runtime.ExitError",
        "signal: killed",
    ),
    "memory_at_once": Case("return len(bytearray(3 << 30))", "MemoryError", ""),
    "memory_of_many": Case(
        "for _ in range(4):\n        if os.fork() == 0:\n"
        "            held = bytearray(os.urandom(1 << 20) * 100)\n"
        "            signal.pause()\n    time.sleep(60)",
        "Runtime.ExitError",
        "signal: killed",
    ),
    "fills_tmp": Case(
        "with open('/tmp/x', 'wb') as file:\n        while True: file.write(bytes(1 << 20))",
        "OSError",
        "No space left on device",
    ),
    "kills_parent": Case("os.kill(os.getppid(), 9); os.kill(-1, 9)\n    return os.kill(1, 9)", "", ""),
    "kills_group": Case("os.killpg(0, 9)", "Runtime.ExitError", "signal: killed"),
    "child_kills": Case(
        "if os.fork() == 0: os.kill(os.getppid(), 9)\n    time.sleep(60)",
        "Runtime.ExitError",
        "signal: killed",
    ),
    "leaves": Case("os._exit(0)", "Runtime.ExitError", "without providing a reason"),
    "exits": Case("sys.exit(0)", "Runtime.ExitError", "without providing a reason"),
    "crashes": Case("ctypes.string_at(0)", "Runtime.ExitError", "signal: segv"),
    "overflows": Case("return json.loads('[' * 100000)", "RecursionError", ""),
    "shouts": Case("print('x' * (10 << 20)); sys.stderr.write('y' * (10 << 20))", "", "null"),
    "long_answer": Case(
        "return 'x' * (7 << 20)", "Function.ResponseSizeTooLarge", "exceeded maximum allowed payload"
    ),
    "closes_all": Case("os.closerange(0, 1000)\n    return 1", "", ""),
    "stops": Case("os.kill(os.getpid(), signal.SIGSTOP)", "Sandbox.Timedout", "Task timed out"),
    "answers_twice": Case(
        "import urllib.request as u\n    api = 'http://' + os.environ['AWS_LAMBDA_RUNTIME_API']\n"
        "    for path in ('init/error', 'invocation/x/response', 'invocation/../../x/error'):\n"
        "        try: u.urlopen(api + '/2018-06-01/runtime/' + path, b'{}').read()\n"
        "        except OSError: pass\n    return 2",
        "",
        "2",
    ),
    "no_json": Case("return object()", "Runtime.MarshalError", "Unable to marshal response"),
}
HEAD = """\
import ctypes, json, os, signal, sys, time

def f(event):
    if event != 1:
        return event
    """
DAEMON = """
import os, time

def f(event):
    if event == 1 and os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(0.01)
        os._exit(0)
    return event
"""
STEALS = """
import os, urllib.request

def f(event):
    if event == 1:
        return event
    had = []
    for address in event:
        if address != os.environ["AWS_LAMBDA_RUNTIME_API"]:
            try:
                url = f"http://{address}/2018-06-01/runtime/invocation/next"
                had.append(urllib.request.urlopen(url, timeout=1).read().decode())
            except TimeoutError:
                had.append("would have had an event")
            except OSError:
                pass
    return had
"""
#: The fast sample.
SAMPLE = ("bomb", "loop", "memory", "fills_tmp", "child_kills", "shouts")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with small limits."""
    folder = tmp_path_factory.mktemp("hostile")
    files = {f"{name}/f.py": f"{HEAD}{case.code}\n" for name, case in CASES.items()}
    functions = write_tree(
        folder / "f",
        {
            **files,
            "daemon/f.py": DAEMON,
            "steals/f.py": STEALS,
            "good/f.py": "def f(event):\n    return event\n",
        },
    )
    limits = ("--memory", "256M", "--tmp", "16M", "--timeout", "3", "--concurrency", "8")
    with serving(functions, folder / "cache", *limits) as one:
        yield one


def check(served: Served, name: str) -> None:
    """Run a case; then ask its function again, and another one."""
    case = CASES[name]
    said = served.invoke(name, 1)
    assert said.status == 200, said.text
    if case.kind:
        assert said.headers["x-amz-function-error"] == "Unhandled"
        assert said.value["errorType"] in case.kind.split(), said.text
        assert case.text in said.value["errorMessage"]
    elif case.text:
        assert said.text == case.text
    assert served.run(name, 2).value == 2
    assert served.run("good", 3).value == 3


@pytest.mark.parametrize("name", SAMPLE)
def test_it_is_contained(served: Served, name: str) -> None:
    """What harms its sandbox harms nothing else; the same function works again at once."""
    check(served, name)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(CASES) - set(SAMPLE)))
def test_it_is_contained_too(served: Served, name: str) -> None:
    """Likewise, of the rest."""
    check(served, name)


def test_a_daemon_ends_with_its_sandbox(served: Served) -> None:
    """What a function leaves behind stands still, and is gone when the server is done with the sandbox."""
    before = served.processes()
    assert served.run("daemon", 1).value == 1
    left = served.processes() - before
    assert len(left) >= 4
    assert served.run("daemon", 2).value == 2
    assert len(served.instances("daemon")) == 1
    handler = Path(served.cache).parent / "f" / "daemon" / "f.py"
    handler.write_text(handler.read_text() + "\n# changed\n")
    assert served.run("daemon", 3).value == 3
    assert wait_until_gone(left) == set()


def test_events_of_others_cannot_be_had(served: Served) -> None:
    """A sandbox that knows the port of another one's Runtime API gets nothing there."""
    if os.geteuid():
        pytest.skip("only root gives each sandbox a uid of its own")
    assert served.run("good", 1).value == 1
    addresses = {
        entry.split(b"=", 1)[1].decode()
        for pid in served.processes()
        for entry in _environ(pid)
        if entry.startswith(b"AWS_LAMBDA_RUNTIME_API=")
    }
    assert addresses
    assert served.run("steals", sorted(addresses)).value == []
    assert served.run("good", 2).value == 2


def _environ(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def test_logs_are_bounded(served: Served) -> None:
    """Twenty megabytes were written, and no more than a few are kept."""
    served.invoke("shouts", 1)
    logs = list((served.cache / "serve" / "logs").glob("shouts-*"))
    assert logs
    assert sum(path.stat().st_size for path in logs) < 10 << 20
