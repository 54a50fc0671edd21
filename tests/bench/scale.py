"""``python -m tests.bench.scale``: what happens when very many start at once; writes docs/scale.md.

A model, fed with what real cold starts ask for (``--measure`` makes ``starts.json`` anew). S3 serves so many
requests a second for a prefix and answers others with 503; a client then waits as ``Retrying`` does; a
sandbox has its own link. What is not in it: that S3 splits a busy prefix after some minutes (it gets better),
and that other users of the bucket take their share (it gets worse).
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudimport.sources.config import SourceConfig
from tests.bench.workloads import WORKLOADS, Workload
from tests.support.runtimes import running_version
from tests.support.shelfcommand import run_shelf

STARTS = Path(__file__).with_name("starts.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "scale.md"

#: Requests a second of one prefix, and a request's way there and back in seconds: Amazon S3 User Guide,
#: "Best practices design patterns: optimizing Amazon S3 performance"; 15 ms is what the benchmarks' link has.
RATE, LATENCY = 5500.0, 0.015
#: What a prefix has saved up, in seconds of its rate. A guess; ten times as much changes little.
SAVED = 0.1
#: Bytes a second of a sandbox, of which the slowest and the fastest are asked about, too.
LINK, LINKS = 150e6, (75e6, 150e6, 300e6)
SANDBOXES = (10, 100, 1_000, 10_000, 100_000)
#: Sandboxes that share a tier which their host has filled: one of so many asks the store.
SHARING = 50
#: As in cloudimport/sources/retrying.py: first and longest pause, seconds.
_BASE, _CAP = 0.1, 5.0
#: More are not simulated: of 100,000 sandboxes every 50th is, against a 50th of the store.
_SIMULATED = 2_000

#: Dollars (us-east-1): a GET, and a GB-second of Lambda; a sandbox of one processor has 1,769 MB.
GET, GB_SECOND, GB = 0.4e-6, 16.6667e-6, 1.769


@dataclass(frozen=True)
class Start:
    """What one cold start asks for. ``requests`` are (prefix, bytes), in order; ``cpu`` in seconds."""

    workload: str
    is_boot: bool
    round_trips: int
    cpu: float
    requests: tuple[tuple[str, int], ...]

    def waves(self) -> list[list[tuple[str, int]]]:
        """Return what is asked for together: the index alone unless an image comes with it, then the rest."""
        if self.round_trips < 2:
            return [list(self.requests)]
        rest, count = self.requests[1:], self.round_trips - 1
        return [[self.requests[0]], *(list(rest[n::count]) for n in range(count) if rest[n::count])]


class Prefix:
    """A prefix of the store: so many requests a second, and a little that it has saved up."""

    def __init__(self, rate: float) -> None:
        self._rate, self._tokens, self._moment = rate, rate * SAVED, 0.0

    def serves(self, moment: float) -> bool:
        """Whether a request at ``moment`` is answered."""
        self._tokens = min(self._rate * SAVED, self._tokens + (moment - self._moment) * self._rate)
        self._moment = moment
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def simulate(
    start: Start,
    sandboxes: int,
    *,
    link: float = LINK,
    arrival: float = 0.0,
    attempts: int = sys.maxsize,
    deadline: float = SourceConfig().deadline,
) -> list[float | None]:
    """Return the seconds that each simulated sandbox takes to its first result; None for one that gives up.

    They come within ``arrival`` seconds. ``attempts``: how often a request is made at the most.
    """
    chance = random.Random(1)
    factor = max(1.0, sandboxes / _SIMULATED)
    count = round(sandboxes / factor)
    prefixes = {name: Prefix(RATE / factor) for name, _ in start.requests}
    waves = start.waves()
    began = [chance.random() * max(arrival, 1e-3) for _ in range(count)]
    ends: list[float | None] = [None] * count
    left, last, gone = [0] * count, [0.0] * count, [False] * count
    # (moment, tie, sandbox, wave, prefix, attempt, first attempt's moment)
    events: list[tuple[float, float, int, int, str, int, float]] = []

    def ask(sandbox: int, wave: int, moment: float) -> None:
        left[sandbox], last[sandbox] = len(waves[wave]), moment
        for name, _ in waves[wave]:
            heapq.heappush(events, (moment, chance.random(), sandbox, wave, name, 1, moment))

    for sandbox, moment in enumerate(began):
        ask(sandbox, 0, moment)
    while events:
        moment, _, sandbox, wave, name, attempt, first = heapq.heappop(events)
        if gone[sandbox]:
            continue
        if not prefixes[name].serves(moment):
            again = moment + LATENCY + chance.random() * min(_CAP, _BASE * 2 ** (attempt - 1))
            if attempt >= attempts or again - first >= deadline:
                gone[sandbox] = True
            else:
                heapq.heappush(events, (again, chance.random(), sandbox, wave, name, attempt + 1, first))
            continue
        left[sandbox] -= 1
        last[sandbox] = max(last[sandbox], moment + LATENCY)
        if not left[sandbox]:
            moment = last[sandbox] + sum(size for _, size in waves[wave]) / link
            if wave + 1 < len(waves):
                ask(sandbox, wave + 1, moment)
            else:
                ends[sandbox] = moment - began[sandbox] + start.cpu
    return ends


def measure() -> None:
    """Write down what real cold starts ask for, with and without a boot image."""
    found = [row for workload in WORKLOADS.values() if workload.is_quoted for row in _measured(workload)]
    STARTS.write_text(json.dumps(found, indent=1) + "\n")


def _measured(workload: Workload) -> Iterator[dict[str, object]]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        work = Path(folder)
        (work / "app.py").write_text(
            f"import cloudimport; cloudimport.install(); {workload.imports}\n{workload.first}\n"
        )
        lock = work / "cloudimport.lock"
        pins = workload.pins(running_version())
        run_shelf("publish", "-r", pins, "--shelf", work / "shelf", "--lock", lock, cwd=work).ok()
        for is_boot in (False, True):
            run_shelf("trace", "app.py", "-o", "trace.json", cwd=work).ok()
            trace = json.loads((work / "trace.json").read_text())
            yield {
                "workload": workload.name,
                "is_boot": is_boot,
                "round_trips": trace["stats"]["round_trips"],
                "cpu": round(trace["run"]["cpu"] / 1e6, 3),
                "requests": [
                    ["/".join(key.split("/")[: 2 if key.startswith("packages/") else 1]), size]
                    for key, _, size, _, _ in trace["run"]["requests"]
                ],
            }
            run_shelf("boot", "trace.json", cwd=work).ok()


def read_starts() -> list[Start]:
    """Return what was measured; the CPU time of a workload is the shorter of two, since others disturb it."""
    rows = json.loads(STARTS.read_text())
    cpu = {row["workload"]: min(r["cpu"] for r in rows if r["workload"] == row["workload"]) for row in rows}
    return [
        Start(
            row["workload"],
            row["is_boot"],
            row["round_trips"],
            cpu[row["workload"]],
            tuple((name, size) for name, size in row["requests"]),
        )
        for row in rows
    ]


def _cell(ends: Sequence[float | None]) -> str:
    """Return median, 99th percentile and failures."""
    done = sorted(end for end in ends if end is not None)
    failed = 1 - len(done) / len(ends)
    text = f"{statistics.median(done):.2f} / {done[int(len(done) * 0.99)]:.2f}" if done else "none"
    return text + (f" ({failed:.0%} fail)" if failed else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _busiest(start: Start) -> tuple[str, int]:
    return Counter(name for name, _ in start.requests).most_common(1)[0]


def render(starts: Sequence[Start]) -> str:
    """Return the document."""
    plain = {start.workload: start for start in starts if not start.is_boot}
    boot = {start.workload: start for start in starts if start.is_boot}
    parts = [_INTRODUCTION]
    parts.append(
        _table(
            ("start", "requests", "one after the other", "MB", "CPU s", "busiest prefix"),
            [
                (
                    f"{start.workload}{', boot image' if start.is_boot else ''}",
                    str(len(start.requests)),
                    str(start.round_trips),
                    f"{sum(size for _, size in start.requests) / 1e6:.1f}",
                    f"{start.cpu:.2f}",
                    "{}: {}".format(*_busiest(start)),
                )
                for start in starts
            ],
        )
    )
    for name in ("requests", "pandas"):
        parts.append(f"\n## {name}: all at once, and over time\n\n{_COLUMNS}\n\n")
        rows = [
            (
                f"{count:,}",
                _cell(simulate(plain[name], count)),
                _cell(simulate(boot[name], count)),
                _cell(simulate(plain[name], max(1, count // SHARING))),
                _cell(simulate(plain[name], count, arrival=count / 100)),
                _cell(simulate(plain[name], count, attempts=5)),
            )
            for count in SANDBOXES
        ]
        parts.append(
            _table(
                ("sandboxes", "plain", "boot image", f"1 of {SHARING} asks", "100 a second", "5 attempts"),
                rows,
            )
        )
    parts.append("\n## The link\n\nMedian of 100 sandboxes, seconds, by MB/s of each.\n\n")
    parts.append(
        _table(
            ("start", *(f"{link / 1e6:.0f}" for link in LINKS)),
            [
                (
                    f"{start.workload}{', boot image' if start.is_boot else ''}",
                    *(
                        f"{statistics.median(filter(None, simulate(start, 100, link=link))):.2f}"
                        for link in LINKS
                    ),
                )
                for start in starts
            ],
        )
    )
    parts.append(_COST)
    parts.append(
        _table(
            ("start", "GETs, $", "time, $", "sum, $"),
            [
                (
                    f"{start.workload}{', boot image' if start.is_boot else ''}",
                    f"{1e6 * GET * len(start.requests):.1f}",
                    f"{1e6 * _duration_cost(start):.1f}",
                    f"{1e6 * (GET * len(start.requests) + _duration_cost(start)):.1f}",
                )
                for start in starts
            ],
        )
    )
    parts.append(_CONCLUSION)
    return "".join(parts)


def _duration_cost(start: Start) -> float:
    median = statistics.median(filter(None, simulate(start, 100)))
    return median * GB * GB_SECOND


_INTRODUCTION = """\
# At scale

