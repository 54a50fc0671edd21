"""Runs one program once, and says what that cost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.accesslog import AccessLog, sequential
from tests.bench.link import ROUND_TRIP, Link
from tests.bench.workloads import Workload

#: What every run has. Threads of OpenBLAS spin while they wait for work, which blurs CPU times.
_ENVIRON = {"LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1"}
#: Seconds after which a run is given up.
_TIMEOUT = 300.0

#: What every way runs in the end. A line "mark NAME" says that something is reached, by the parent's clock.
_PROGRAM = """\
import sys, time
_cpu = time.process_time
_begun = _cpu()
{before}
_ready = _cpu()
{imports}
_imported = _cpu()
print("mark imported", flush=True)
{first}
print("mark first", flush=True)
_done = _cpu()
import json
_peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("figures", json.dumps({{"install_cpu": _ready - _begun, "import_cpu": _imported - _ready,
    "first_cpu": _done - _imported, "process_cpu": _done, "peak_rss": _peak * 1024, "stats": {stats}}}),
    flush=True)
"""


@dataclass(frozen=True)
class Command:
    """A command line with its environment, beside what every run has."""

    argv: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Figures:
    """What a run cost. Seconds, bytes, counts; ``marks`` are seconds since the start.

    ``peak_rss`` is that of the program in the end, not of what installs.
    """

    seconds: float
    cpu: float
    import_cpu: float
    first_cpu: float
    install_cpu: float
    process_cpu: float
    requests: int
    trips: int
    received: int
    peak_rss: int
    written: int
    marks: dict[str, float]
    stats: dict[str, float]
    #: (seconds since the first of them, seconds at the server, path) of each request.
    log: list[tuple[float, float, str]]

    def record(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return asdict(self)


class RunError(Exception):
    """A run did not get to its first result; the text has the end of what it said."""


def write_program(path: Path, workload: Workload, before: str = "", stats: str = "{}") -> Path:
    """Write a workload's program; ``before`` is what it needs to find its packages."""
    first = workload.first
    path.write_text(_PROGRAM.format(before=before, imports=workload.imports, first=first, stats=stats))
    return path


def measure(command: Command, folder: Path, home: Path, link: Link, log: AccessLog) -> Figures:
    """Run a command in a folder of its own until it ends. Raises RunError.

    What lies in ``folder`` when it has ended is what it has written.
    """
    log.take()
    before = link.traffic()
    errors = home / "errors"
    with errors.open("wb") as stderr:
        begun = time.perf_counter()
        process = subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=folder,
            env={**_ENVIRON, "PATH": os.environ["PATH"], "HOME": str(home), **command.environ},
            start_new_session=True,
            text=True,
        )
        timer = threading.Timer(_TIMEOUT, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        marks, figures = _listen(process, begun)
        _, status, usage = os.wait4(process.pid, 0)
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or "first" not in marks:
        lines = errors.read_text(errors="replace").strip().splitlines()
        raise RunError(f"exit status {process.returncode}: {' | '.join(lines[-3:])[-400:]}")
    traffic = link.traffic().since(before)
    requests = log.take()
    return Figures(
        seconds=marks["first"],
        cpu=usage.ru_utime + usage.ru_stime,
        import_cpu=figures["import_cpu"],
        first_cpu=figures["first_cpu"],
        install_cpu=figures["install_cpu"],
        process_cpu=figures["process_cpu"],
        requests=len(requests),
        trips=sequential(requests, ROUND_TRIP),
        received=traffic.received,
        peak_rss=figures["peak_rss"],
        written=_size_of(folder),
        marks=marks,
        stats=figures["stats"],
        log=[(r.start - requests[0].start, r.end - r.start, r.target) for r in requests],
    )


def _listen(process: subprocess.Popen[str], begun: float) -> tuple[dict[str, float], dict[str, Any]]:
    marks: dict[str, float] = {}
    figures: dict[str, Any] = {}
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind == "mark":
                marks[rest] = time.perf_counter() - begun
            elif kind == "figures":
                figures = json.loads(rest)
    return marks, figures


def _size_of(folder: Path) -> int:
    """Return the bytes of disk below a folder, each file once; what is mounted there is not its own."""
    seen: dict[tuple[int, int], int] = {}
    device = folder.stat().st_dev
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if os.lstat(f"{place}/{name}").st_dev == device]
        for name in names:
            found = os.lstat(f"{place}/{name}")
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
