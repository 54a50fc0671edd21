"""``python -m tests.bench.publishing``: pins published on one worker, on all cores and on a Dask cluster.

Beside that, ``pip install --target`` and ``uv pip install --target`` of the same list, a hundred by default.
Wheels are downloaded once before, to a folder that is everybody's index: what is measured is the machine. CPU
time is that of a control group, since what a sandbox leaves behind is waited for by nobody. Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cloudimport.ids import running_targets
from shelf_tools.publish import Job, Outcome, publish
from tests.support.children import REPOSITORY
from tests.support.clusters import dask_cluster
from tests.support.runtimes import running_version
from tests.support.shelfcommand import publisher_environment

PINS = Path(__file__).with_name("pins") / running_version() / "hundred.txt"
RESULTS, DOCUMENT = Path(".bench") / "publishing.json", Path("docs") / "publishing.md"
_GROUPS = (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
#: Seconds; a hundred pins on one worker of a slow machine.
_TIMEOUT = 3600


@dataclass
class Figures:
    """What a run took, in seconds; ``stages`` are wall times of all workers together."""

    wall: float
    cpu: float
    stages: dict[str, float] = field(default_factory=dict)


class Group:
    """A control group that this process enters, with all that it starts; says what CPU time they took."""

    def __init__(self) -> None:
        self._home, self._folder = _make_group()

    def cpu(self) -> float:
        """Return the seconds so far."""
        usage = self._folder / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        lines = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(lines["usage_usec"]) / 1e6

    def enter(self) -> None:
        """Count this process, and what it starts from now on."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def close(self) -> None:
        """Leave, and remove the group if it is empty."""
        (self._home / "cgroup.procs").write_text(str(os.getpid()))
        for _ in range(50):
            try:
                self._folder.rmdir()
                return
            except OSError:
                time.sleep(0.1)  # the last of a killed sandbox


def _make_group() -> tuple[Path, Path]:
    """Return this process's group and a new one below the same root."""
    for root in _GROUPS:
        folder = root / f"cloudimport-bench-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / "cpuacct.usage").exists() or (folder / "cpu.stat").exists():
            return root, folder
        folder.rmdir()
    sys.exit("CPU time cannot be counted: no control group can be made below /sys/fs/cgroup (run as root)")


@contextmanager
def counted(figures: Figures) -> Iterator[None]:
    """Add wall and CPU time of a ``with`` block to ``figures``."""
    group = Group()
    try:
        group.enter()
        began, before = time.perf_counter(), group.cpu()
        yield
        figures.wall += time.perf_counter() - began
        figures.cpu += group.cpu() - before
    finally:
        group.close()


class _Silent:
    def stage(self, name: str, total: int) -> None:
        return

    def step(self, name: str) -> None:
        return

    def note(self, text: str) -> None:
        return


@dataclass(frozen=True)
class Bench:
    """The list, an environment whose index is a folder of its wheels, and how many cores there are."""

    pins: Path
    environ: dict[str, str]
    sandbox: str
    cores: int


def shelf(executor: str, jobs: Callable[[int], int]) -> Callable[[Bench, Path], Figures]:
    """Return a way that publishes on this machine."""
    return lambda bench, folder: _publish(bench, folder, executor, jobs(bench.cores))


def _publish(bench: Bench, folder: Path, executor: str, jobs: int) -> Figures:
    job = Job(
        requirements=bench.pins,
        shelf=str(folder / "shelf"),
        targets=tuple(running_targets()[:1]),
        lock=folder / "cloudimport.lock",
        lock_shelf="",
        environ=bench.environ,
        jobs=jobs,
        sandbox=bench.sandbox,
        executor=executor,
    )
    figures = Figures(0.0, 0.0)
    with counted(figures):
        outcomes = publish(job, _Silent())
    figures.stages = _stages(outcomes)
    return figures