Generated by `python -m tests.bench.scale`; not to be edited. A model: what real cold starts ask for, against
a store that serves 5,500 requests a second for each prefix and answers the rest with 503. Here a prefix is a
package, or `envs` with the environment indexes. Times are seconds to the first result, with the CPU time of
the machine on which the starts were recorded.

"""
_COLUMNS = f"""\
Median / 99th percentile, in seconds. *Plain*: all within a millisecond. *Boot image*: the same, with one.
*1 of {SHARING} asks*: as if hosts filled a tier that {SHARING} sandboxes read. *100 a second*: they come at
the rate at which Lambda makes sandboxes of one function (1,000 in ten seconds). *5 attempts*: a client that
gives up after five, as clients are usually set."""
_COST = """
## What a million starts cost

S3's requests, and Lambda's time at 1,769 MB, at list prices (us-east-1: $0.40 a million GETs, $16.6667 a
million GB-seconds); bytes within a region are free. What other ways cost is nearly all time, at $29 a million
starts and second: the [benchmarks](benchmarks.md) have a table.

"""
_CONCLUSION = """
## Which knob matters when

- Up to some hundred starts in the same second: none of S3's limits, only the sandbox's link and its CPU. A
  boot image saves its round trips.
- Above, the busiest prefix decides, by how many requests a start makes to it: fewer and larger ranges help in
  proportion. A client must go on asking: with five attempts a large part of a burst fails, with a deadline of
  60 s all of 10,000 are served, later. So `Retrying` does not count answers that ask to slow down; for
  100,000 in the same moment `CLOUDIMPORT_DEADLINE` has to be longer than the queue.
- At the rate at which Lambda makes sandboxes, one function never gets there; many functions with the same
  packages, or a fleet of containers, do. A folder that the sandboxes of a host share (`shelf mirror`) divides
  the requests by their number.
- Money follows time: requests are a small part of what a start costs.
"""


def main() -> int:
    """Write the document, measuring first if that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--measure", action="store_true", help="look again at what cold starts ask for")
    if parser.parse_args().measure:
        measure()
    DOCUMENT.write_text(render(read_starts()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
