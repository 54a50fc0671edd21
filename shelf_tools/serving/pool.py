"""Sandboxes kept warm: one for each request that runs, used again, ended when idle, worn out, outdated."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudimport.errors import CloudImportError
from shelf_tools.lambdabox.runtime_api import Answer
from shelf_tools.serving.instance import Instance, Outcome
from shelf_tools.serving.registry import Function

#: Seconds between two looks at sandboxes that run something; idle ones are looked at every so many looks.
_INTERVAL, _IDLE_LOOKS = 0.1, 10
#: Sandboxes that start at a time, for each processor: more make all of them slow.
_STARTING = 2


class ThrottledError(CloudImportError):
    """All sandboxes were busy for too long."""


@dataclass(frozen=True)
class Keeping:
    """How many sandboxes there may be, and how long one is kept.

    ``concurrency`` at once, of all functions; each for ``requests`` invocations, and ``idle`` seconds
    without one; a request waits ``patience`` seconds for one.
    """

    concurrency: int
    requests: int
    idle: float
    patience: float


class Pool:
    """Sandboxes by function. ``make`` makes a new one. May be used by many threads."""

    def __init__(self, keeping: Keeping, make: Callable[[Function], Instance]) -> None:
        self._keeping, self._make = keeping, make
        self._changed = threading.Condition()
        self._idle: list[Instance] = []
        self._busy: set[Instance] = set()
        self._beginning: list[str] = []
        self._starting = self._total = self._made = self._ended = 0
        self._closed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sandboxes", daemon=True)
        self._thread.start()

    def invoke(self, function: Function, event: bytes, headers: Mapping[str, str] | None = None) -> Outcome:
        """Run a function. Raises ThrottledError, and what ``make`` raises."""
        request_id = str(uuid.uuid4())
        instance, ended = self._take(function)
        try:
            if ended is not None:
                return Outcome(ended, request_id, b"")
            return instance.invoke(event, request_id, headers)
        finally:
            self._give_back(instance)

    def status(self) -> dict[str, list[dict[str, Any]]]:
        """Return what there is to tell of the sandboxes, by function."""
        with self._changed:
            both = [(one, "idle") for one in self._idle] + [(one, "busy") for one in self._busy]
        found: dict[str, list[dict[str, Any]]] = {}
        for one, state in both:
            found.setdefault(one.name, []).append({**one.status(), "state": state})
        return found

    def names(self) -> set[str]:
        """Return the names of functions that have a sandbox, or are about to."""
        with self._changed:
            return {*self._beginning, *(one.name for one in (*self._idle, *self._busy))}

    def counts(self) -> dict[str, int]:
        """Return how many sandboxes there are, were made, and have ended."""
        with self._changed:
            return {"sandboxes": self._total, "made": self._made, "ended": self._ended}

    def close(self) -> None:
        """End all sandboxes."""
        self._stop.set()
        with self._changed:
            self._closed = True
            left = [*self._idle, *self._busy]
            self._idle.clear()
            self._changed.notify_all()
        for one in left:
            one.stop()
        self._thread.join()

    def _take(self, function: Function) -> tuple[Instance, Answer | None]:
        """Return a sandbox for one request, and what its start has ended with, if it has."""
        until = time.monotonic() + self._keeping.patience
        while True:
            with self._changed:
                found, old, may_start = self._choose(function)
                if found is None and old is None and not may_start:
                    if self._closed or not self._changed.wait(until - time.monotonic()):
                        raise ThrottledError(
                            f"all {self._keeping.concurrency} sandboxes are busy: ask again, or give "
                            "'shelf serve' a larger --concurrency"
                        )
                    continue
            if old is not None:
                self._end(old)
            elif found is not None:
                return found, None
            else:
                return self._start(function)

    def _choose(self, function: Function) -> tuple[Instance | None, Instance | None, bool]:
        """Return a sandbox to use, or one to end first, or whether a new one may start. Under the lock."""
        for one in reversed(self._idle):
            if one.name == function.name:
                self._idle.remove(one)
                if one.stamp == function.stamp and not one.is_dead:
                    self._busy.add(one)
                    return one, None, False
                return None, one, False
        if self._starting >= _STARTING * (os.cpu_count() or 1) or self._closed:
            return None, None, False
        if self._total < self._keeping.concurrency:
            self._total += 1
            self._starting += 1
            self._beginning.append(function.name)
            return None, None, True
        if self._idle:
            return None, self._idle.pop(0), False
        return None, None, False

    def _start(self, function: Function) -> tuple[Instance, Answer | None]:
        instance = None
        try:
            instance = self._make(function)
            with self._changed:
                self._busy.add(instance)
                self._made += 1
                closed = self._closed
            if closed:
                instance.stop()
            return instance, instance.ready()
        finally:
            with self._changed:
                self._starting -= 1
                self._beginning.remove(function.name)
                self._total -= instance is None
                self._changed.notify_all()

    def _give_back(self, instance: Instance) -> None:
        with self._changed:
            self._busy.discard(instance)
            is_good = instance.served and not instance.is_dead and not self._closed
            if is_good and instance.served < self._keeping.requests:
                self._idle.append(instance)
                self._changed.notify_all()
                return
        self._end(instance)

    def _end(self, instance: Instance) -> None:
        instance.stop()
        with self._changed:
            self._total -= 1
            self._ended += 1
            self._changed.notify_all()

    def _watch(self) -> None:
        """Look at what runs, and end what has been idle for long."""
        looks = 0
        while not self._stop.wait(_INTERVAL):
            looks += 1
            with self._changed:
                busy, idle = list(self._busy), []
                if looks % _IDLE_LOOKS == 0:
                    now = time.monotonic()
                    idle = [one for one in self._idle if one.is_dead or now - one.used > self._keeping.idle]
                    self._idle = [one for one in self._idle if one not in idle]
            for one in busy:
                one.look()
            for one in idle:
                self._end(one)
