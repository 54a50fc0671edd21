"""``python -m tests.conformance``: compare the corpus, package by package, from a shelf and from pip.

Every result is kept below the work folder and taken from there as long as nothing that it depends on has
changed; so a run that was ended goes on where it was. The report is written from what there is.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

from tests.conformance.behaviours import PACKS
from tests.conformance.environments import Prepared, prepare
from tests.conformance.exceptions import Excepted, read_exceptions
from tests.conformance.groups import SAMPLE, read_groups
from tests.conformance.report import Row, write_report
from tests.conformance.running import Outcome, Place, differing_lines, key_of, run_both
from tests.conformance.subjects import Subject, environment_subject, read_subjects
from tests.support.children import REPOSITORY

_Job = tuple[Prepared, Subject, str]


def main() -> int:
    """Run what is asked for; the exit status says whether anything differs that is not excepted."""
    arguments = _arguments()
    work = arguments.work.resolve()
    rows: list[Row] = []
    for version in arguments.python.split(","):
        for group in arguments.group or [name for name in read_groups() if name != SAMPLE]:
            _say(f"{group}, Python {version}: installing and publishing")
            prepared = prepare(work, version, group)
            # The same release in a second group would show the same.
            done = {(row.distribution, row.release) for row in rows if row.version == version}
            rows += run_group(prepared, work, arguments, done)
    excepted = read_exceptions()
    for row in rows:
        excepted.apply(row.distribution, row.behaviour, row.outcome)
    # A part of the corpus is no reason to write the document anew.
    part = arguments.group or arguments.package or arguments.pack
    report = arguments.report or (None if part else REPOSITORY / "docs" / "conformance.md")
    if report:
        write_report(rows, excepted, report)
        _say(f"written: {report}")
    return _judge(rows, excepted)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--python", default="3.11,3.12", help="versions (default: 3.11,3.12)")
    parser.add_argument("--group", action="append", help="only this group; repeatable")
    parser.add_argument("--package", action="append", help="only this distribution; repeatable")
    parser.add_argument(
        "--pack", action="append", choices=[*PACKS, "environment"], help="only these behaviours"
    )
    parser.add_argument("--jobs", type=int, default=2, help="distributions at a time (default: 2)")
    parser.add_argument("--again", action="store_true", help="take no result from an earlier run")
    parser.add_argument("--work", type=Path, default=REPOSITORY / ".conformance", help="the work folder")
    parser.add_argument(
        "--report", type=Path, help="where to; default: docs/conformance.md, if all of it runs"
    )
    return parser.parse_args()


def run_group(
    prepared: Prepared, work: Path, arguments: argparse.Namespace, done: set[tuple[str, str]]
) -> list[Row]:
    """Run a group's behaviours, or take their results from an earlier run; not for what is done."""
    results = work / prepared.version / prepared.group / "results"
    results.mkdir(parents=True, exist_ok=True)
    jobs = [job for job in _jobs(prepared, arguments) if (job[1].name, job[1].version) not in done]
    places: SimpleQueue[Place] = SimpleQueue()
    for number in range(arguments.jobs):
        places.put(Place(prepared, number))

    def run(job: _Job) -> list[Row]:
        _, subject, pack = job
        path = results / f"{subject.name}.{pack}.json"
        names = PACKS[pack][1] if pack in PACKS else ("metadata.environment",)
        key = key_of(prepared, names)
        kept = None if arguments.again else _kept(path, key)
        if kept is None:
            place = places.get()
            try:
                kept = run_both(place, subject, names)
            finally:
                places.put(place)
            _keep(path, key, kept)
            _say_outcomes(f"{subject.name} {pack}", kept)
        return [
            Row(prepared.version, prepared.group, subject.name, subject.version, *i) for i in kept.items()
        ]

    with ThreadPoolExecutor(arguments.jobs) as pool:
        rows = [row for found in pool.map(run, jobs) for row in found]
    while not places.empty():
        _say_changed(places.get().changed())
    return rows


def _jobs(prepared: Prepared, arguments: argparse.Namespace) -> Iterator[_Job]:
    for subject in read_subjects(prepared.plain, prepared.group):
        if arguments.package and subject.name not in arguments.package:
            continue
        for pack, (applies, _) in PACKS.items():
            if applies(subject) and (not arguments.pack or pack in arguments.pack):
                yield prepared, subject, pack
    if not arguments.package and (not arguments.pack or "environment" in arguments.pack):
        yield prepared, environment_subject(prepared.group), "environment"


def _kept(path: Path, key: str) -> dict[str, Outcome] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if found["key"] != key:
        return None
    return {name: Outcome(**fields) for name, fields in found["outcomes"].items()}


def _keep(path: Path, key: str, outcomes: dict[str, Outcome]) -> None:
    text = json.dumps({"key": key, "outcomes": {name: asdict(o) for name, o in outcomes.items()}})
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def _say_changed(paths: list[str]) -> None:
    if paths:
        _say(f"a probe has left or removed files: {', '.join(paths[:20])}")


def _say_outcomes(what: str, outcomes: dict[str, Outcome]) -> None:
    items = sum(outcome.items for outcome in outcomes.values())
    _say(f"{time.strftime('%H:%M:%S')} {what}: {items} items")
    for name, outcome in outcomes.items():
        if outcome.unsteady:
            _say(f"  {name}: {outcome.unsteady} items could not be compared")
        if outcome.status in ("differs", "broken"):
            _say(f"  {name} {outcome.status} in {len(outcome.differing)} of {outcome.items} {outcome.broken}")
            for line in differing_lines(outcome):
                _say(line)


def _judge(rows: list[Row], excepted: Excepted) -> int:
    bad = [row for row in rows if row.outcome.status in ("differs", "broken")]
    for row in bad:
        where = f"Python {row.version}, {row.distribution} {row.release}, {row.behaviour}"
        _say(f"{row.outcome.status}: {where}: {len(row.outcome.differing)} items")
    for line in excepted.unused() if not bad else ():
        _say(f"not needed any more: {line}")
    statuses = [row.outcome.status for row in rows]
    _say(", ".join(f"{statuses.count(s)} {s}" for s in sorted(set(statuses))))
    return bool(bad)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
