"""Running behaviours of a distribution on both sides, each in fresh interpreters with nothing cached."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.conformance.environments import Prepared, digest_of
from tests.conformance.subjects import Subject
from tests.support.children import clean_environment

HERE = Path(__file__).parent
SIDES = ("plain", "shelf")
#: Seconds for one interpreter: importing transformers' 3,500 modules takes minutes.
_TIMEOUT = 2400
#: Modules of one distribution that may end the interpreter; after that it is left at that.
_RESTARTS = 25
#: How often pip's side runs again where the sides differ: threads that import parts of a package at once
#: end up in one of several ways, some of them one time in ten.
_AGAIN = 8
#: How often a side runs until its threads have not deadlocked in importlib (see the probe).
_LUCKY = 4
#: Addresses of objects differ from one process to the next, under pip as well.
_ADDRESS = re.compile(r"\b0x[0-9a-f]{5,}\b")
#: What a temporary folder or file is called is drawn anew each time.
_TEMPORARY = re.compile(r"\btmp[a-z0-9_]{8}\b")

#: Items and their values, of one behaviour.
Values = dict[str, object]


@dataclass
class Seen:
    """What one side showed: values by behaviour and item; ``broken`` are probes that raised by themselves."""

    values: dict[str, Values] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


class Place:
    """Where one worker runs both sides in turn, at the same paths, so that nothing has to be made the same.

    What pip has installed is linked file by file to where the site tree would be, and is moved there for
    its turn. The folders that both sides write to are empty at the beginning of each run.
    """

    def __init__(self, prepared: Prepared, number: int) -> None:
        self.prepared = prepared
        self.folder = prepared.plain.parent / f"place-{number}"
        self.root = self.folder / "cache" / prepared.tree
        self._aside = {self.folder / "plain": self.root}
        self._aside[self.folder / "plain-bytecode"] = self.folder / "bytecode"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copytree(prepared.plain, self.folder / "plain", copy_function=os.link)
        (self.folder / "plain-bytecode").mkdir()
        # Else pytest finds this repository's settings above the folders that it runs in.
        (self.folder / "pytest.ini").write_text("[pytest]\n")

    def changed(self) -> list[str]:
        """Return what runs have added to pip's files, or taken from them: later runs have seen that."""
        theirs, ours = (_names(folder) for folder in (self.prepared.plain, self.folder / "plain"))
        return sorted(theirs ^ ours)

    @contextmanager
    def turn(self, side: str) -> Iterator[None]:
        """Have one side's files in place."""
        for name in ("cache", "bytecode", "home", "tmp", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        for name in ("home", "tmp", "work"):
            (self.folder / name).mkdir()
        pairs = self._aside.items() if side == "plain" else ()
        for aside, there in pairs:
            there.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(there)
        try:
            yield
        finally:
            for aside, there in pairs:
                there.rename(aside)

    def environment(self, side: str) -> dict[str, str]:
        """Return the environment of one run: the same on both sides but for where packages come from."""
        shared = {
            **clean_environment(self.folder / "home"),
            "CONFORMANCE_SIDE": side,
            # What `#!/usr/bin/env python3` finds is this interpreter.
            "PATH": f"{Path(self.prepared.python).parent}{os.pathsep}{os.environ['PATH']}",
            "CONFORMANCE_ROOT": str(self.root),
            "PYTHONHASHSEED": "0",  # the order of sets is what it happens to be otherwise
            "PYTHONPYCACHEPREFIX": str(self.folder / "bytecode"),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TMPDIR": str(self.folder / "tmp"),
        }
        if side == "plain":
            return {**shared, "PYTHONPATH": str(HERE / "plain")}
        cache = str(self.folder / "cache")
        return {**shared, "CLOUDIMPORT_LOCK": str(self.prepared.lock), "CLOUDIMPORT_CACHE": cache}


def _names(folder: Path) -> set[str]:
    return {f"{at}/{name}".removeprefix(str(folder)) for at, _, files in os.walk(folder) for name in files}


def run_side(side: str, place: Place, subject: Subject, behaviours: Sequence[str]) -> Seen:
    """Run behaviours in one interpreter, and go on after those that end it."""
    seen, left, skip = Seen(), list(behaviours), list(subject.skip)
    for _ in range(_RESTARTS):
        if not left:
            break
        with place.turn(side):
            status, lines = _interpreter(side, place, replace(subject, skip=skip), left)
        died = _read(lines, seen)
        if status == 0 and died is None:
            break
        behaviour, item = died or (left[-1], "(at exit)")
        ended: dict[str, object] = {"ended": status}
        if behaviour == "modules.walk" and item not in skip:
            # From the start again without that module, so that all others are seen.
            skip.append(item)
            seen.values.pop(behaviour, None)
            left = left[left.index(behaviour) :]
            seen.values.setdefault("modules.ending", {})[item] = ended
        else:
            seen.values.setdefault(behaviour, {})[item] = ended
            left = left[left.index(behaviour) + 1 :]
    return seen


def _interpreter(
    side: str, place: Place, subject: Subject, behaviours: Sequence[str]
) -> tuple[int, list[str]]:
    """Run one interpreter; returns how it ended, and the lines of its results."""
    folder = place.folder
    results, described = folder / "results.jsonl", folder / "subject.json"
    results.write_text("")
    described.write_text(json.dumps(subject.fields()))
    drive = str(HERE / "inside" / "drive.py")
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(
            [place.prepared.python, drive, str(described), str(results), *behaviours],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            cwd=folder / "work",
            env=place.environment(side),
            start_new_session=True,
        )
        try:
            status = process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            status = -signal.SIGALRM
        finally:
            _end_session(process)
    text = results.read_text()
    if status and not text:
        said_text = (folder / "said").read_text(errors="replace")
        text = json.dumps(["broken", behaviours[0], {}, said_text[-3000:]]) + "\n"
    # For whoever reads it; both sides have the same paths.
    text = text.replace(str(place.root), "<root>").replace(str(folder), "<run>")
    return status, text.splitlines()


def _end_session(process: subprocess.Popen[bytes]) -> None:
    """End what a probe has left running: it was started in a session of its own."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _read(lines: Sequence[str], seen: Seen) -> tuple[str, str] | None:
    """Add a run's values to ``seen``; returns what was at work if the interpreter ended there."""
    at: tuple[str, str] | None = None
    for line in lines:
        kind, behaviour, *fields = json.loads(line)
        if kind == "start":
            seen.values[behaviour] = {}
            at = (behaviour, "(start)")
        elif kind == "begin":
            at = (behaviour, fields[0])
        elif kind == "value":
            seen.values.setdefault(behaviour, {})[fields[0]] = fields[1]
        elif kind == "broken":
            seen.broken[behaviour] = fields[1]
            at = None
        else:
            at = None
    return at


@dataclass
class Outcome:
    """How one behaviour of a distribution compares: counts of items, and the items that differ."""

    items: int = 0
    failed: int = 0
    unsteady: int = 0
    excepted: int = 0
    differing: dict[str, list[object]] = field(default_factory=dict)
    #: What fails alike, in short: for whoever wants to know what a probe did not get to see.
    failing: dict[str, str] = field(default_factory=dict)
    broken: str = ""

    @property
    def status(self) -> str:
        """One of: differs, broken, excepted, same failure, pass, not applicable."""
        if self.differing:
            return "differs"
        if self.broken:
            return "broken"
        if self.excepted:
            return "excepted"
        if self.failed:
            return "same failure"
        return "pass" if self.items else "not applicable"


def compare(plain: Seen, shelf: Seen) -> dict[str, Outcome]:
    """Compare what both sides showed."""
    names = [*plain.values, *(name for name in shelf.values if name not in plain.values)]
    outcomes = {}
    for name in dict.fromkeys([*names, *plain.broken, *shelf.broken]):
        theirs, ours = plain.values.get(name, {}), shelf.values.get(name, {})
        outcome = outcomes[name] = Outcome(broken=plain.broken.get(name, "") or shelf.broken.get(name, ""))
        for item in sorted({*theirs, *ours}):
            one, other = _normal(theirs.get(item, "(absent)")), _normal(ours.get(item, "(absent)"))
            outcome.items += 1
            if _is_unsteady(one) or _is_unsteady(other):
                outcome.unsteady += 1
                continue
            if _is_failure(one):
                outcome.failed += 1
                outcome.failing[item] = one[:200]
            if one != other:
                outcome.differing[item] = [json.loads(one), json.loads(other)]
    return outcomes


def _normal(value: object) -> str:
    text = json.dumps(value, sort_keys=True)
    return _TEMPORARY.sub("tmp…", _ADDRESS.sub("0x…", text))


def _is_failure(text: str) -> bool:
    return text.startswith(('{"raised"', '{"ended"'))


def key_of(prepared: Prepared, behaviours: Sequence[str]) -> str:
    """Return what changes when a result may: the product, the pins, and the probes that are at work."""
    modules = {"record", "modules", "objects", *(name.partition(".")[0] for name in behaviours)}
    files = [HERE / "inside" / "behaviours" / f"{module}.py" for module in sorted(modules)]
    here = [HERE / "running.py", HERE / "subjects.py", HERE / "plain", HERE / "inside" / "drive.py"]
    return f"{prepared.key[:32]}-{digest_of([*files, *here])[:32]}"


def run_both(place: Place, subject: Subject, behaviours: Sequence[str]) -> dict[str, Outcome]:
    """Run behaviours on both sides and compare.

    Where they differ pip's side runs again, a few times: in what pip does not agree with itself on, nobody
    can. Such items are counted as unsteady, but for those that fail on one side only, unless pip's side fails
    in the same way once.
    """
    plain, shelf = (_run_steady(side, place, subject, behaviours) for side in SIDES)
    outcomes = compare(plain, shelf)
    for _ in range(_AGAIN):
        doubtful = [name for name, outcome in outcomes.items() if outcome.differing and name in behaviours]
        if not doubtful:
            break
        first = [name for name in behaviours if name in doubtful or name == "modules.walk"]
        again = run_side("plain", place, subject, first)
        for name in doubtful:
            settle(outcomes[name], again.values.get(name, {}))
    return outcomes


def _run_steady(side: str, place: Place, subject: Subject, behaviours: Sequence[str]) -> Seen:
    """Run behaviours, and again if what was seen is luck, a few times."""
    for _ in range(_LUCKY):
        seen = run_side(side, place, subject, behaviours)
        if not any(_is_unsteady(_normal(v)) for values in seen.values.values() for v in values.values()):
            break
    return seen


def _is_unsteady(text: str) -> bool:
    return text.startswith('{"unsteady"')


def settle(outcome: Outcome, again: Values) -> None:
    """Count as unsteady what another run under pip has shown as the shelf did, or as neither did."""
    for item, (theirs, ours) in list(outcome.differing.items()):
        now = json.loads(_normal(again.get(item, "(absent)")))
        if _is_unsteady(_normal(now)):
            continue
        alike = _is_failure(_normal(theirs)) == _is_failure(_normal(ours))
        if now == ours or (now != theirs and alike):
            del outcome.differing[item]
            outcome.unsteady += 1


def differing_lines(outcome: Outcome, count: int = 5) -> Iterator[str]:
    """Yield a line for each side of the first items that differ."""
    for item, (theirs, ours) in list(outcome.differing.items())[:count]:
        yield f"    {item}"
        yield f"      pip:   {json.dumps(theirs)[:600]}"
        yield f"      shelf: {json.dumps(ours)[:600]}"
