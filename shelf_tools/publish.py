"""Publishing: pins -> fetch -> install -> scan -> check -> trace -> order and pack -> commit -> environment.

What each pin needs done is a task for a worker (``stages``, ``workers``); what is published already is not
done again. Looking, checking and pointing are done here; the environment index and the lockfile come last.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from packaging.requirements import Requirement as Dependency

from cloudimport.errors import AbsentError, CloudImportError, ConfigurationError
from cloudimport.format.content import Content
from cloudimport.format.layout import BuildPointer
from cloudimport.format.records import Ref, requirements_digest
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target, normalise_name
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools import check, pins, provenance
from shelf_tools.borrow import Donor, Names, best, borrow
from shelf_tools.builds import check_form, point, read_build, read_provenance, targets_of
from shelf_tools.completing import advice, complete
from shelf_tools.environments import open_shelf, publish_environment, write_lock
from shelf_tools.errand import Errand, sandbox_called, without_users
from shelf_tools.fetch import BATCH, Wheel
from shelf_tools.indexing import Built, check_together
from shelf_tools.inputs import read_input
from shelf_tools.interpreters import check_given
from shelf_tools.leases import Lease, holding
from shelf_tools.limits import StageLimits
from shelf_tools.pack import LEVEL
from shelf_tools.recipes import NAME as RECIPES
from shelf_tools.recipes import Recipes, read_recipes
from shelf_tools.signing import Signing
from shelf_tools.sourcing import Sourcing
from shelf_tools.stages import Facts, Failed, Finished, Prepared, Task, finish, prepare, survey
from shelf_tools.status import refuse_yanked
from shelf_tools.store import Store, open_store
from shelf_tools.trees import release
from shelf_tools.trust import check_signed
from shelf_tools.workers import KINDS, WorkerError, Workers, open_workers
from shelf_tools.workfolder import work_folder

#: Notes that are handed on for one pin and stage: a hostile wheel could have one for each of its files.
_MOST_NOTES = 20
#: Tasks for each worker at the least, so that one that is late at the end is late by little.
_ROUNDS = 2
_NOT_SENT = (
    "user names and passwords in the list's URLs are not sent to the workers: have them in .netrc or a "
    "keyring there, or write ${NAME} in the URL and set it where they are started"
)


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
    ``require_attestation`` those whose wheels must be attested (PEP 740), or ``all``. ``executor`` is where
    the work is done (``workers.open_workers``); ``pythons`` are interpreters to compile and trace with.
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
    allow_yanked: bool = False
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    add_missing: bool = False
    limits: StageLimits = field(default_factory=StageLimits)
    allow_sdist: frozenset[str] = frozenset()
    signing: Signing = field(default_factory=Signing)
    bytecode_only: tuple[str, ...] = ()
    require_attestation: tuple[str, ...] = ()
    executor: str = KINDS[0]
    pythons: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What a target came to: the environment index, and pins that were built or were there.

    ``seconds``: wall time of all workers together by what they did.
    """

    target: Target
    index: Ref
    built: tuple[Pin, ...]
    present: tuple[Pin, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)


class PublishError(CloudImportError):
    """Some pins could not be published; one line each."""


@dataclass
class _Pin:
    """One pin on its way."""

    requirement: Requirement
    wheel: Wheel | None = None
    whence: provenance.Whence = field(default_factory=provenance.Whence)
    content: Content | None = None
    built: Built | None = None
    donor: Donor | None = None
    worker: str = ""

    @property
    def pin(self) -> Pin:
        return self.requirement.pin

    @property
    def known(self) -> Content:
        """The content, installed just now or read from the shelf."""
        content = self.built.content if self.built else self.content
        assert content is not None
        return content

    @property
    def exact(self) -> Requirement:
        """The requirement of this very wheel: one that is fetched again has to be the same.

        One that is built again is never sure to be; its source is.
        """
        if self.wheel is None:
            return self.requirement
        made_of = self.wheel.build["sdist"]["sha256"] if self.wheel.build else self.wheel.sha256
        return self.requirement._replace(hashes=(f"sha256:{made_of}",))


