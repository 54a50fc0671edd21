"""Publishing: pins -> fetch -> install -> scan -> check -> trace -> order and pack -> commit -> environment.

Each pin goes its own way, in parallel; what is published already is not installed again; the
environment index and the lockfile come last.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from packaging.requirements import Requirement as Dependency

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format.content import Content
from cloudimport.format.modules import modules
from cloudimport.format.records import Ref, sha256
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target, normalise_name
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools import check, pins, provenance
from shelf_tools.builds import check_form, commit, read_build, read_provenance, restore
from shelf_tools.collect import code_file
from shelf_tools.completing import advice, complete
from shelf_tools.environments import open_shelf, publish_environment, write_lock
from shelf_tools.fetch import Wheel
from shelf_tools.indexing import Built, check_together
from shelf_tools.inputs import read_input
from shelf_tools.install import Installed, install
from shelf_tools.interpreters import Interpreter, find_interpreter
from shelf_tools.limits import StageLimits
from shelf_tools.order import arrange, follow
from shelf_tools.pack import LEVEL, Packed, pack
from shelf_tools.portable import check_portable
from shelf_tools.process import stop_all
from shelf_tools.recipes import NAME as RECIPES
from shelf_tools.recipes import Recipes, chosen, read_recipes
from shelf_tools.sandbox import Sandbox, open_sandbox
from shelf_tools.signing import Signing
from shelf_tools.sourceless import strip
from shelf_tools.sourcing import Sourcing
from shelf_tools.store import Store, open_store
from shelf_tools.trace import Trace, trace
from shelf_tools.trust import check_signed
from shelf_tools.workfolder import work_folder

#: Notes that are handed on for one pin and stage: a hostile wheel could have one for each of its files.
_MOST_NOTES = 20
#: Modules that could not be imported, and notes on them, that a provenance record has.
_MOST_RECORDED = 100


class Reporter(Protocol):
    """Who hears how publishing goes on. Called from one thread."""

    def stage(self, name: str, total: int) -> None:
        """A stage begins: ``total`` steps."""

    def step(self, name: str) -> None:
        """One step of the stage is done."""

    def note(self, text: str) -> None:
        """One line for a person."""


@dataclass(frozen=True)
class Job:
    """What to publish, whereto, and how. ``jobs``: pins at a time.

    ``recipes`` is a file; None is the one beside the requirements, if there is one. ``extras`` and
    ``groups`` choose from a project's lock; ``add_missing`` adds to the requirements what they need.
    ``allow_sdist`` are normalised names of packages that are built from source if there is no wheel.
    ``bytecode_only`` names packages (``name`` or ``name==version``) that are published without source,
    ``require_attestation`` those whose wheels must be attested (PEP 740), or ``all``.
    """

    requirements: Path
    shelf: str
    targets: tuple[Target, ...]
    lock: Path
    lock_shelf: str
    environ: Mapping[str, str]
    jobs: int = field(default_factory=lambda: max(2, os.cpu_count() or 2))
    sandbox: str = "bubblewrap"
    level: int = LEVEL
    recipes: Path | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    add_missing: bool = False
    limits: StageLimits = field(default_factory=StageLimits)
    allow_sdist: frozenset[str] = frozenset()
    signing: Signing = field(default_factory=Signing)
    bytecode_only: tuple[str, ...] = ()
    require_attestation: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a target came to: the environment index, and pins that were built or were there."""

    target: Target
    index: Ref
    built: tuple[Pin, ...]
    present: tuple[Pin, ...]


class PublishError(CloudImportError):
    """Some pins could not be published; one line each."""


@dataclass
class _Pin:
    """One pin on its way."""

    requirement: Requirement
    folder: Path
    wheel: Wheel | None = None
    build: dict[str, Any] | None = None  # how the wheel was built from source
    whence: provenance.Whence = field(default_factory=provenance.Whence)
    installed: Installed | None = None
    content: Content | None = None
    built: Built | None = None
    trace: Trace | None = None
    unused: list[str] = field(default_factory=list)

    @property
    def pin(self) -> Pin:
        return self.requirement.pin

    @property
    def known(self) -> Content:
        """The content, installed just now or read from the shelf."""
        content = self.built.content if self.built else self.content
        assert content is not None
        return content


