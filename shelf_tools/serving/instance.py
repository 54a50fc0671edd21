"""One sandbox of a function: started, invoked, frozen meanwhile, watched, ended."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from shelf_tools import warden
from shelf_tools.lambdabox.box import MIB, Box
from shelf_tools.lambdabox.runtime_api import INIT_SECONDS, Answer, RuntimeApi
from shelf_tools.serving.logs import Log
from shelf_tools.serving.preparing import Sizes

#: How often processes are looked for that come while others are being stopped.
_ROUNDS = 4
_numbers = itertools.count(1)


class Outcome(NamedTuple):
    """An answer, the id of its request, and the last of what was written meanwhile."""

    answer: Answer
    request_id: str
    tail: bytes


class Instance:
    """A sandbox that runs. One thread at a time invokes it; ``look`` and ``stop`` may come from others."""

    def __init__(self, box: Box, sizes: Sizes, logs: Path, stamp: object) -> None:
        self.name, self.stamp, self.sizes = box.name, stamp, sizes
        self.id = f"{box.name}-{int(time.time())}-{os.getpid()}-{next(_numbers)}"
        self.served = 0
        self.began = self.used = time.monotonic()
        self.init_seconds = 0.0
        self.peak = warden.Held(0, 0, 0)
        self._is_stopped = False
        self._reported_init = False
        self._lock = threading.Lock()
        self._log = Log(logs / f"{self.id}.log")
        self._api = RuntimeApi(box.name, guarded=True)
        try:
            log = self._log.end
            self._process = replace(box, api=self._api.address).start(stdout=log, stderr=log)
        except BaseException:
            self._api.close()
            raise
        finally:
            self._log.started()
        self._api.watch(self._process)

    @property
    def log(self) -> Path:
        """The file with what the sandbox writes."""
        return self._log.path

    @property
    def is_dead(self) -> bool:
        """Whether it was ended, or has ended by itself."""
        return self._is_stopped or self._api.has_ended

    @property
    def pid(self) -> int:
        """The process that leads it, as this machine counts."""
        return self._process.pid

    def ready(self) -> Answer | None:
        """Wait for the end of the init phase; None, or what it ended with."""
        # As on AWS: what takes longer than the init phase may has the invocation's time besides.
        ended = self._api.wait_ready(INIT_SECONDS + self.sizes.timeout)
        self.init_seconds = time.monotonic() - self.began
        return ended

    def invoke(self, event: bytes, request_id: str, headers: Mapping[str, str] | None = None) -> Outcome:
        """Invoke the function. What leaves the sandbox unusable ends it (``is_dead``)."""
        self._log.begin()
        self._log.write(f"START RequestId: {request_id} Version: $LATEST")
        self._signal(signal.SIGCONT)
        answer = self._api.invoke(
            event, timeout=self.sizes.timeout, request_id=request_id, headers=headers, patience=INIT_SECONDS
        )
        self.served += 1
        self.used = time.monotonic()
        if answer.kind in ("result", "error"):
            self._look()
            self._signal(signal.SIGSTOP)
        else:
            self.stop()
        self._log.settle()
        self._report(answer, request_id)
        return Outcome(answer, request_id, self._log.tail())

    def look(self) -> None:
        """See what the sandbox uses, and end it if that is too much: then it was killed, as on AWS."""
        found = self._look()
        limit = self.sizes.memory_bytes
        if found.own > limit or found.own + found.shared > limit + self.sizes.tmp_bytes:
            self._log.write(f"{self.id} uses more than {limit // MIB} MB of memory and is killed")
            self.stop("Runtime exited with error: signal: killed")

    def stop(self, reason: str = "the sandbox was ended") -> None:
        """End it; nothing is left. May be called again."""
        with self._lock:
            first, self._is_stopped = not self._is_stopped, True
        if first:
            self._api.died(reason)
            self._process.stop()
            self._api.close()

    def status(self) -> dict[str, Any]:
        """Return what there is to tell, for JSON."""
        now = time.monotonic()
        return {
            "id": self.id,
            "pid": self.pid,
            "served": self.served,
            "age_seconds": round(now - self.began, 3),
            "idle_seconds": round(now - self.used, 3),
            "init_seconds": round(self.init_seconds, 3),
            "memory_bytes": self.peak.own,
            "shared_memory_bytes": self.peak.shared,
            "log": str(self.log),
        }

    def _look(self) -> warden.Held:
        found = warden.held(self.pid, self.sizes.memory_bytes) if not self.is_dead else warden.Held(0, 0, 0)
        self.peak = warden.Held(*map(max, self.peak, found))
        return found

    def _signal(self, number: signal.Signals) -> None:
        """Stop or continue what runs inside. Between invocations nothing does, as on AWS."""
        done: set[int] = set()
        for _ in range(_ROUNDS):
            # The first two are bwrap's own: one waits for the other, that one for the rest.
            new = set(warden.descendants(self.pid)[2:]) - done
            if not new or self.is_dead:
                return
            for pid in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            done |= new

    def _report(self, answer: Answer, request_id: str) -> None:
        if answer.kind not in ("result", "error"):
            with contextlib.suppress(ValueError):
                self._log.write(f"RequestId: {request_id} {json.loads(answer.body)['errorMessage']}")
        used = answer.seconds * 1000
        line = (
            f"REPORT RequestId: {request_id}\tDuration: {used:.2f} ms\tBilled Duration: {-int(-used // 1)} ms"
        )
        line += (
            f"\tMemory Size: {self.sizes.memory_bytes // MIB} MB\tMax Memory Used: {self.peak.own // MIB} MB"
        )
        if not self._reported_init:
            line += f"\tInit Duration: {self.init_seconds * 1000:.2f} ms"
            self._reported_init = True
        self._log.write(f"END RequestId: {request_id}")
        self._log.write(line)