@dataclass
class _Run:
    """What all targets of a publish share. ``made``: builds by pin, of the targets that are done.

    ``sent`` is the list as workers get it.
    """

    job: Job
    listed: pins.Listed
    sent: pins.Listed
    sourceless: frozenset[Pin]
    examiner: provenance.Examiner
    recipes: Recipes
    store: Store
    source: Source
    lease: Lease
    pool: ThreadPoolExecutor
    workers: Workers
    report: Reporter
    made: dict[Pin, list[Built]] = field(default_factory=dict)


def publish(job: Job, report: Reporter) -> list[Outcome]:
    """Publish a requirements file for every target. Raises CloudImportError, a stage's errors together."""
    listed = read_input(job.requirements, job.extras, job.groups, job.environ, report.note)
    if not listed.requirements:
        raise ConfigurationError(f"{job.requirements} has no requirements")
    if job.executor in KINDS:  # else they are the workers', who say it
        check_given(job.pythons, job.targets)
    if job.add_missing:
        listed = complete(job.requirements, listed, job.targets, job.environ, report.note, job.allow_sdist)
    known = [requirement.pin for requirement in listed.requirements]
    sourceless = pins.select(job.bytecode_only, known, "--bytecode-only")
    required = provenance.required(job.require_attestation, known)
    examiner = provenance.Examiner(job.environ, listed.options, required)
    recipes = _recipes(job)
    lines = [requirement.line for requirement in listed.requirements]
    store = open_store(job.shelf, job.environ)
    source = open_source(job.shelf, SourceConfig(environ=job.environ))
    try:
        open_shelf(store)
        wanted = [(one, str(t)) for t in job.targets for one in pins.wanted(listed, t)]
        refuse_yanked(store, (one for one, _ in wanted), job.allow_yanked, report.note)
        builds = [(one.pin, target) for one, target in wanted]
        with (
            holding(store, builds, [requirements_digest(lines)], report.note) as lease,
            closing(open_workers(job.executor, job.jobs)) as workers,
            ThreadPoolExecutor(max(1, job.jobs), "publish") as pool,
        ):
            sent = listed if workers.shares_files else without_users(listed)
            if sent != listed:
                report.note(_NOT_SENT)
            run = _Run(
                job, listed, sent, sourceless, examiner, recipes, store, source, lease, pool, workers, report
            )
            outcomes = {target: _Target(run, target).run() for target in _traced_first(run)}
    finally:
        source.close()
    indexes = {str(one.target): one.index for one in outcomes.values()}
    write_lock(job.lock, job.lock_shelf, lines, indexes, job.signing)
    return [outcomes[target] for target in job.targets]


def _traced_first(run: _Run) -> list[Target]:
    """Return the targets, those first whose packages workers can import: the others take their order."""
    targets = run.job.targets
    if len(targets) < 2:
        return list(targets)

    def is_traced(target: Target) -> bool:
        answers = run.workers.everywhere(survey, _errand(run, target), targets)
        return all(isinstance(one, Facts) and one.traces for one in answers.values())

    return sorted(targets, key=lambda target: not is_traced(target))


def _errand(run: _Run, target: Target, work: Path | None = None) -> Errand:
    """Return what all tasks for a target have in common; ``work`` is a folder, for those that see it."""
    job, is_shared = run.job, run.workers.shares_files
    return Errand(
        secrets.token_hex(8),
        target,
        job.shelf,
        job.sandbox,
        job.level,
        job.limits,
        run.sent.options,
        dict(run.sent.links),
        job.allow_sdist,
        run.sourceless,
        job.pythons,
        job.environ if is_shared else None,
        work if is_shared else None,
    )


def _recipes(job: Job) -> Recipes:
    beside = job.requirements.parent / RECIPES
    if job.recipes is None and not beside.is_file():
        return {}
    return read_recipes(job.recipes or beside)


