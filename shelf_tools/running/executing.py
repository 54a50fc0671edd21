"""Functions in fresh sandboxes of this machine, like Lambda's: read-only, /tmp bounded, memory bounded.

In a sandbox there are the interpreter, the runtime (``cloudimport``), the file, and the shelf's objects that
its own environment needs, all read-only; nothing of the curator's variables, credentials or folders.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cloudimport
from cloudimport.errors import CloudImportError
from cloudimport.format import codec
from lambda_layer import runner
from shelf_tools.interpreters import running_interpreter
from shelf_tools.lambdabox.box import MIB, TMP_BYTES, Box
from shelf_tools.lambdabox.runtime import lay_out
from shelf_tools.process import Started
from shelf_tools.running.functions import Program
from shelf_tools.running.settling import Ready

#: Bytes of what a function prints that are shown; more is read and dropped.
MOST_PRINTED = 16 * MIB
#: Bytes of a line at the most: what is longer is shown in parts.
_LINE = 64 << 10
#: Seconds to wait for what is in a pipe when its writers are gone.
_GRACE = 5.0
_OPT, _OBJECTS, _EVENT = "/opt/python", "/mnt/shelf", "/opt/event.json"


class FunctionError(CloudImportError):
    """A function raised an error, or did not come to its end; ``traceback`` is "" where there is none."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class Bounds(NamedTuple):
    """What one sandbox may use: seconds, bytes of memory (each process) and of /tmp."""

    seconds: float = 900.0
    memory_bytes: int = 1024 * MIB
    tmp_bytes: int = TMP_BYTES


class Ran(NamedTuple):
    """What a function returned, and figures: seconds, and the counts of ``cloudimport.stats()``."""

    value: Any
    seconds: float
    stats: Mapping[str, float]


def outcome(answer: Mapping[str, Any]) -> Ran:
    """Return what an answer of the runner holds; it comes from hostile code. Raises FunctionError."""
    error = answer.get("error")
    if isinstance(error, dict):
        kinds = (str(error.get(name) or "") for name in ("message", "traceback"))
        raise FunctionError(*kinds)
    if "value" not in answer:
        raise FunctionError("the answer has no value: its process was tampered with")
    stats = answer.get("stats")
    numbers = (
        {k: v for k, v in stats.items() if isinstance(v, (int, float))} if isinstance(stats, dict) else {}
    )
    seconds = answer.get("seconds")
    return Ran(answer["value"], seconds if isinstance(seconds, (int, float)) else 0.0, numbers)


