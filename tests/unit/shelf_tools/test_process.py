"""The runner of subprocesses."""

from __future__ import annotations

import sys
import tempfile
import time

import pytest

from shelf_tools import process


def python(text: str) -> list[str]:
    """Return a command that runs ``text``."""
    return [sys.executable, "-I", "-S", "-c", text]


def test_input_output_and_status_come_back() -> None:
    """What a process reads, writes and returns is what the caller gave and gets."""
    done = process.run(
        python("import sys; print(sys.stdin.read()[::-1]); print('bad', file=sys.stderr); sys.exit(7)"),
        timeout=20,
        input=b"abc",
        env={},
    )
    assert (done.returncode, done.stdout, done.stderr, done.timed_out) == (7, b"cba\n", b"bad\n", False)
    assert done.reason() == "bad"


def test_environment_is_what_is_given() -> None:
    """A process sees the given environment and nothing of the caller's."""
    done = process.run(["/usr/bin/env"], timeout=20, env={"ONLY": "this"})
    assert done.stdout == b"ONLY=this\n"


def test_noisy_process_neither_blocks_nor_grows() -> None:
    """Megabytes on both outputs end well, and the kept parts are the start and the end, bounded."""
    text = (
        "import sys\n"
        "for n in range(40):\n"
        "    sys.stderr.write(f'{n:7}\\n' * 8192)\n"
        "    sys.stdout.write('x' * (1 << 20))\n"
    )
    done = process.run(python(text), timeout=60, env={})
    assert len(done.stdout) == process.KEEP
    assert len(done.stderr) == process.KEEP_ERRORS
    assert done.stderr.endswith(b"     39\n")


def test_time_limit_kills_the_group_and_keeps_the_output() -> None:
    """At the time limit the process and its children die, and the error holds what was written."""
    text = "import os, sys, time\npid = os.fork()\nif pid: print(pid, flush=True)\ntime.sleep(600)\n"
    began = time.monotonic()
    with pytest.raises(process.ProcessTimeout, match="killed after 3 s") as caught:
        process.run(python(text), timeout=3, env={})
    assert time.monotonic() - began < 30
    assert caught.value.finished is not None
    child = int(caught.value.finished.stdout)
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not _alive(child)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_output_goes_to_a_file() -> None:
    """With ``stdout_to``, output goes straight to that file."""
    with tempfile.TemporaryFile() as file:
        done = process.run(python("print('there')"), timeout=20, env={}, stdout_to=file)
        file.seek(0)
        assert (file.read(), done.stdout) == (b"there\n", b"")


def test_missing_program_is_a_typed_error() -> None:
    """A program that does not exist is a ProcessError that names it."""
    with pytest.raises(process.ProcessError, match="/no/such/program cannot be started"):
        process.run(["/no/such/program"], timeout=5, env={})


def test_reason_is_one_printable_line() -> None:
    """Control sequences on standard error do not reach a terminal through the reason."""
    done = process.Finished(1, b"", b"first\n\x1b[31mred\x07" + b"x" * 1000)
    assert done.reason().startswith("?[31mred?xxx")
    assert len(done.reason()) == 300
    assert process.Finished(3, b"", b"").reason() == "exit status 3"
