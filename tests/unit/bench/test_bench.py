"""What the benchmarks conclude from what they see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.bench.accesslog import AccessLog, Request, sequential
from tests.bench.report import Results, render

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


def test_report() -> None:
    """Medians, ratios and means come from the runs; a way that failed is named with what it said."""

    def run(seconds: float) -> dict[str, Any]:
        names = "cpu import_cpu install_cpu process_cpu requests trips received peak_rss written".split()
        return {"seconds": seconds, **dict.fromkeys(names, seconds)}

    runs = {"pip": [run(3), run(9), run(6)], "cold": [run(1), run(2), run(3)], "zip": []}
    found = {"runs": {**runs, "local": [run(2)], "warm": [run(1)]}, "errors": {"zip": "no room"}}
    machine = {"tools": {"uv": "1"}, "round_trip": 0.015, "rate": 6e8}
    machine |= dict.fromkeys(("cpus", "processor", "kernel", "python", "commit"), "?")
    text = render(Results({"machine": machine, "workloads": {"numpy": found, "requests": found}}))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert "| requests | 6,000 | fails | 2,000 | 1,000 | 2,000 |" in rows
    assert "| geometric mean | 3.0 |  |" in rows
    assert "| numpy | 2,000 | 2 | 2 | 0 | 0 | 0 | 100% |" in rows
    assert "| geometric mean | | | 0.50 | | 0.50 |" in rows
    assert "- numpy, zip: no room" in text