def publish(job: Job, report: Reporter) -> list[Outcome]:
    """Publish a requirements file for every target. Raises CloudImportError, a stage's errors together."""
    listed = read_input(job.requirements, job.extras, job.groups, job.environ, report.note)
    if not listed.requirements:
        raise ConfigurationError(f"{job.requirements} has no requirements")
    if job.add_missing:
        listed = complete(job.requirements, listed, job.targets, job.environ, report.note)
    known = [requirement.pin for requirement in listed.requirements]
    sourceless = pins.select(job.bytecode_only, known, "--bytecode-only")
    required = provenance.required(job.require_attestation, known)
    examiner = provenance.Examiner(job.environ, listed.options, required)
    recipes = _recipes(job)
    store = open_store(job.shelf, job.environ)
    source = open_source(job.shelf, SourceConfig(environ=job.environ))
    try:
        open_shelf(store)
        with ThreadPoolExecutor(max(1, job.jobs), "publish") as pool:
            outcomes = [
                _Target(job, target, listed, store, source, pool, report, recipes, sourceless, examiner).run()
                for target in job.targets
            ]
    finally:
        source.close()
    lines = [requirement.line for requirement in listed.requirements]
    indexes = {str(outcome.target): outcome.index for outcome in outcomes}
    write_lock(job.lock, job.lock_shelf, lines, indexes, job.signing)
    return outcomes


def _recipes(job: Job) -> Recipes:
    beside = job.requirements.parent / RECIPES
    if job.recipes is None and not beside.is_file():
        return {}
    return read_recipes(job.recipes or beside)


