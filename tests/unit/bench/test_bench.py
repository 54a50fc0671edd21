"""What the benchmarks conclude from what they see."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from tests.bench.accesslog import AccessLog, Request, sequential
from tests.bench.needs import measure_needs
from tests.bench.report import Results, draw_needs, draw_steps, draw_times, render
from tests.bench.workloads import EVERYTHING
from tests.support.shelves import write_tree

LINE = (
    "2026-11-21T17:13:{second}+0000 7f8151f636c0  1 beast: 0x7f81f85c7640: 10.73.0.1 - test "
    '[21/Nov/2026:17:13:16.369 +0000] "GET /bench/simple/x/ HTTP/1.1" 200 11 - "agent "quoted" HTTP/2" - '
    "latency={latency}s\n"
)


def test_log_is_read_once(tmp_path: Path) -> None:
    """Lines of requests are taken in order, each once, and a line that is still being written later."""
    path = tmp_path / "log"
    line = LINE.format(second="16.369", latency="0.008000000")
    path.write_text("something else\n" + line + line[:40])
    log = AccessLog(path)
    [request] = log.take()
    assert (request.method, request.target, request.status) == ("GET", "/bench/simple/x/", 200)
    assert round(request.end - request.start, 3) == 0.008
    with path.open("a") as file:
        file.write(line[40:])
    assert len(log.take()) == 1
    assert log.take() == []


def test_sequential() -> None:
    """Requests that travel together are one trip; one that waited for another's answer is one more."""

    def at(start: float, end: float) -> Request:
        return Request(start, end, "GET", "/", 200)

    assert sequential([], 0.015) == 0
    assert sequential([at(0, 0.001), at(0.001, 0.004), at(0.002, 0.1)], 0.015) == 1
    assert sequential([at(0, 0.001), at(0.016, 0.017), at(0.016, 0.02), at(0.033, 0.034)], 0.015) == 3


def _run(seconds: float, **more: Any) -> dict[str, Any]:
    names = (
        "cpu import_cpu first_cpu install_cpu process_cpu requests trips received peak_rss written".split()
    )
    return {"seconds": seconds, **dict.fromkeys(names, seconds), "stats": {}, "marks": {}, **more}


def _results() -> Results:
    """Return made-up results of two workloads, one of which has everything."""
    machine = {"tools": {"uv": "1"}, "round_trip": 0.015, "rate": 8e6, "slow": 4}
    machine |= dict.fromkeys(("cpus", "processor", "kernel", "python", "commit"), "?")
    steps = {"downloaded": 1.0, "installed": 3.0, "first": 4.0}
    runs = {
        "pip": [_run(3), _run(9), _run(6)],
        "uv": [_run(8)],
        "uv compiled": [_run(5)],
        "cold": [_run(1), _run(2), _run(3)],
        "boot": [_run(1.5)],
        "zip": [],
        "zip boto3": [_run(4)],
        "FUSE": [_run(1)],
        "second": [_run(1, stats={"bytes_fetched": 1, "bytes_shared": 99})],
        "local": [_run(0.5)],
        "warm": [_run(0.25)],
        "held": [_run(0.2)],
        "steps": [_run(4, marks=steps)],
    }
    needs = {"installed": 4e6, "files": 7, "size": 2e6, "compressed": 1.39e6, "paged": 1e6}
    needs |= {"same_files": 1.0, "same_pages": 0.991}
    found = {"runs": runs, "errors": {"zip": "no room"}, "needs": needs}
    fewer = {"runs": {way: runs[way] for way in ("pip", "cold", "local", "warm")}, "errors": {}}
    everything = {"runs": {"zip": [_run(8)], "zip compiled": [_run(4)], "cold": [_run(2)]}, "errors": {}}
    workloads = {"numpy": found, "requests": fewer, EVERYTHING: everything}
    return Results({"machine": machine, "workloads": workloads})


def test_report() -> None:
    """Medians, ratios and means come from the runs; a way that failed is named with what it said."""
    text = render(_results())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert f"| requests | 6,000 |{' fails |' * 6} 2,000 | fails | fails | 250 | 500 |" in rows
    assert "| numpy | 3.0 | 2.5 | fails | 2.0 | 0.5 |" in rows
    assert "| geometric mean | 3.00 | 2.50 |  | 2.00 | 0.50 |" in rows
    assert "Slower than one of them: numpy (FUSE mount)." in text
    # Needed: 1.39 MB at 8 Mbit/s take 1.39 s, more than the CPU time; and four round trips, and 50 ms.
    assert "| numpy | 1.4 | fails | 1,500 | 1.00 | 1.33 |" in rows
    assert "| numpy | 2 | 2 | 0 | 0% | 1.5 | 1.5 | 100% |" in rows
    assert "| numpy | 500 | 0.50 | 0.40 | 250 | 0.50 | 2,000 |" in rows
    assert "| geometric mean |  | 0.50 | 0.40 |  | 0.50 |  |" in rows
    assert "| numpy | 1,000 | 1 | 99.0% |" in rows
    assert "Cold takes 0.50\nof that" in text
    assert "| numpy | 4.0 | 7 | 50% | 25% | 99.1% | 100.0% |" in rows
    assert "- numpy, zip: no room" in text


def test_pictures(tmp_path: Path) -> None:
    """Each picture is made from what was measured; the same figures make the same picture."""
    for draw in (draw_times, draw_needs, draw_steps):
        paths = [tmp_path / f"{draw.__name__}-{at}.svg" for at in range(2)]
        for path in paths:
            draw(_results(), path)
        one, other = (path.read_bytes() for path in paths)
        assert one == other
        assert b"numpy" in one


def test_what_a_start_needs(tmp_path: Path) -> None:
    """Files that a program opens are needed, others not; of a large one that is read in part, fewer pages."""
    tree = write_tree(tmp_path / "tree", {"thing.py": "x = 1\n", "other.py": "y = 2\n"})
    (tree / "data.bin").write_bytes(os.urandom(4096) * 100)
    first = "import os, thing; f = open(os.path.dirname(thing.__file__) + '/data.bin', 'rb'); f.read(4096)"
    needs = measure_needs(sys.executable, tree, "import thing", first, tmp_path)
    assert needs["files"] == 2
    assert needs["size"] == 6 + 409_600
    assert needs["installed"] == 12 + 409_600
    assert needs["same_files"] == 1.0
    if needs["paged"] is not None:  # root's business
        assert needs["paged"] <= needs["size"] + 4096
