"""A pin's way from its name to a build on the shelf, in two tasks that any machine can run.

``prepare`` fetches, installs and scans it; ``finish`` traces, packs and uploads it. Between them the curator
checks the list of pins as a whole. What they take and return is small and picklable; the installed trees
stay where they were made. A task that misses one, its own or a dependency's, makes it: from the shelf if it
is published, else from the same wheel once more, which gives the same tree. So tasks may run anywhere, and
again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cloudimport.errors import CloudImportError
from cloudimport.format import keys
from cloudimport.format.content import Content
from cloudimport.format.layout import BuildPointer
from cloudimport.format.records import sha256
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target
from shelf_tools.builds import read_build, upload
from shelf_tools.collect import code_file
from shelf_tools.errand import Errand, interpreter_for, interpreter_of, sandbox_called, shelf_of
from shelf_tools.fetch import Wheel, WheelError
from shelf_tools.indexing import Built
from shelf_tools.install import Installed
from shelf_tools.interpreters import Interpreter, check_given, runs_here
from shelf_tools.order import arrange, follow
from shelf_tools.pack import Packed, pack
from shelf_tools.provenance import Whence, record, tools
from shelf_tools.recipes import chosen
from shelf_tools.scan import scan
from shelf_tools.tops import inner_modules, top_level
from shelf_tools.trace import Trace, trace
from shelf_tools.trees import Clock, fetch_wheels, install_pin, making, place_of, tree_of

#: Modules that could not be imported, and notes on them, that a provenance record has.
_MOST_RECORDED = 100


@dataclass(frozen=True)
class Task:
    """A pin that is to be finished: ``needs`` are what it depends on, ``patterns`` a recipe's.

    ``requirement`` and ``needs`` have the one hash of the wheel that was prepared; ``whence`` is what is
    known of that. ``borrowed`` is a trace for the target ``traced``, used where there can be none of its own.
    """

    requirement: Requirement
    wheel: Wheel
    whence: Whence
    content: Content
    needs: tuple[Requirement, ...]
    patterns: tuple[str, ...] = ()
    borrowed: Trace | None = None
    traced: str = ""


class Prepared(NamedTuple):
    """A pin that is installed somewhere. ``seconds``: wall time by stage."""

    wheel: Wheel
    content: Content
    notes: tuple[str, ...]
    seconds: dict[str, float]


class Finished(NamedTuple):
    """A pin whose build is uploaded; ``pointer`` makes it visible, None if it is."""

    built: Built
    pointer: BuildPointer | None
    notes: tuple[str, ...]
    seconds: dict[str, float]


class Failed(NamedTuple):
    """Why a task could not be done: the text of its error. (Errors with fields do not survive pickling.)"""

    text: str


class Facts(NamedTuple):
    """What a worker is and has; ``problem`` says why it cannot publish, if it cannot."""

    magic: str
    traces: bool
    problem: str = ""


def survey(errand: Errand, targets: Sequence[Target]) -> Facts:
    """Return what this process has to offer for an errand; ``targets`` are all that are published for."""
    problem, magic = "", ""
    try:
        check_given(errand.pythons, targets)
        interpreter = interpreter_for(errand.target, errand.pythons)
        magic = interpreter.magic if interpreter else ""
        sandbox_called(errand.sandbox)
        if shelf_of(errand)[0].read_versioned(keys.SHELF) is None:
            problem = f"it does not see the shelf {errand.shelf}: a folder has to be one that all share"
    except (CloudImportError, OSError) as error:
        problem = str(error)
    return Facts(magic, bool(magic) and runs_here(errand.target), problem)


def prepare(errand: Errand, wanted: Sequence[tuple[Requirement, Wheel | None]]) -> list[Prepared | Failed]:
    """Fetch wheels, unless they are there, install each, and look through what that gives."""
    with tempfile.TemporaryDirectory(dir=place_of(errand), prefix="wheels-") as folder:
        began, said = time.perf_counter(), list[str]()
        missing = [one for one, wheel in wanted if wheel is None]
        wheels, failures = _fetch(errand, missing, Path(folder), said)
        seconds = (time.perf_counter() - began) / len(wanted)
        found: list[Prepared | Failed] = []
        for requirement, wheel in wanted:
            pin = requirement.pin
            notes = [note for note in said if note.startswith(f"{pin}:")]
            try:
                if pin in failures:
                    raise WheelError([failures[pin]])
                clock = Clock({"fetch": seconds})
                found.append(_prepare(errand, requirement, wheel or wheels[pin], clock, notes))
            except (CloudImportError, OSError) as error:
                found.append(Failed(str(error)))
    return found


def finish(errand: Errand, task: Task) -> list[Finished | Failed]:
    """Trace a prepared pin, lay its bytes down in that order, and upload them; one result."""
    try:
        return [_finish(errand, task)]
    except (CloudImportError, OSError) as error:
        return [Failed(str(error))]


def _fetch(
    errand: Errand, missing: Sequence[Requirement], into: Path, said: list[str]
) -> tuple[dict[Pin, Wheel], dict[Pin, str]]:
    """Return what ``fetch_wheels`` does. What keeps all of them from being fetched is the failure of each."""
    try:
        return fetch_wheels(errand, missing, into, said) if missing else ({}, {})
    except (CloudImportError, OSError) as error:
        return {}, {one.pin: f"{one.where}: {one.pin}: {error}" for one in missing}


def _prepare(
    errand: Errand, requirement: Requirement, wheel: Wheel, clock: Clock, notes: list[str]
) -> Prepared:
    with making(errand, requirement.pin, anew=True) as made:
        assert made.into is not None
        wheel = install_pin(errand, requirement, wheel, made.into, clock, notes)
        with clock("scan"):
            content = scan(made.into / "tree", requirement.pin, errand.target, notes.append)
    return Prepared(wheel, content, tuple(notes), clock.seconds)


def _finish(errand: Errand, task: Task) -> Finished:
    clock, content = Clock(), task.content
    store, source = shelf_of(errand)
    there = read_build(source, task.requirement.pin, str(errand.target))
    if there is not None and there.content_digest == sha256(content.encode()):
        return Finished(there, None, (), clock.seconds)  # this task ran before, or another publisher did
    with clock("trees"):
        own = tree_of(errand, task.requirement, task.wheel)
        beside = {need.pin.name: tree_of(errand, need, None, source) for need in task.needs}
    with clock("trace"):
        found = _trace(errand, task, own, beside)
    patterns, unused = chosen((file.path for file in content.files), task.patterns)
    borrowed = task.traced if found is task.borrowed else ""
    with tempfile.TemporaryDirectory(dir=own.tree.parent, prefix="packs-") as folder:
        with clock("pack"):
            packed = _pack(errand, task, own, found, patterns, Path(folder), borrowed)
        with clock("upload"):
            whence = _provenance(errand, task, found, borrowed)
            built, pointer = upload(store, source, content, packed, whence)
    notes = [*found.notes, *(f"{pattern!r} of the recipes is none of its files" for pattern in unused)]
    return Finished(built, pointer, tuple(notes), clock.seconds)


def _pack(
    errand: Errand,
    task: Task,
    own: Installed,
    found: Trace,
    wanted: Sequence[str],
    into: Path,
    borrowed: str,
) -> Packed:
    content, name = task.content, task.requirement.pin.name
    compiled = [
        file.path
        for file in content.files
        if own.code and file.path.endswith(".py") and code_file(own.code, file.path).is_file()
    ]
    mine = [(opened.path, opened.kind == "code") for opened in found.opened if opened.name == name]
    reached = [(opened.path, opened.kind == "code") for opened in found.reached]
    return pack(
        content,
        sha256(content.encode()),
        own.tree,
        own.code,
        own.magic,
        arrange(content, compiled, mine, [*found.c_opened, *wanted], reached),
        follow([(opened.name, opened.path) for opened in found.opened], name),
        found.imports,
        into,
        errand.level,
        borrowed,
    )


def _trace(errand: Errand, task: Task, own: Installed, beside: Mapping[str, Installed]) -> Trace:
    """Import a package with what it depends on beside it; else take what was borrowed."""
    pin, target = task.requirement.pin, errand.target
    if not errand.traces:
        return task.borrowed or Trace((), (), {}, ())
    interpreter = interpreter_of(errand)
    names = top_level(task.content, target)
    inner = inner_modules(task.content, target, names)
    trees = {name: _mounted(other, interpreter) for name, other in beside.items()}
    sandbox = sandbox_called(errand.sandbox)
    return trace(pin, names, inner, own.tree, own.code, trees, interpreter, sandbox, errand.limits.trace)


def _mounted(installed: Installed, interpreter: Interpreter | None) -> tuple[Path, Path | None]:
    """Return (tree, code) as a trace takes them: bytecode only if the interpreter can load it."""
    fits = interpreter is not None and installed.magic == interpreter.magic
    return installed.tree, installed.code if fits else None


def _provenance(errand: Errand, task: Task, found: Trace, borrowed: str) -> dict[str, Any]:
    limits = {"install": errand.limits.install, "trace": errand.limits.trace}
    if task.wheel.build:
        limits["build"] = errand.limits.build
    seen: dict[str, Any] = {
        "failed": dict(list(found.failed.items())[:_MOST_RECORDED]),
        "notes": list(found.notes[:_MOST_RECORDED]),
    }
    return record(
        task.wheel,
        task.whence,
        errand.sandbox,
        limits,
        tools(errand.sandbox, interpreter_of(errand), errand.level),
        {**seen, "of": borrowed} if borrowed else seen,
    )