class _Target:
    """Publishing for one target."""

    def __init__(
        self,
        job: Job,
        target: Target,
        listed: pins.Listed,
        store: Store,
        source: Source,
        pool: Executor,
        report: Reporter,
        recipes: Recipes,
        sourceless: frozenset[Pin],
        examiner: provenance.Examiner,
    ) -> None:
        self._examiner = examiner
        self._recipes, self._sourceless = recipes, sourceless
        self._job, self._target = job, target
        self._listed = listed
        self._wanted = pins.wanted(listed, target)
        self._store, self._source, self._pool, self._report = store, source, pool, report

    def run(self) -> Outcome:
        """Go through all stages."""
        with work_folder("publish") as work:
            ways = [_Pin(requirement, work / str(at)) for at, requirement in enumerate(self._wanted)]
            self._each("look", ways, self._look)
            missing = [way for way in ways if way.built is None]
            if missing:
                self._build(work, ways, missing)
            else:
                self._check(ways)
            ref = publish_environment(
                self._store,
                self._source,
                [requirement.line for requirement in self._listed.requirements],
                self._target,
                [way.built for way in ways if way.built],
                self._report.note,
                self._job.signing.signers,
            )
        there = tuple(way.pin for way in ways if way not in missing)
        return Outcome(self._target, ref, tuple(way.pin for way in missing), there)

    def _look(self, way: _Pin) -> list[str]:
        way.built = read_build(self._source, way.pin, str(self._target))
        self._check_signed(way.built)
        if way.built is None:
            return []
        if way.requirement.hashes or self._examiner.is_required(way.pin):
            record = read_provenance(self._source, way.pin, str(self._target))
            provenance.check_wheel(record, way.requirement, self._target)
            self._examiner.check_published(way.pin, str(self._target), record)
        return check_form(way.built, way.pin in self._sourceless)

    def _check_signed(self, built: Built | None) -> None:
        """Check that who signs the environment vouches for a build that others may have made."""
        if built and self._job.signing.signers:
            check_signed(self._source, built, self._job.signing.trusted)

    def _build(self, work: Path, ways: Sequence[_Pin], missing: Sequence[_Pin]) -> None:
        sandbox = open_sandbox(self._job.sandbox)
        interpreter = find_interpreter(self._target)
        if interpreter is None:
            self._report.note(
                f"no interpreter for {self._target} is on this machine: packages are published without "
                "bytecode and in static order"
            )
        self._fetch(work, missing, sandbox)
        self._each("examine", missing, self._examine)
        self._each("install", missing, lambda way: self._install(way, interpreter, sandbox))
        self._check(ways)
        self._trace(ways, missing, interpreter, sandbox)
        self._each("publish", missing, lambda way: self._publish(way, interpreter, ways))

    def _fetch(self, work: Path, missing: Sequence[_Pin], sandbox: Sandbox) -> None:
        self._report.stage("fetch", len(missing))
        job = self._job
        sourcing = Sourcing(
            job.environ,
            self._listed,
            job.jobs,
            job.allow_sdist,
            sandbox,
            job.limits,
            self._report.note,
        )
        wheels = sourcing.wheels(
            [way.requirement for way in missing],
            self._target,
            work / "wheels",
            lambda pin: self._report.step(str(pin)),
        )
        for way in missing:
            way.wheel, way.build = wheels[way.pin]

    def _examine(self, way: _Pin) -> list[str]:
        assert way.wheel is not None
        way.whence, notes = self._examiner.examine(way.pin, way.wheel)
        return notes

    def _install(self, way: _Pin, interpreter: Interpreter | None, sandbox: Sandbox) -> list[str]:
        assert way.wheel is not None
        notes: list[str] = []
        limits = self._job.limits.install
        way.installed = install(
            way.wheel.path, way.pin, self._target, interpreter, sandbox, limits, into=way.folder
        )
        if way.build is not None:
            check_portable(way.installed.tree, way.pin, self._target)
        if way.pin in self._sourceless:
            way.installed = _without_source(way.installed, self._target)
        way.content = _scan(way, self._target, notes)
        return [*way.installed.notes, *notes]

    def _check(self, ways: Sequence[_Pin]) -> None:
        found = check.check({way.pin: way.known for way in ways}, self._wanted, self._target)
        for note in (*found.notes, *advice(found, self._job.requirements)):
            self._report.note(note)
        if found.missing:
            raise ConfigurationError(check.explain(found.missing))
        check_together(way.known for way in ways)

    def _trace(
        self, ways: Sequence[_Pin], missing: Sequence[_Pin], interpreter: Interpreter | None, sandbox: Sandbox
    ) -> None:
        """Import each new package with what it depends on beside it, published builds restored for that."""
        by_name = {way.pin.name: way for way in ways}
        needs = {way.pin: _closure(way, by_name) for way in missing}
        wanted = {name for names in needs.values() for name in names}
        self._each("restore", [w for w in ways if w.built and w.pin.name in wanted], self._restore)

        def one(way: _Pin) -> Iterable[str]:
            assert way.installed is not None
            beside = {
                name: _mounted(other.installed, interpreter)
                for name in needs[way.pin]
                if (other := by_name[name]).installed
            }
            names = top_level(way.known, self._target)
            way.trace = trace(
                way.pin,
                names,
                inner_modules(way.known, self._target, names),
                way.installed.tree,
                way.installed.code,
                beside,
                interpreter,
                sandbox,
                self._job.limits.trace,
            )
            return way.trace.notes

        self._each("trace", missing, one)

    def _restore(self, way: _Pin) -> None:
        assert way.built is not None
        way.folder.mkdir(parents=True, exist_ok=True)
        tree, code = restore(self._source, way.built, way.folder)
        way.installed = Installed(tree, code, way.built.layout.magic, ())

    def _publish(self, way: _Pin, interpreter: Interpreter | None, ways: Sequence[_Pin]) -> list[str]:
        packed = self._pack(way, ways)
        assert way.content is not None
        whence = self._provenance(way, interpreter)
        signers = self._job.signing.signers
        way.built = commit(self._store, self._source, way.content, packed, whence, signers)
        self._check_signed(way.built)
        for path in packed.packs:
            path.unlink()
        return [f"{pattern!r} of the recipes is none of its files" for pattern in way.unused]

    def _pack(self, way: _Pin, ways: Sequence[_Pin]) -> Packed:
        assert way.content is not None
        assert way.installed is not None
        assert way.trace is not None
        installed, opened = way.installed, way.trace.opened
        code = installed.code
        compiled = [
            f.path
            for f in way.content.files
            if code and f.path.endswith(".py") and code_file(code, f.path).is_file()
        ]
        own = [(o.path, o.kind == "code") for o in opened if o.name == way.pin.name]
        patterns = self._recipes.get(way.pin.name, ())
        wanted, way.unused = chosen((f.path for f in way.content.files), patterns)
        reached = [(o.path, o.kind == "code") for o in way.trace.reached]
        order = arrange(way.content, compiled, own, [*way.trace.c_opened, *wanted], reached)
        names = {o.name for o in opened}
        known = {w.pin.name: frozenset(f.path for f in w.known.files) for w in ways if w.pin.name in names}
        after = follow([(o.name, o.path) for o in opened], way.pin.name, known)
        digest = sha256(way.content.encode())
        into = way.folder / "packs"
        into.mkdir(parents=True, exist_ok=True)
        return pack(
            way.content,
            digest,
            installed.tree,
            code,
            installed.magic,
            order,
            after,
            way.trace.imports,
            into,
            self._job.level,
        )

    def _provenance(self, way: _Pin, interpreter: Interpreter | None) -> dict[str, Any]:
        assert way.wheel is not None
        assert way.trace is not None
        limits = {"install": self._job.limits.install, "trace": self._job.limits.trace}
        if way.build:
            limits["build"] = self._job.limits.build
        return provenance.record(
            way.wheel,
            way.whence,
            self._job.sandbox,
            limits,
            provenance.tools(self._job.sandbox, interpreter, self._job.level),
            {
                "failed": dict(list(way.trace.failed.items())[:_MOST_RECORDED]),
                "notes": list(way.trace.notes[:_MOST_RECORDED]),
            },
            way.build,
        )

    def _each(self, stage: str, ways: Sequence[_Pin], work: Callable[[_Pin], Iterable[str] | None]) -> None:
        """Run a stage for every pin; all failures together. What ``work`` returns are notes."""
        if not ways:
            return
        self._report.stage(stage, len(ways))
        running: dict[Future[Iterable[str] | None], _Pin] = {
            self._pool.submit(work, way): way for way in ways
        }
        errors: dict[Pin, str] = {}
        try:
            for done in as_completed(running):
                way = running[done]
                try:
                    self._notes(way, list(done.result() or ()))
                except (CloudImportError, OSError) as error:
                    errors[way.pin] = _named(way, error)
                self._report.step(str(way.pin))
        except BaseException:  # interrupted: what has not begun shall not begin, what runs shall end
            for future in running:
                future.cancel()
            stop_all()
            raise
        if errors:
            raise PublishError("\n".join(errors[way.pin] for way in ways if way.pin in errors))

    def _notes(self, way: _Pin, notes: Sequence[str]) -> None:
        more = [f"and {len(notes) - _MOST_NOTES} more notes"] if len(notes) > _MOST_NOTES else []
        for note in (*notes[:_MOST_NOTES], *more):
            self._report.note(note if note.startswith(f"{way.pin}:") else f"{way.pin}: {note}")


