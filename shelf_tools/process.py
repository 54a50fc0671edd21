"""The one runner of subprocesses: a timeout, bounded capture, and the whole process group killed at the end.

The group is killed too when this process dies, whatever it dies of (see ``leash``). Standard input is
fed by ``communicate()`` with a timeout; both outputs are drained by threads that keep a bounded part
and throw the rest away, so a child that writes without end neither blocks nor fills the memory.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import IO, BinaryIO, Protocol

from cloudimport.errors import CloudImportError
from shelf_tools import leash

#: Bytes kept of each captured output: tracer reports and error texts are far below it.
KEEP = 16 << 20
#: Bytes kept of standard error: its end, where the reason of a failure stands.
KEEP_ERRORS = 64 << 10
#: Seconds to wait for what is still in a pipe once its writers were killed.
_GRACE = 5.0


@dataclass(frozen=True)
class Finished:
    """What a process left: exit status (negative: the signal that killed it) and outputs, bounded.

    ``stdout`` is the first ``KEEP`` bytes ("" when it went elsewhere), ``stderr`` the last
    ``KEEP_ERRORS`` bytes. ``timed_out`` is true when it was killed at its time limit. ``struck`` is what
    the guard killed it for, ``seen`` the most that the guard saw of each thing that it counts.
    """

    returncode: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    struck: str = ""
    seen: Mapping[str, int] = field(default_factory=dict)

    def reason(self) -> str:
        """Return the last line of standard error, at most 300 characters, or the exit status."""
        lines = self.stderr.decode("utf-8", "replace").strip().splitlines()
        text = "".join(c if c.isprintable() else "?" for c in lines[-1]) if lines else ""
        return text[:300] or f"exit status {self.returncode}"


class ProcessError(CloudImportError):
    """A process could not be started, or ended with an error. ``finished`` is what it left, if it ran."""

    def __init__(self, message: str, finished: Finished | None = None) -> None:
        super().__init__(message)
        self.finished = finished


class ProcessTimeout(ProcessError):  # noqa: N818 (named as subprocess.TimeoutExpired is)
    """A process was killed at its time limit; ``finished`` holds what it had written by then."""


class Guard(Protocol):
    """Who watches a process while it runs; it may kill its process group, and says then what for."""

    #: What the group was killed for, "" if it was not.
    struck: str
    #: The most that was seen of each thing that is counted.
    seen: dict[str, int]

    def begin(self, pid: int) -> None:
        """Watch the process ``pid``, which leads a process group."""
        ...

    def end(self) -> None:
        """Stop, before anything else may get the number of the process."""
        ...


class _Drain(threading.Thread):
    """Reads a pipe to its end and keeps the first, or the last, ``keep`` bytes."""

    def __init__(self, descriptor: int, keep: int, *, last: bool) -> None:
        super().__init__(daemon=True)
        self._descriptor = descriptor
        self._keep = keep
        self._last = last
        self._chunks: deque[bytes] = deque()
        self._held = 0

    def run(self) -> None:
        with open(self._descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 16):
                self._add(chunk)

    def _add(self, chunk: bytes) -> None:
        if not self._last:
            chunk = chunk[: self._keep - self._held]
        if chunk:
            self._chunks.append(chunk)
            self._held += len(chunk)
        while self._last and self._held - len(self._chunks[0]) >= self._keep:
            self._held -= len(self._chunks.popleft())

    def result(self) -> bytes:
        """Return what was kept; waits a moment at most, since a daemon may hold the pipe open."""
        self.join(_GRACE)
        data = b"".join(list(self._chunks))
        return data[-self._keep :] if self._last else data


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    input: bytes | BinaryIO | None = None,  # noqa: A002 (as subprocess names it)
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    stdout_to: BinaryIO | None = None,
    guard: Guard | None = None,
) -> Finished:
    """Run ``argv`` to its end and return what it left, whatever its exit status.

    ``timeout`` is in seconds. ``input`` is bytes or an open file; None is an empty input. ``env`` of
    None inherits the caller's. Standard output goes to ``stdout_to`` (a file with a descriptor) or is
    captured. The process gets a session and so a group of its own, which is killed whole on the way
    out. ``guard`` watches it meanwhile. Raises ProcessTimeout at the time limit, ProcessError when it
    cannot be started.
    """
    if not shutil.which(argv[0], path=None if env is None else env.get("PATH")):
        raise ProcessError(f"{argv[0]} cannot be started: there is no such program")
    out_drain, out_end = _target(stdout_to)
    err_drain, err_end = _pipe(KEEP_ERRORS, last=True)
    feed = subprocess.PIPE if isinstance(input, bytes) else subprocess.DEVNULL if input is None else input
    held, hold = os.pipe()
    try:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", leash.__file__, str(held), *argv],
            stdin=feed,
            stdout=stdout_to if stdout_to is not None else out_end,
            stderr=err_end,
            pass_fds=(held, *pass_fds),
            start_new_session=True,
        )
    except OSError as error:
        os.close(hold)
        raise ProcessError(f"{argv[0]} cannot be started: {error.strerror}") from error
    finally:
        for end in (out_end, err_end, held):
            if end is not None:
                os.close(end)
    with _lock:
        _running.add(process)
    try:
        _send(hold, marshal.dumps(None if env is None else dict(env)))
        if guard is not None:
            guard.begin(process.pid)
        timed_out = _wait(process, input if isinstance(input, bytes) else None, timeout)
    finally:
        if guard is not None:
            guard.end()
        os.close(hold)
        with _lock:
            _running.discard(process)
    out = out_drain.result() if out_drain else b""
    struck, seen = (guard.struck, guard.seen) if guard is not None else ("", {})
    finished = Finished(process.returncode, out, err_drain.result(), timed_out, struck, seen)
    if timed_out:
        raise ProcessTimeout(f"{argv[0]} was killed after {timeout:.0f} s", finished)
    return finished


class Started(subprocess.Popen[bytes]):
    """A process that runs beside this one, on a leash: ``stop`` ends it, and so does the end of this one."""

    #: The uid that it runs with, if that is not this process's own.
    uid: int | None = None
    _hold = -1
    _at_end: Callable[[], None] | None = None

    def at_end(self, call: Callable[[], None]) -> None:
        """Have ``call`` made once by ``stop``, when nothing of the process is left."""
        self._at_end = call

    def stop(self) -> int:
        """Kill its process group, wait, and return the exit status. May be called again."""
        with _lock:
            hold, self._hold = self._hold, -1
            call, self._at_end = self._at_end, None
            _running.discard(self)
        if hold >= 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
            os.close(hold)
        status = self.wait()
        if call is not None:
            call()
        return status


def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: Sequence[int] = (),
) -> Started:
    """Start ``argv`` and return it while it runs; who started it has to call ``stop`` in the end.

    ``env`` and descriptors are as for ``run``; a pipe is the caller's to read. Raises ProcessError.
    """
    if not shutil.which(argv[0], path=None if env is None else env.get("PATH")):
        raise ProcessError(f"{argv[0]} cannot be started: there is no such program")
    held, hold = os.pipe()
    make = partial(
        Started,
        [sys.executable, "-I", "-S", leash.__file__, str(held), *argv],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        pass_fds=(held, *pass_fds),
        start_new_session=True,
    )
    try:
        started = _starter().submit(make).result()
    except OSError as error:
        os.close(hold)
        raise ProcessError(f"{argv[0]} cannot be started: {error.strerror}") from error
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(held)
    started._hold = hold
    with _lock:
        _running.add(started)
    _send(hold, marshal.dumps(None if env is None else dict(env)))
    return started


@lru_cache(maxsize=1)
def _starter() -> ThreadPoolExecutor:
    """Return the thread that starts processes, which lives as long as this process.

    A program that asks to die with its parent (bwrap) dies with the thread that started it (prctl(2)).
    """
    return ThreadPoolExecutor(1, "starter")


#: What ``run`` waits for at the moment, in any thread, and what ``start`` started.
_running: set[subprocess.Popen[bytes]] = set()
_lock = threading.Lock()


def stop_all() -> None:
    """Kill whatever is running, so that an interrupted command ends at once."""
    with _lock:
        for process in _running:
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)


def _pipe(keep: int, *, last: bool) -> tuple[_Drain, int]:
    read_end, write_end = os.pipe()
    drain = _Drain(read_end, keep, last=last)
    drain.start()
    return drain, write_end


def _target(stdout_to: BinaryIO | None) -> tuple[_Drain | None, int | None]:
    return (None, None) if stdout_to is not None else _pipe(KEEP, last=False)


def _send(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, or as much as is read before the reader ends."""
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]


def _wait(process: subprocess.Popen[bytes], data: bytes | None, timeout: float) -> bool:
    """Feed and wait; kill the group in any case. Returns whether the time limit was reached."""
    try:
        process.communicate(data, timeout=timeout)
    except subprocess.TimeoutExpired:
        return True
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdin:
            with contextlib.suppress(OSError):
                process.stdin.close()
    return False
