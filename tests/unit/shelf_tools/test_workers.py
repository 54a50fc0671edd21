"""Threads and processes that tasks run on, and what happens when they die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.workers import WorkerError, Workers, check_kind, open_workers
from tests.support.children import REPOSITORY


def where(number: int) -> tuple[int, int]:
    """Return the number and the process that it came to."""
    return number, os.getpid()


def dies_once(number: int, mark: str) -> int:
    """End the process, as the kernel does when memory runs out, the first time that number 3 comes."""
    if number == 3 and not os.path.exists(mark):
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 10


def dies(number: int) -> int:
    """End the process always."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def fails(number: int) -> int:
    """Fail with an error of the program."""
    raise ValueError(f"number {number}")


def sleeps(folder: str) -> None:
    """Say that it has begun, and go on for longer than a test."""
    Path(folder, str(os.getpid())).touch()
    time.sleep(300)


def all_of(workers: Workers, function: object, count: int = 6, *more: str) -> dict[str, object]:
    """Run a function on numbers; return results by name."""
    tasks = {f"task {number}": (number, *more) for number in range(count)}
    return {key: ran.value for key, ran in workers.each("test", function, tasks)}  # type: ignore[arg-type]


@pytest.mark.parametrize(("kind", "here"), [("threads", True), ("processes", False)])
def test_every_task_is_run(kind: str, here: bool) -> None:
    """Each task's result comes with its key; only processes are others."""
    workers = open_workers(kind, 2)
    try:
        found = all_of(workers, where)
        assert [found[f"task {number}"][0] for number in range(6)] == list(range(6))  # type: ignore[index]
        assert all((pid == os.getpid()) is here for _, pid in found.values())  # type: ignore[misc]
        assert workers.everywhere(where, 7) == {"": (7, os.getpid())}
        with pytest.raises(ValueError, match="number"):
            all_of(workers, fails)
    finally:
        workers.close()


def test_a_process_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    """All results come although a process died in the middle: what it had is run again."""
    workers = open_workers("processes", 2)
    try:
        found = all_of(workers, dies_once, 8, str(tmp_path / "died"))
    finally:
        workers.close()
    assert found == {f"task {number}": number * 10 for number in range(8)}
    assert (tmp_path / "died").exists()


def test_a_task_that_kills_is_given_up() -> None:
    """A task of which every process dies ends in an error that names it."""
    workers = open_workers("processes", 1)
    try:
        with pytest.raises(WorkerError, match="test: processes that work on task 0 were killed 4 times"):
            all_of(workers, dies, 1)
    finally:
        workers.close()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_processes_do_not_outlive_who_made_them(tmp_path: Path, end: str) -> None:
    """They end when they are stopped in the middle of a task, and when their maker is killed."""
    code = f"""
import os, signal, sys, threading, time
from shelf_tools.workers import open_workers
from tests.unit.shelf_tools.test_workers import sleeps
workers = open_workers("processes", 2)
def end():
    while len(os.listdir({str(tmp_path)!r})) < 2:
        time.sleep(0.02)
    if {end!r} == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=end).start()
try:
    list(workers.each("test", sleeps, {{1: ({str(tmp_path)!r},), 2: ({str(tmp_path)!r},)}}))
except KeyboardInterrupt:
    workers.stop()
    print("stopped")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=REPOSITORY, check=False
    )
    assert done.stdout == ("stopped\n" if end == "stop" else "")
    pids = [int(name) for name in os.listdir(tmp_path)]
    assert len(pids) == 2
    until = time.monotonic() + 10
    while (left := [pid for pid in pids if Path(f"/proc/{pid}").exists()]) and time.monotonic() < until:
        time.sleep(0.05)
    assert left == []


def test_names_of_executors() -> None:
    """What names no executor is refused with what there is."""
    for known in ("threads", "processes", "dask=tcp://host:8786"):
        assert check_kind(known) == known
    for unknown in ("", "ray", "dask", "dask=host"):
        with pytest.raises(ConfigurationError, match="write processes, threads or dask=tcp://host:8786"):
            check_kind(unknown)


def test_a_cluster_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scheduler, or without the library, the error says what to do."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ConfigurationError, match=r"needs distributed: pip install 'cloudimport\[dask\]'"):
        open_workers("dask=tcp://127.0.0.1:1", 1)