class _Target:
    """Publishing for one target."""

    def __init__(self, run: _Run, target: Target) -> None:
        self._run, self._job, self._target = run, run.job, target
        self._report, self._workers = run.report, run.workers
        self._wanted = pins.wanted(run.listed, target)
        self._seconds: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Go through all stages."""
        ways = [_Pin(requirement) for requirement in self._wanted]
        self._each("look", ways, self._look)
        missing = [way for way in ways if way.built is None]
        if missing:
            with work_folder("publish") as work:
                self._build(work, ways, missing)
        else:
            self._check(ways)
        builds = [way.built for way in ways if way.built]
        lines = [requirement.line for requirement in self._run.listed.requirements]
        store, source = self._run.store, self._run.source
        signers = self._job.signing.signers
        self._run.lease.keep()
        ref = publish_environment(store, source, lines, self._target, builds, self._report.note, signers)
        for way in ways:
            if way.built:
                self._run.made.setdefault(way.pin, []).append(way.built)
        there = tuple(way.pin for way in ways if way not in missing)
        return Outcome(self._target, ref, tuple(way.pin for way in missing), there, dict(self._seconds))

    def _look(self, way: _Pin) -> list[str]:
        source, examiner = self._run.source, self._run.examiner
        way.built = read_build(source, way.pin, str(self._target))
        signed = self._check_signed(way.built)
        if way.built is None:
            return []
        if way.requirement.hashes or examiner.is_required(way.pin):
            record = read_provenance(source, way.pin, str(self._target), signed)
            provenance.check_wheel(record, way.requirement, self._target)
            examiner.check_published(way.pin, str(self._target), record)
        return check_form(way.built, way.pin in self._run.sourceless)

    def _check_signed(self, built: Built | None) -> BuildPointer | None:
        """Check that who signs the environment vouches for a build that others may have made.

        Returns the pointer that is signed, None if nobody signs.
        """
        if built and self._job.signing.signers:
            return check_signed(self._run.source, built, self._job.signing.trusted)
        return None

    def _build(self, work: Path, ways: Sequence[_Pin], missing: Sequence[_Pin]) -> None:
        errand = self._errand(work)
        try:
            if self._workers.shares_files:
                self._fetch(work / "wheels", missing)
                self._each("examine", missing, self._examine)
                self._prepare(errand, missing)
            else:  # they fetch and install what they do not have; nobody sees it before it is examined
                self._prepare(errand, missing)
                self._each("examine", missing, self._examine)
            self._check(ways)
            if not errand.traces:
                self._each("order", missing, self._find_donor)
                self._explain_order(errand, missing)
            self._finish(errand, ways, missing)
        finally:
            if not self._workers.shares_files:
                with suppress(WorkerError):
                    self._workers.everywhere(release, errand.run)

    def _errand(self, work: Path) -> Errand:
        """Return what all tasks have in common, with what the workers have found where they run."""
        errand = _errand(self._run, self._target, work)
        facts = agreed(self._workers.everywhere(survey, errand, self._job.targets))
        if not facts.magic:
            python = f"{self._target.python[0]}.{self._target.python[1]}"
            self._report.note(
                f"no interpreter for {self._target} was found ('uv python install {python}', or --python): "
                "packages are published without bytecode, and readers compile their source"
            )
        return replace(errand, magic=facts.magic, traces=facts.traces)

    def _fetch(self, into: Path, missing: Sequence[_Pin]) -> None:
        self._report.stage("fetch", len(missing))
        job, listed = self._job, self._run.listed
        sourcing = Sourcing(
            job.environ,
            listed.options,
            listed.links,
            job.jobs,
            job.allow_sdist,
            sandbox_called(job.sandbox),
            job.limits,
            self._report.note,
            job.pythons,
        )
        wanted = [way.requirement for way in missing]
        wheels = sourcing.wheels(wanted, self._target, into, lambda pin: self._report.step(str(pin)))
        for way in missing:
            way.wheel = wheels[way.pin]

    def _examine(self, way: _Pin) -> list[str]:
        assert way.wheel is not None
        way.whence, notes = self._run.examiner.examine(way.pin, way.wheel)
        return notes

    def _prepare(self, errand: Errand, missing: Sequence[_Pin]) -> None:
        def take(way: _Pin, done: Prepared, worker: str) -> Iterable[str]:
            way.wheel, way.content, way.worker = done.wheel, done.content, worker
            return done.notes

        # The large ones first: one that comes last would keep one worker busy and the others not.
        largest = sorted(missing, key=lambda way: -(way.wheel.size if way.wheel else 0))
        size = 1
        if not self._workers.shares_files:  # each fetches: as many with one pip as leaves all of them busy
            size = max(1, min(BATCH, len(missing) // (_ROUNDS * self._workers.parallel)))
        batches = [largest[at : at + size] for at in range(0, len(largest), size)]
        self._tasks(
            "install",
            prepare,
            [(ways, (errand, [(w.requirement, w.wheel) for w in ways])) for ways in batches],
            take,
        )

    def _check(self, ways: Sequence[_Pin]) -> None:
        found = check.check({way.pin: way.known for way in ways}, self._wanted, self._target)
        for note in (*found.notes, *advice(found, self._job.requirements, self._job.add_missing)):
            self._report.note(note)
        if found.missing:
            raise ConfigurationError(check.explain(found.missing))
        check_together(way.known for way in ways)

    def _find_donor(self, way: _Pin) -> None:
        """Find the build whose trace fits: of this publish's other targets, else of what is on the shelf."""
        ours = [Donor(built, True) for built in self._run.made.get(way.pin, ())]
        way.donor = best(ours, self._target)
        if (
            way.donor is not None
            and Target.parse(way.donor.built.content.target).python == self._target.python
        ):
            return
        known = {donor.built.content.target for donor in ours}
        theirs = []
        for target in targets_of(self._run.store, way.pin):
            if target != self._target and str(target) not in known:
                try:
                    built = read_build(self._run.source, way.pin, str(target))
                except CloudImportError:
                    continue  # damaged: it is of no use, and ``shelf verify`` is there to say so
                theirs += [Donor(built, False)] if built else []
        way.donor = best([*ours, *theirs], self._target)

    def _explain_order(self, errand: Errand, missing: Sequence[_Pin]) -> None:
        count = Counter(way.donor.traced if way.donor else "" for way in missing)
        static = count.pop("", 0)
        parts = [f"{number} ordered by their trace for {target}" for target, number in sorted(count.items())]
        parts += [f"{static} in static order"] if static else []
        where = "on this machine" if self._workers.shares_files else "where the workers run"
        why = where if errand.magic else "without an interpreter"
        self._report.note(f"packages for {self._target} cannot be imported {why}: {', '.join(parts)}")

    def _finish(self, errand: Errand, ways: Sequence[_Pin], missing: Sequence[_Pin]) -> None:
        by_name = {way.pin.name: way for way in ways}
        names: dict[str, Names] = {}

        def names_of(name: str) -> Names | None:
            if name not in names and name in by_name:
                names[name] = Names(file.path for file in by_name[name].known.files)
            return names.get(name)

        def task_of(way: _Pin) -> Task:
            assert way.wheel is not None
            needs = _closure(way, by_name) if errand.traces else []
            return Task(
                way.exact,
                way.wheel,
                way.whence,
                way.known,
                tuple(by_name[name].exact for name in needs),
                self._run.recipes.get(way.pin.name, ()),
                borrow(way.donor, way.pin, names_of) if way.donor else None,
                way.donor.traced if way.donor else "",
            )

        def take(way: _Pin, done: Finished, worker: str) -> Iterable[str]:
            way.built = self._point(done, worker)
            return done.notes

        def place(pair: tuple[_Pin, Task]) -> tuple[int, int]:
            # Where trees are not shared, what others depend on comes first: they take it from the shelf then.
            way, its = pair
            needs = 0 if self._workers.shares_files else len(its.needs)
            return needs, -sum(file.size for file in way.known.files)

        tasks = sorted(((way, task_of(way)) for way in missing), key=place)
        self._tasks("publish", finish, [([way], (errand, its)) for way, its in tasks], take)

    def _point(self, done: Finished, worker: str) -> Built:
        """Make visible what a worker has uploaded; it may mean another shelf by the same name."""
        self._run.lease.keep()
        store, source, content = self._run.store, self._run.source, done.built.content
        lost = (
            f"what {worker or 'this machine'} uploaded is not on {store.url}: does it use another endpoint?"
        )
        if done.pointer is None:
            found = read_build(source, Pin(content.name, content.version), content.target)
            if found is None:
                raise ConfigurationError(lost)
        else:
            try:
                found = point(store, source, done.built, done.pointer, self._job.signing.signers)
            except AbsentError as error:
                raise ConfigurationError(lost) from error
        self._check_signed(found)
        return found

    def _tasks(
        self,
        stage: str,
        function: Callable[..., Any],
        tasks: Sequence[tuple[Sequence[_Pin], tuple[Any, ...]]],
        take: Callable[[_Pin, Any, str], Iterable[str]],
    ) -> None:
        """Have workers run tasks, each for some pins; all failures together.

        ``take`` gets each pin's result, and the name of the worker; what it returns are notes.
        """
        self._report.stage(stage, sum(len(ways) for ways, _ in tasks))
        named = {", ".join(str(way.pin) for way in ways): (ways, arguments) for ways, arguments in tasks}
        arguments = {name: arguments for name, (_, arguments) in named.items()}
        prefer = {name: ways[0].worker for name, (ways, _) in named.items() if ways[0].worker}
        errors: dict[Pin, str] = {}
        try:
            for name, ran in self._workers.each(stage, function, arguments, prefer):
                ways = named[name][0]
                for way, value in zip(ways, ran.value, strict=True):
                    try:
                        self._take(way, value, ran.worker, take)
                    except (CloudImportError, OSError) as error:
                        errors[way.pin] = _named(way, error)
                    self._report.step(str(way.pin))
        except BaseException:  # what runs works in folders that are about to go
            self._workers.stop()
            raise
        _raise(errors, [way for ways, _ in tasks for way in ways])

    def _take(
        self, way: _Pin, value: Any, worker: str, take: Callable[[_Pin, Any, str], Iterable[str]]
    ) -> None:
        if isinstance(value, Failed):
            raise PublishError(value.text)
        self._notes(way, list(take(way, value, worker)))
        self._seconds.update(value.seconds)

    def _each(self, stage: str, ways: Sequence[_Pin], work: Callable[[_Pin], Iterable[str] | None]) -> None:
        """Do for every pin, in threads, what is mostly waiting for the shelf; all failures together.

        What ``work`` returns are notes.
        """
        self._report.stage(stage, len(ways))
        running: dict[Future[Iterable[str] | None], _Pin] = {
            self._run.pool.submit(work, way): way for way in ways
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
        except BaseException:  # interrupted: what has not begun shall not begin
            for future in running:
                future.cancel()
            raise
        _raise(errors, ways)

    def _notes(self, way: _Pin, notes: Sequence[str]) -> None:
        more = [f"and {len(notes) - _MOST_NOTES} more notes"] if len(notes) > _MOST_NOTES else []
        for note in (*notes[:_MOST_NOTES], *more):
            self._report.note(note if note.startswith(f"{way.pin}:") else f"{way.pin}: {note}")


def agreed(answers: Mapping[str, Facts | WorkerError]) -> Facts:
    """Return what workers have in common. Raises ConfigurationError, a line for each that does not fit."""
    errors = [str(one) for one in answers.values() if isinstance(one, WorkerError)]
    facts = {name: one for name, one in answers.items() if isinstance(one, Facts)}
    errors += [
        f"worker {name}: {one.problem}" if name else one.problem for name, one in facts.items() if one.problem
    ]
    first = next(iter(facts.values()), Facts("", False))
    errors += [
        f"worker {name} has another interpreter, or another machine, than the others: bytecode and traces "
        "would depend on where a package went"
        for name, one in facts.items()
        if one[:2] != first[:2] and not one.problem and not first.problem
    ]
    if errors:
        raise ConfigurationError("\n".join(errors))
    return first


def _raise(errors: Mapping[Pin, str], ways: Iterable[_Pin]) -> None:
    if errors:
        raise PublishError("\n".join(errors[way.pin] for way in ways if way.pin in errors))


def _named(way: _Pin, error: Exception) -> str:
    text = str(error)
    return text if str(way.pin) in text else f"{way.requirement.where}: {way.pin}: {text}"


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