def _stages(outcomes: Sequence[Outcome]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for outcome in outcomes:
        total.update(outcome.seconds)
    return dict(total)


def dask(bench: Bench, folder: Path) -> Figures:
    """Publish on a scheduler and as many workers as there are cores; that these start is not counted."""
    environ = {**bench.environ, "PYTHONPATH": str(REPOSITORY)}
    group = Group()
    try:
        group.enter()
        with dask_cluster(folder / "cluster", environ, workers=bench.cores) as cluster:
            before = group.cpu()
            figures = _publish_within(bench, folder, cluster.executor)
            figures.cpu = group.cpu() - before
    finally:
        group.close()
    return figures


def _publish_within(bench: Bench, folder: Path, executor: str) -> Figures:
    job = Job(
        bench.pins,
        str(folder / "shelf"),
        tuple(running_targets()[:1]),
        folder / "cloudimport.lock",
        "",
        bench.environ,
        sandbox=bench.sandbox,
        executor=executor,
    )
    began = time.perf_counter()
    outcomes = publish(job, _Silent())
    return Figures(time.perf_counter() - began, 0.0, _stages(outcomes))


def command(*argv: str) -> Callable[[Bench, Path], Figures]:
    """Return a way that is a command, given the list and an empty folder."""

    def run(bench: Bench, folder: Path) -> Figures:
        figures = Figures(0.0, 0.0)
        known = {"PINS": str(bench.pins), "INTO": str(folder / "site"), "PYTHON": sys.executable}
        known["UV"] = str(Path(sys.executable).with_name("uv"))
        with counted(figures):
            done = subprocess.run(
                [known.get(part, part) for part in argv],
                env={**bench.environ, "HOME": str(folder), "UV_CACHE_DIR": str(folder / "cache")},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        if done.returncode:
            sys.exit(f"{' '.join(argv)}: {done.stderr[-600:]}")
        return figures

    return run


_PIP = ("PYTHON", "-m", "pip", "install", "--quiet", "--no-deps", "--no-cache-dir")
_UV = ("UV", "pip", "install", "--quiet", "--no-deps", "--python", "PYTHON")
_INTO = ("--only-binary", ":all:", "--target", "INTO", "-r", "PINS")
WAYS: dict[str, Callable[[Bench, Path], Figures]] = {
    "one worker": shelf("processes", lambda cores: 1),
    "threads": shelf("threads", lambda cores: cores),
    "processes": shelf("processes", lambda cores: cores),
    "dask": dask,
    "pip": command(*_PIP, *_INTO),
    "uv": command(*_UV, *_INTO),
    "uv, compiled": command(*_UV, "--compile-bytecode", *_INTO),
}


def _download(pins: Path, into: Path) -> dict[str, str]:
    """Download the list's wheels; return an environment that has them and nothing else."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    environ = publisher_environment()
    done = subprocess.run(
        [*pip, "--dest", str(into), "-r", str(pins)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT,
    )
    if done.returncode:
        sys.exit(f"the wheels cannot be downloaded: {done.stderr[-600:]}")
    kept = {name: value for name, value in environ.items() if not name.startswith(("PIP_", "UV_"))}
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(into), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**kept, **offline, "UV_NO_INDEX": "1", "UV_FIND_LINKS": str(into), "UV_OFFLINE": "1"}


def render(found: dict[str, Any]) -> str:
    """Return the figures as a page: medians of the rounds."""
    runs: dict[str, list[dict[str, Any]]] = found["runs"]
    middle = {way: _median(rows) for way, rows in runs.items() if rows}
    one = middle.get("one worker")
    what = f"{found['pins']} pins, {found['bytes'] / 1e6:.0f} MB of wheels in a local folder"
    where = f"{found['cores']} cores, Python {found['python']}, sandbox {found['sandbox']}"
    rounds = f"medians of {found['rounds']}" if found["rounds"] > 1 else "one round"
    lines = [
        "# Publishing a list, and installing it",
        "",
        f"{what}; {where}; {rounds}.",
        "By `python -m tests.bench.publishing`. Publishing is for once, installing for each instance.",
        "",
        "| | wall s | CPU s | cores busy | speed-up |",
        "|---|---|---|---|---|",
    ]
    for way, row in middle.items():
        ratio = f"{one['wall'] / row['wall']:.2f}" if one else ""
        wall, cpu = row["wall"], row["cpu"]
        lines.append(f"| {way} | {wall:.1f} | {cpu:.1f} | {cpu / wall:.2f} | {ratio} |")
    stages = [way for way, row in middle.items() if row["stages"]]
    names = list(dict.fromkeys(name for way in stages for name in middle[way]["stages"]))
    lines += ["", "Where the time goes: seconds of all workers together.", ""]
    lines += [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for way in stages:
        cells = (f"{middle[way]['stages'].get(name, 0.0):.1f}" for name in names)
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _median(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    stages = {name for row in rows for name in row["stages"]}
    return {
        "wall": statistics.median(row["wall"] for row in rows),
        "cpu": statistics.median(row["cpu"] for row in rows),
        "stages": {
            name: statistics.median(row["stages"].get(name, 0.0) for row in rows)
            for name in sorted(stages, key=list(rows[0]["stages"]).index)
        },
    }


def main() -> int:
    """Measure, and write what was measured."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.publishing", description=__doc__)
    parser.add_argument("--pins", type=Path, default=PINS, help="a complete list of exact pins")
    parser.add_argument("--ways", help="names, with semicolons: " + "; ".join(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sandbox", choices=("bubblewrap", "none"), default="bubblewrap")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    chosen = parser.parse_args()
    ways = [way.strip() for way in chosen.ways.split(";")] if chosen.ways else list(WAYS)
    if unknown := sorted(set(ways) - set(WAYS)):
        sys.exit(f"unknown: {', '.join(unknown)}; there are {'; '.join(WAYS)}")
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        work.chmod(0o755)
        pins = Path(shutil.copy(chosen.pins, work / "requirements.txt"))
        environ = _download(pins, work / "wheels")
        bench = Bench(pins, environ, chosen.sandbox, chosen.cores)
        found: dict[str, Any] = {
            "pins": sum("==" in line for line in pins.read_text().splitlines()),
            "bytes": sum(path.stat().st_size for path in (work / "wheels").iterdir()),
            "cores": chosen.cores,
            "python": platform.python_version(),
            "sandbox": chosen.sandbox,
            "rounds": chosen.rounds,
            "runs": {way: [] for way in ways},
        }
        for number in range(chosen.rounds):
            at = number % len(ways)
            for way in (*ways[at:], *ways[:at]):  # each round begins with another
                with tempfile.TemporaryDirectory(dir=work, prefix="run-") as folder:
                    figures = WAYS[way](bench, Path(folder))
                found["runs"][way].append(asdict(figures))
                print(f"{way:14} {figures.wall:7.1f} s  CPU {figures.cpu:7.1f} s", flush=True)
            chosen.results.parent.mkdir(parents=True, exist_ok=True)
            chosen.results.write_text(json.dumps(found, indent=1) + "\n")
    chosen.document.write_text(render(found))
    print(render(found))
    return 0


if __name__ == "__main__":  # worker processes import this module too
    sys.exit(main())
