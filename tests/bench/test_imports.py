"""Imports side by side in one run: pip-installed packages with bytecode, and the shelf, cold and warm.

Prints medians of CPU and wall time (ms), their ratio to pip's, requests, round trips and bytes. It
judges nothing: times on a shared machine say little alone, ratios of one run say more.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.test_real_packages import write_sample
from tests.support.children import Runner
from tests.support.runtimes import find_python, install_packages, running_version
from tests.support.shelfcommand import run_shelf

ROUNDS = int(os.environ.get("ROUNDS", "7"))
WORKLOADS = ("requests", "numpy", "pandas", "lxml")
PLAIN = """
    import sys, time, json
    wall, cpu = time.perf_counter(), time.process_time()
    {install}
    ready = time.process_time()
    __import__(sys.argv[1])
    times = {{"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "install": ready - cpu}}
    print(json.dumps({{**times, **({stats})}}))
"""
PIP = PLAIN.format(install="pass", stats="{}")
SHELF = PLAIN.format(install="import cloudimport; cloudimport.install()", stats="cloudimport.stats()")


@pytest.mark.long
@pytest.mark.network
def test_imports(tmp_path: Path, runtime: Callable[[str], str]) -> None:
    """Print how imports compare; the only thing asserted is that all of them ran."""
    requirements = write_sample(running_version(), tmp_path)
    run_shelf("publish", "-r", requirements, "--shelf", tmp_path / "shelf").ok()
    installed = install_packages(running_version(), requirements, tmp_path / "installed")
    python = runtime(running_version())
    plain = Runner(tmp_path / "plain", find_python(running_version()) or sys.executable, [str(installed)])
    shelf = Runner(tmp_path / "home", python, [])
    rows = {}
    for name in WORKLOADS:
        runs: dict[str, list[dict[str, float]]] = {"pip": [], "shelf cold": [], "shelf warm": []}
        cache = tmp_path / f"cache-{name}"
        env = {"CLOUDIMPORT_LOCK": str(tmp_path / "cloudimport.lock"), "CLOUDIMPORT_CACHE": str(cache)}
        for _ in range(ROUNDS + 1):  # the first round fills the page cache and pip's bytecode
            shutil.rmtree(cache, ignore_errors=True)
            runs["pip"].append(json.loads(plain.run(PIP, name).ok()))
            for kind in ("shelf cold", "shelf warm"):
                runs[kind].append(json.loads(shelf.run(SHELF, name, env=env).ok()))
        rows[name] = {kind: _medians(found[1:]) for kind, found in runs.items()}
    _show(rows)
    assert set(rows) == set(WORKLOADS)


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _show(rows: dict[str, dict[str, dict[str, float]]]) -> None:
    head = ("CPU ms", "ratio", "wall ms", "install", "requests", "trips", "MB")
    print("\n" + " " * 24 + "".join(f"{name:>9}" for name in head))
    for name, kinds in rows.items():
        base = kinds["pip"]["cpu"]
        for kind, row in kinds.items():
            print(
                f"{name:12}{kind:12}{1e3 * row['cpu']:9.0f}{row['cpu'] / base:9.2f}{1e3 * row['wall']:9.0f}"
                f"{1e3 * row['install']:9.0f}{row.get('requests', 0):9.0f}{row.get('round_trips', 0):9.0f}"
                f"{row.get('bytes_fetched', 0) / 1e6:9.1f}"
            )