def _named(way: _Pin, error: Exception) -> str:
    text = str(error)
    return text if str(way.pin) in text else f"{way.requirement.where}: {way.pin}: {text}"


def _without_source(installed: Installed, target: Target) -> Installed:
    """Return an installed tree with bytecode in place of its sources. Raises CloudImportError."""
    if installed.code is None:
        raise ConfigurationError(
            f"--bytecode-only needs an interpreter of {target} on this machine to compile with: "
            f"'uv python install {target.python[0]}.{target.python[1]}'"
        )
    notes = strip(installed.tree, installed.code, installed.magic, installed.notes)
    return Installed(installed.tree, None, "", tuple(notes))


def _scan(way: _Pin, target: Target, notes: list[str]) -> Content:
    from shelf_tools.scan import scan

    assert way.installed is not None
    return scan(way.installed.tree, way.pin, target, notes.append)


def top_level(content: Content, target: Target) -> list[str]:
    """Return the names to import for a trace: top-level modules, or the packages of namespace folders."""
    rows = modules([file.path for file in content.files], target)
    stems = {stem for stem, _, _ in rows}
    packages = {stem for stem, kind, _ in rows if kind in "pfq"}
    names = [stem for stem in stems if "/" not in stem]
    for package in packages:
        above = [package[:at] for at, character in enumerate(package) if character == "/"]
        # Below a namespace folder: a package none of whose parents is a package.
        if above and packages.isdisjoint(above):
            names.append(package)
    dotted = sorted(name.replace("/", ".") for name in names)
    return [name for name in dotted if all(part.isidentifier() for part in name.split("."))]


#: Parts of a module's name below which nothing is that programs import.
_NOT_INNER = frozenset(("tests", "conftest", "setup", "benchmarks", "examples", "docs"))


def inner_modules(content: Content, target: Target, tops: Sequence[str]) -> list[str]:
    """Return the modules that a program may import below those of ``top_level``, the outer ones first."""
    rows = modules([file.path for file in content.files], target)
    names = [stem.replace("/", ".") for stem, _, _ in rows]
    found = [
        (len(parts), name)
        for name, parts in ((name, name.split(".")) for name in names)
        if all(part.isidentifier() and part[0] != "_" for part in parts)
        and _NOT_INNER.isdisjoint(parts)
        and any(name.startswith(f"{top}.") for top in tops)
    ]
    return [name for _, name in sorted(found)]


def _closure(way: _Pin, by_name: Mapping[str, _Pin]) -> list[str]:
    """Return names of what a pin depends on, of those in the list; every extra counts as wanted."""
    found: dict[str, None] = {}
    queue = [way]
    for current in queue:
        for text in current.known.requires:
            try:
                name = normalise_name(Dependency(text).name)
            except (ValueError, RecursionError, ConfigurationError):  # as check notes
                continue
            if name in by_name and name not in found and name != way.pin.name:
                found[name] = None
                queue.append(by_name[name])
    return list(found)


def _mounted(installed: Installed, interpreter: Interpreter | None) -> tuple[Path, Path | None]:
    """Return (tree, code) as a trace takes them: bytecode only if the interpreter can load it."""
    fits = interpreter is not None and installed.magic == interpreter.magic
    return installed.tree, installed.code if fits else None