class Sandboxes:
    """Runs functions of one file, each in a sandbox of its own; may be used by several threads.

    ``work`` is a folder for what is mounted; ``objects`` has a folder for each environment, named by its
    index's digest, with what it needs of the shelf; ``environ`` is what functions find in theirs besides.
    ``relay`` hears what a function prints, a line at a time.
    """

    def __init__(
        self,
        program: Program,
        bounds: Bounds,
        work: Path,
        objects: Path,
        environ: Mapping[str, str],
        relay: Callable[[str, str], None],
    ) -> None:
        """Raises a CloudImportError or OSError."""
        self._program, self._bounds, self._work, self._objects = program, bounds, work, objects
        self._environ, self._relay = environ, relay
        self._python = running_interpreter()
        version = f"{self._python.version[0]}.{self._python.version[1]}"
        self._runtime = lay_out(work / "runtime", version)
        self._command = f"/var/lang/bin/python{version}"
        self._stopped = threading.Event()

    def run(self, name: str, ready: Ready | None, args: list[Any], kwargs: dict[str, Any]) -> Ran:
        """Run a function; what it prints is relayed as it comes. Raises FunctionError or another error."""
        task = self._work / f"task-{name}"
        event = {"file": self._program.path.name, "function": name, "args": args, "kwargs": kwargs}
        event["lock"] = ready.lock.encode() if ready else ""
        _write(task / "code" / self._program.path.name, self._program.data)
        if ready:
            _write(task / "code" / "run.lock", ready.lock.encode().encode())
        _write(task / "event.json", json.dumps(event).encode())
        return outcome(self._in_box(name, self._box(name, task, ready)))

    def stop(self) -> None:
        """End all that runs, and what is about to."""
        from shelf_tools.process import stop_all

        self._stopped.set()
        stop_all()

    def _box(self, name: str, task: Path, ready: Ready | None) -> Box:
        runtime = Path(cloudimport.__file__).parent
        mounts = [
            (runtime, f"{_OPT}/cloudimport"),
            (Path(runner.__file__), f"{_OPT}/lambda_layer/runner.py"),
            (task / "event.json", _EVENT),
        ]
        if ready:
            mounts.append((self._objects / ready.ref.digest, _OBJECTS))
        extension = codec.locate()
        if extension:
            mounts.append((Path(extension).parent, f"{_OPT}/backports/zstd"))
        return Box(
            self._python.prefix,
            task / "code",
            self._runtime,
            name=name,
            environ={
                "CLOUDIMPORT_SHARED": _OBJECTS,
                "CLOUDIMPORT_LOG": "0",  # figures come with the answer
                "CLOUDIMPORT_YANKED": "ignore",  # who settled the environment has heeded that
                "CLOUDIMPORT_CACHE_SIZE": str(self._bounds.tmp_bytes // 4),
                **self._environ,
            },
            tmp_bytes=self._bounds.tmp_bytes,
            memory_bytes=self._bounds.memory_bytes,
            mounts=tuple(mounts),
        )

    def _in_box(self, name: str, box: Box) -> Mapping[str, Any]:
        answer_end, answer = os.pipe()
        output_end, output = os.pipe()
        script = f"{_OPT}/lambda_layer/runner.py"
        entry = (self._command, "-I", "-u", script, _EVENT, "/var/task", str(answer))
        pump = _Pump(output_end, lambda line: self._relay(name, line))
        reader = _Reader(answer_end, runner.PAYLOAD)
        try:
            started = replace(box, entry=entry).start(stdout=output, stderr=output, pass_fds=(answer,))
        finally:
            os.close(answer)
            os.close(output)
            pump.start()
            reader.start()
        status = self._ended(started)
        pump.join(_GRACE)
        reader.join(_GRACE)
        return runner.answered(bytes(reader.data), status, self._bounds.seconds, name)

    def _ended(self, started: Started) -> int | None:
        """Wait for the end of a sandbox, and see that it is one; None if its time was over first."""
        try:
            if self._stopped.is_set():
                return -9
            return started.wait(self._bounds.seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            started.stop()


def _write(path: Path, data: bytes) -> None:
    """Write a file that a sandbox's user can read, whatever the umask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.write_bytes(data)
    path.chmod(0o644)


class _Reader(threading.Thread):
    """Reads a pipe to its end and keeps the first bytes."""

    def __init__(self, descriptor: int, most: int) -> None:
        super().__init__(daemon=True)
        self._descriptor, self._most = descriptor, most
        self.data = bytearray()

    def run(self) -> None:
        with open(self._descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 16):
                self.data += chunk[: self._most - len(self.data)]


class _Pump(threading.Thread):
    """Hands on the lines of a pipe as they come, bounded."""

    def __init__(self, descriptor: int, say: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self._descriptor, self._say = descriptor, say

    def run(self) -> None:
        left, pending = MOST_PRINTED, b""
        with open(self._descriptor, "rb", buffering=0) as pipe:
            while chunk := pipe.read(1 << 16):
                if left <= 0:
                    continue
                left -= len(chunk)
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    self._say(line.decode("utf-8", "replace"))
                if len(pending) > _LINE:
                    self._say(pending.decode("utf-8", "replace"))
                    pending = b""
                if left <= 0:
                    self._say(f"[what follows is not shown: more than {MOST_PRINTED // MIB} MiB]")
                    pending = b""
        if pending:
            self._say(pending.decode("utf-8", "replace"))
