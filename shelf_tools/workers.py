"""Where a publish's tasks run: threads, processes of this machine, or a Dask cluster.

A task is a module's function with picklable arguments, harmless when it runs twice: one whose worker dies
is run again on another. What is behind it all is a ``concurrent.futures`` executor, or what Dask has instead.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol, TypeVar

from cloudimport import __version__
from cloudimport.errors import CloudImportError, ConfigurationError
from shelf_tools.process import stop_all

KINDS = ("processes", "threads")
_DASK = "dask="
#: How often workers may die while a task runs until it is given up: as Dask's ``allowed-failures``.
_DEATHS = 3
#: Seconds for a Dask scheduler to answer, and for a first worker to be there.
_PATIENCE = 15

K = TypeVar("K")


class WorkerError(CloudImportError):
    """Workers die, or cannot be had; the text says what to do."""


def version() -> str:
    """Return what workers and the curator have to have in common: what they say to each other is pickled."""
    return f"cloudimport {__version__}, Python {sys.version_info[0]}.{sys.version_info[1]}"


class Ran(NamedTuple):
    """What a task returned, and the name of the worker that it ran on ("" if they are all alike)."""

    value: Any
    worker: str


class Workers(Protocol):
    """Runs tasks. Used from one thread. ``shares_files``: workers see this process's files.

    ``parallel``: how many tasks run at a time.
    """

    shares_files: bool
    parallel: int

    def each(
        self,
        name: str,
        function: Callable[..., Any],
        tasks: Mapping[K, tuple[Any, ...]],
        prefer: Mapping[K, str] | None = None,
    ) -> Iterator[tuple[K, Ran]]:
        """Run ``function`` on the arguments of each task; yield results as they come.

        Tasks begin in their order; ``prefer`` names workers that are best for some. What a function raises is
        raised; of another machine's worker as a WorkerError that names it and the task. Raises WorkerError
        when workers die again and again. When it is not read to its end, what has not begun does not begin.
        """
        ...

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Run a function once on every worker; return what it returned by the worker's name.

        Workers that are all alike are asked once; one that is lost meanwhile is left out. For one that has
        another version, or cannot run it, there is a WorkerError, whose text says which and why. Raises
        WorkerError if none is left.
        """
        ...

    def stop(self) -> None:
        """End what runs, as far as it is this machine's, and wait for that: when a publish is interrupted."""
        ...

    def close(self) -> None:
        """End the workers that were made for this."""
        ...


def check_kind(text: str) -> str:
    """Return ``text`` if it names workers. Raises ConfigurationError."""
    if text in KINDS or (text.startswith(_DASK) and "://" in text):
        return text
    raise ConfigurationError(f"{text!r} is no executor: write {', '.join(KINDS)} or dask=tcp://host:8786")


def open_workers(kind: str, jobs: int) -> Workers:
    """Return workers: ``threads``, ``processes`` (so many ``jobs``) or ``dask=ADDRESS``.

    Raises ConfigurationError, and WorkerError if a cluster does not answer.
    """
    check_kind(kind)
    if kind.startswith(_DASK):
        return _Cluster(kind.removeprefix(_DASK))
    return _Pool(kind, max(1, jobs))


class _Pool:
    """Threads of this process, or processes of this machine, made when they are first needed."""

    shares_files = True

    def __init__(self, kind: str, jobs: int) -> None:
        self._kind, self.parallel = kind, jobs
        self._executor: Executor | None = None
        self._hold: Connection | None = None

    def each(
        self,
        name: str,
        function: Callable[..., Any],
        tasks: Mapping[K, tuple[Any, ...]],
        prefer: Mapping[K, str] | None = None,
    ) -> Iterator[tuple[K, Ran]]:
        """See ``Workers.each``."""
        waiting, deaths = dict(tasks), 0
        while waiting:
            executor = self._executor = self._executor or self._make()
            running: dict[Future[Any], K] = {}
            try:
                for key, arguments in waiting.items():
                    running[executor.submit(function, *arguments)] = key
                for future in as_completed(running):
                    value = future.result()
                    del waiting[running[future]]
                    yield running[future], Ran(value, "")
            except BrokenProcessPool:
                # All that ran or waited is lost, whoever died: it is run again, by new processes.
                deaths += 1
                self.close()
                if deaths > _DEATHS:
                    raise WorkerError(
                        f"{name}: processes that work on {_some(waiting)} were killed {deaths} times (by the "
                        "kernel, if memory ran out): take fewer at a time (--jobs)"
                    ) from None
            finally:
                for future in running:
                    future.cancel()

    def _make(self) -> Executor:
        if self._kind == "threads":
            return ThreadPoolExecutor(self.parallel, "publish")
        # Spawned: a fork would inherit the locks that other threads hold, and descriptors of the shelf.
        context = multiprocessing.get_context("spawn")
        held, self._hold = context.Pipe(duplex=False)
        return ProcessPoolExecutor(self.parallel, context, _on_leash, (held,))

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """See ``Workers.everywhere``: this process knows what they know."""
        return {"": function(*arguments)}

    def stop(self) -> None:
        """End the processes and what they have started; threads find theirs killed."""
        if self._hold is not None:
            self._hold.close()
        stop_all()
        self.close()

    def close(self) -> None:
        """Wait for what runs; nothing else begins."""
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
        if self._hold is not None:
            self._hold.close()
        self._executor = self._hold = None


