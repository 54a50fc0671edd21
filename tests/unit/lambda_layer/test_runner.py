"""The runner's handler, in a process of its own as Lambda has it."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.children import REPOSITORY

#: Starts daemons that ignore signals: in a session of their own, and with a parent that has ended.
_LEAVES = """
import os, signal, subprocess, sys, time

def leaves(end, folder):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reads, writes = os.pipe()
    for _ in range(2):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                os.closerange(0, 3)
                os.write(writes, f"{os.getpid()}\\n".encode())
                time.sleep(3600)
            os._exit(0)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    sleeper = subprocess.Popen(["sleep", "3600"], start_new_session=True, **quiet)
    pids = [sleeper.pid]
    while len(pids) < 3:
        pids += map(int, os.read(reads, 100).split())
    with open(os.path.join(folder, "pids"), "w") as file:
        file.write(" ".join(map(str, pids)))
    if end == "exit":
        os._exit(0)
    if end == "hang":
        time.sleep(3600)
    return end
"""
#: Handles the event on standard input; has a child of its own, which is nobody else's to end.
_HANDLE = """
import json, subprocess, sys
from lambda_layer import runner

class Context:
    @staticmethod
    def get_remaining_time_in_millis():
        return 4000

with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as own:
    answer = runner.handler(json.load(sys.stdin), Context)
    json.dump([answer, own.poll(), runner._below() == {own.pid}], sys.stdout)
"""


def handle(name: str, code: str, *args: Any) -> Any:
    """Have an event handled."""
    event = {"cloudimport_run": 1, "file": "file.py", "function": name, "args": args, "kwargs": {}}
    event["code"] = base64.b64encode(code.encode()).decode()
    done = subprocess.run(
        [sys.executable, "-c", _HANDLE],
        input=json.dumps(event).encode(),
        capture_output=True,
        timeout=60,
        cwd=REPOSITORY,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("end", ["return", "exit", "hang"])
def test_daemons_of_a_function_end_with_it(end: str, tmp_path: Path) -> None:
    """However it ends; they would see the next event."""
    answer, own, is_clean = handle("leaves", _LEAVES, end, str(tmp_path))
    pids = list(map(int, (tmp_path / "pids").read_text().split()))
    alive = [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    for pid in alive:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    assert (len(pids), alive) == (3, [])
    assert (own, is_clean) == (None, True)
    kinds = {"exit": "Exited", "hang": "Timeout"}
    assert answer.get("value") == end if end == "return" else answer["error"]["type"] == kinds[end]
