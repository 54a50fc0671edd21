"""``shelf run``: functions of a file, settled against a shelf, run in their order, each by itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Protocol

from cloudimport.ids import Target, running_targets
from cloudimport.settings import Settings
from shelf_tools.running.calls import Plan
from shelf_tools.running.dag import Outcome, run_steps
from shelf_tools.running.depot import Depot
from shelf_tools.running.executing import Bounds, Ran, Sandboxes
from shelf_tools.running.functions import Program
from shelf_tools.running.remote import RemoteRunner
from shelf_tools.running.settling import Asked, Ready, Settler
from shelf_tools.workfolder import work_folder


class Listener(Protocol):
    """Who hears how it goes; called from several threads."""

    def note(self, text: str) -> None:
        """Hear a line for a person."""
        ...

    def printed(self, function: str, line: str) -> None:
        """Hear a line that a function has printed or logged."""
        ...

    def ran(self, function: str, ran: Ran) -> None:
        """Hear that a function has come to its end."""
        ...


class Job(NamedTuple):
    """How functions are run: the shelf (``said``: somebody said which), and where.

    ``remote`` is the name of a deployed runner, "" for sandboxes of this machine; ``environ`` what functions
    find in their environment besides; ``jobs`` how many run at once.
    """

    program: Program
    shelf: str
    said: bool
    settings: Settings
    bounds: Bounds = Bounds()
    environ: Mapping[str, str] = {}
    remote: str = ""
    endpoint: str = ""
    update: bool = False
    publish: bool = False
    jobs: int = 8


class Runner(Protocol):
    """Where functions run."""

    def run(self, name: str, ready: Ready | None, args: list[Any], kwargs: dict[str, Any]) -> Ran:
        """Run a function. Raises FunctionError, or another CloudImportError."""
        ...

    def stop(self) -> None:
        """End what runs."""
        ...


def record(job: Job, listener: Listener) -> list[Ready]:
    """Settle what all functions of a file need, for this interpreter; run none. Raises as ``run``."""
    depot = Depot(job.settings)
    with ExitStack() as stack:
        stack.enter_context(depot.held())
        settled = _settle(job, list(job.program.functions), running_targets(), depot, listener)
        stack.callback(settled.settler.close)
        return list(settled.ready.values())


def run(job: Job, plan: Plan, listener: Listener) -> Outcome:
    """Run what a plan has; return what became of each function.

    Before any runs, what they need is settled. Raises a CloudImportError or OSError.
    """
    depot = Depot(job.settings)
    with ExitStack() as stack:
        stack.enter_context(depot.held())
        where: Runner
        targets: Sequence[Target]
        if job.remote:
            remote = RemoteRunner(job.remote, job.endpoint, job.program, listener.printed)
            where, targets = remote, remote.targets()
        else:
            targets = running_targets()
        settled = _settle(job, plan.calls, targets, depot, listener)
        stack.callback(settled.settler.close)
        if not job.remote:
            needed = settled.settler.fill(list(settled.ready.values()))
            work = stack.enter_context(work_folder("run"))
            shown = stack.enter_context(work_folder("run", depot.folder.parent))  # links stay on a disk
            for digest, some in needed.items():
                depot.show(shown / digest, some)
            where = Sandboxes(job.program, job.bounds, work, shown, job.environ, listener.printed)

        def step(name: str, results: Mapping[str, Any]) -> Any:
            args, kwargs = plan.calls[name].filled(results)
            ran = where.run(name, settled.ready.get(job.program.functions[name].needs), args, kwargs)
            listener.ran(name, ran)
            return ran.value

        needs = {name: call.needs for name, call in plan.calls.items()}
        return run_steps(needs, step, where.stop, job.jobs)


class _Settled(NamedTuple):
    settler: Settler
    ready: dict[tuple[str, ...], Ready]


def _settle(
    job: Job, functions: Collection[str], targets: Sequence[Target], depot: Depot, listener: Listener
) -> _Settled:
    """Return an environment for each that functions need; the settler is the caller's to close."""
    chosen = [job.program.functions[name] for name in functions]
    needs = {one.needs: one.line for one in reversed(chosen) if one.needs}
    known = {one.needs for one in job.program.functions.values()}
    settler = Settler(job.shelf, job.said, job.settings, depot, listener.note)
    if not needs:
        return _Settled(settler, {})
    try:
        asked = Asked(job.program.path, needs, targets, known, job.update, job.publish)
        return _Settled(settler, settler.settle(asked))
    except BaseException:
        settler.close()
        raise
