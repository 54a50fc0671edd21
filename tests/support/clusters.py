"""A Dask cluster of real processes: a scheduler, and workers that share no folder for temporary files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.support.s3servers import free_port
from tests.support.shelfcommand import publisher_environment

#: Seconds for a process to be up, or for a moment to come, on two busy cores.
_PATIENCE = 90.0


@dataclass
class Worker:
    """A worker's process, and its folder for temporary files."""

    process: subprocess.Popen[bytes]
    folder: Path
    log: Path

    def runs(self, script: str) -> bool:
        """Whether it has started a program with ``script`` among its arguments that runs now."""
        with suppress(OSError):
            for task in Path(f"/proc/{self.process.pid}/task").iterdir():
                for pid in (task / "children").read_text().split():
                    with suppress(OSError):
                        if script.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                            return True
        return False

    def kill(self) -> None:
        """Have it end as when its machine does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    """A scheduler's address, and the workers; ``folder`` has a folder for each."""

    address: str
    workers: list[Worker]
    folder: Path

    def add(self, environ: Mapping[str, str]) -> Worker:
        """Start another worker, with ``environ`` as its environment, and wait until it is up."""
        own = self.folder / f"worker-{len(self.workers)}"
        options = ("--no-nanny", "--nthreads", "1", "--no-dashboard", "--local-directory", str(own))
        process = _start("dask_worker", (self.address, *options), own, {"TMPDIR": str(own), **environ})
        worker = Worker(process, own, own / "log")
        self.workers.append(worker)
        wait_for(lambda: b"Registered to" in worker.log.read_bytes(), "a worker is up")
        return worker

    @property
    def executor(self) -> str:
        """What ``--executor`` takes."""
        return f"dask={self.address}"


@contextmanager
def dask_cluster(folder: Path, environ: Mapping[str, str], workers: int = 2) -> Iterator[Cluster]:
    """Run a cluster with ``environ`` as the workers' environment; all of it has ended afterwards."""
    address = f"tcp://127.0.0.1:{free_port()}"
    cluster = Cluster(address, [], folder)
    scheduler: list[subprocess.Popen[bytes]] = []
    try:
        port = address.rpartition(":")[2]
        options = ("--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")
        scheduler.append(_start("dask_scheduler", options, folder / "scheduler", {}))
        wait_for(lambda: b"Scheduler at" in (folder / "scheduler/log").read_bytes(), "the scheduler is up")
        for _ in range(workers):
            cluster.add(environ)
        yield cluster
    finally:
        for process in (*(worker.process for worker in cluster.workers), *scheduler):
            process.kill()
            process.wait()


def _start(
    module: str, options: tuple[str, ...], folder: Path, environ: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True)
    with open(folder / "log", "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env={**publisher_environment(environ), "PYTHONWARNINGS": "ignore"},
            start_new_session=True,
        )


def wait_for(comes: Callable[[], object], what: str) -> None:
    """Wait until ``comes()`` is true."""
    until = time.monotonic() + _PATIENCE
    while not comes():
        assert time.monotonic() < until, f"did not come: {what}"
        time.sleep(0.01)


def processes_with(text: str) -> list[str]:
    """Return the command lines of processes that have ``text`` in them, but for this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode("utf-8", "replace")
            if text in command and folder.name != str(os.getpid()):
                found.append(command.replace("\0", " "))
    return found