def _some(keys: Mapping[K, Any]) -> str:
    names = [str(key) for key in keys]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _on_leash(held: Connection) -> None:
    """Have a worker process end, with all that it has started, when the one that made it closes or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's group: the one that made it decides

    def watch() -> None:
        with contextlib.suppress(EOFError, OSError):
            held.recv_bytes()
        os._exit(1)  # what runs in sandboxes is on leashes of its own (``process``)

    threading.Thread(target=watch, name="leash", daemon=True).start()


class _Cluster:
    """A Dask cluster that somebody runs: workers of other machines, with no file in common."""

    shares_files = False

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError:
            raise ConfigurationError(
                f"--executor {_DASK}{address} needs distributed: pip install 'cloudimport[dask]'"
            ) from None
        self._dask: Any = distributed
        self._address = address
        try:
            self._client: Any = self._dask.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as error:
            raise WorkerError(f"no Dask scheduler answers at {address}: {_line(error)}") from error
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            self.close()
            raise WorkerError(
                f"the Dask cluster at {address} has no workers: start some with 'dask worker {address}'"
            ) from None
        self.parallel = sum(self._client.nthreads().values())

    def each(
        self,
        name: str,
        function: Callable[..., Any],
        tasks: Mapping[K, tuple[Any, ...]],
        prefer: Mapping[K, str] | None = None,
    ) -> Iterator[tuple[K, Ran]]:
        """See ``Workers.each``. Dask runs a task again when its worker dies."""
        running: dict[Any, K] = {}
        try:
            for priority, (key, arguments) in enumerate(tasks.items()):
                worker = (prefer or {}).get(key, "")
                where = {"workers": [worker], "allow_other_workers": True} if worker else {}
                future = self._client.submit(
                    _located, version(), function, arguments, pure=False, priority=-priority, **where
                )
                running[future] = key
            for future in self._dask.as_completed(running, loop=self._client.loop):
                yield running[future], Ran(*self._result(name, future, running[future]))
        finally:
            self._client.cancel(list(running))  # one that runs goes on, to its end or until it is released

    def _result(self, name: str, future: Any, key: object) -> tuple[Any, str]:
        try:
            found: tuple[Any, str] = future.result()
            return found
        except self._dask.KilledWorker as error:
            raise WorkerError(
                f"{key}: {name}: {_DEATHS + 1} workers died of it, the last {error.last_worker.address}: it "
                f"may need more memory than they have, or they lack {version()}"
            ) from error
        except self._dask.client.FutureCancelledError as error:
            raise WorkerError(f"the Dask scheduler at {self._address} is gone: publish again") from error
        except WorkerError as error:  # which says on which worker
            raise WorkerError(f"{key}: {name}: {error}") from error
        except Exception as error:
            raise WorkerError(
                f"{key}: {name}: the Dask cluster at {self._address} cannot run it: {_named(error)}: "
                f"have its scheduler and its workers {version()}?"
            ) from error

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """See ``Workers.everywhere``."""
        own = version()
        # Asked first: what is pickled, and comes back, may be something else in another version.
        found = self._run(None, version)
        fit = [name for name, one in found.items() if one == own]
        for name, one in found.items():
            if isinstance(one, str):
                found[name] = WorkerError(f"worker {name} {_other(one, own)}")
        for name in fit:
            del found[name]
        if fit:
            found |= self._run(fit, function, *arguments)
        if not found:
            raise WorkerError(f"no worker of the Dask cluster at {self._address} answers: publish again")
        return found

    def _run(
        self, workers: list[str] | None, function: Callable[..., Any], *arguments: Any
    ) -> dict[str, Any]:
        """Run a function on workers, None for all. Those to which the connection breaks are left out."""
        found = self._client.run(function, *arguments, workers=workers, on_error="return")
        return {
            name: WorkerError(f"worker {name}: {_named(one)}: install {version()} there, with what it needs")
            if isinstance(one, Exception)
            else one
            for name, one in found.items()
            if not isinstance(one, OSError)
        }

    def stop(self) -> None:
        """Nothing here: tasks that run on a cluster go on to their end."""

    def close(self) -> None:
        """Leave the cluster."""
        self._client.close()


def _located(wanted: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, str]:
    """Run a task on a Dask worker; return its result and the worker's address.

    ``wanted`` is the curator's version: a worker may have come when the others had been asked. Raises
    WorkerError, which names the worker, for whatever is raised.
    """
    from distributed import get_worker

    address = str(get_worker().address)
    if version() != wanted:
        raise WorkerError(f"worker {address} {_other(version(), wanted)}")
    try:
        return function(*arguments), address
    except Exception as error:
        raise WorkerError(f"worker {address}: {_named(error)}") from error


def _other(has: str, wanted: str) -> str:
    return f"has {has}, and here is {wanted}: install the same there"


def _named(error: Exception) -> str:
    """Return an error as one line with its type, but for one that Dask made of another's text."""
    return _line(error) if type(error) is Exception else f"{type(error).__name__}: {_line(error)}"


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
