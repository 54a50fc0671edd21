"""A worker: the functions of a folder, their sandboxes and the cache tier that these share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudimport.errors import CloudImportError
from shelf_tools.lambdabox.box import Box
from shelf_tools.serving.instance import Instance, Outcome
from shelf_tools.serving.logs import prune
from shelf_tools.serving.pool import Keeping, Pool, ThrottledError
from shelf_tools.serving.preparing import Preparer, Sizes
from shelf_tools.serving.registry import Function, Registry
from shelf_tools.serving.tier import Tier

#: Asynchronous invocations that wait, at the most.
_WAITING = 1000
#: Sandboxes started between two looks at how many logs there are.
_PRUNE_EVERY = 50


@dataclass
class _Counts:
    invocations: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Plan:
    """What a worker is to be: its folders, where packages come from, and its limits."""

    functions: Path
    cache: Path
    logs: Path
    shelf: str
    environ: Mapping[str, str]
    sizes: Sizes
    keeping: Keeping
    tier_bytes: int
    pythons: Sequence[Path] = field(default=())
    #: Gets what a person should know.
    note: Callable[[str], None] = field(default=lambda _: None)


class Worker:
    """Runs functions. May be used by many threads; ``close`` ends all."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._registry = Registry(plan.functions)
        for folder in (plan.cache, plan.logs):
            folder.mkdir(parents=True, exist_ok=True)
        self._tier = Tier(plan.cache / "tier", plan.tier_bytes, self._running)
        self._preparer = Preparer(plan.cache, plan.shelf, plan.environ, plan.pythons, self._tier, plan.note)
        self._pool = Pool(plan.keeping, self._make)
        self._lock = threading.Lock()
        self._boxes: dict[str, tuple[object, Box]] = {}
        self._preparing: dict[str, threading.Lock] = {}
        self._counts: dict[str, _Counts] = {}
        self._waiting = 0
        self._began = time.time()
        self._made = 0

    def names(self) -> list[str]:
        """Return the names of all functions."""
        return self._registry.names()

    def find(self, name: str) -> Function:
        """Return a function as it stands. Raises UnknownFunctionError or ConfigurationError."""
        return self._registry.find(name)

    def invoke(self, name: str, event: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
        """Run a function. Raises UnknownFunctionError, ThrottledError, and why it has no sandbox."""
        function = self.find(name)
        counts = self._counts.setdefault(name, _Counts())
        try:
            outcome = self._pool.invoke(function, event, headers)
        except BaseException:
            self._count(counts, is_error=True)
            raise
        self._count(counts, is_error=outcome.answer.kind != "result")
        return outcome

    def later(self, name: str, event: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Run a function when there is a sandbox; what becomes of it stands in its log, or is noted.

        Raises ThrottledError if too many wait already.
        """
        with self._lock:
            if self._waiting >= _WAITING:
                raise ThrottledError(f"{_WAITING} asynchronous invocations wait already: ask again")
            self._waiting += 1
        threading.Thread(target=self._invoke_later, args=(name, event, headers), daemon=True).start()

    def status(self) -> dict[str, Any]:
        """Return what there is to tell, for JSON."""
        traffic, instances = self._tier.traffic(), self._pool.status()
        functions = {}
        for name in sorted({*self._registry.names(), *instances}):
            counts = self._counts.get(name, _Counts())
            functions[name] = {
                "invocations": counts.invocations,
                "errors": counts.errors,
                "instances": instances.get(name, []),
            }
        return {
            "up_seconds": round(time.time() - self._began, 3),
            "functions": functions,
            **self._pool.counts(),
            "waiting": self._waiting,
            "tier": traffic._asdict(),
            "memory_bytes": self.plan.sizes.memory_bytes,
            "tmp_bytes": self.plan.sizes.tmp_bytes,
            "timeout_seconds": self.plan.sizes.timeout,
            "concurrency": self.plan.keeping.concurrency,
        }

    def close(self) -> None:
        """End all sandboxes."""
        self._pool.close()
        self._tier.close()

    def _running(self) -> set[str]:
        return self._pool.names()

    def _make(self, function: Function) -> Instance:
        box = self._box(function)
        self._preparer.heed(function)
        self._made += 1
        if self._made % _PRUNE_EVERY == 1:
            prune(self.plan.logs)
        return Instance(box, self.plan.sizes, self.plan.logs, function.stamp)

    def _box(self, function: Function) -> Box:
        """Return a function's box, prepared once as long as its files, and the tier's, stay as they are."""
        with self._lock:
            preparing = self._preparing.setdefault(function.name, threading.Lock())
        with preparing:
            found = self._boxes.get(function.name)
            if found is None or found[0] != (function.stamp, self._tier.removed):
                box = self._preparer.box(function, self.plan.sizes)
                found = ((function.stamp, self._tier.removed), box)
                self._boxes[function.name] = found
            return found[1]

    def _invoke_later(self, name: str, event: bytes, headers: Mapping[str, str] | None) -> None:
        try:
            self.invoke(name, event, headers)
        except (CloudImportError, OSError) as error:
            # Nobody waits for an answer, and without a sandbox there is no log.
            self.plan.note(f"{name}: an asynchronous invocation was not run: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                self._waiting -= 1

    def _count(self, counts: _Counts, *, is_error: bool) -> None:
        with self._lock:
            counts.invocations += 1
            counts.errors += is_error
