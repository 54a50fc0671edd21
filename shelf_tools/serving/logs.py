"""What a sandbox writes: drained all the time, the last of it kept in a file, and a tail of it at hand."""

from __future__ import annotations

import array
import fcntl
import os
import select
import termios
import threading
import time
from collections import deque
from pathlib import Path

#: Bytes of a log file, of which there are two for a sandbox, this one and the one before; and of the tail.
FILE_BYTES, TAIL_BYTES = 4 << 20, 4 << 10
#: Log files in a folder at the most: the oldest go.
FILES = 400
#: Seconds to wait for what a function wrote before it answered.
_PATIENCE = 0.25


class Log:
    """The log of one sandbox, at ``path``; ``end`` is the descriptor that the sandbox writes to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115 (closed by its thread)
        self._size = 0
        self._recent: deque[bytes] = deque()
        self._held = 0
        self._lock = threading.Lock()
        self._read_end, self.end = os.pipe()
        self._thread = threading.Thread(target=self._drain, name="sandbox-log", daemon=True)
        self._thread.start()

    def started(self) -> None:
        """Say that the sandbox has its end: this process lets go of it."""
        os.close(self.end)

    def write(self, line: str) -> None:
        """Add a line of the server's own."""
        self._add(line.encode() + b"\n")

    def begin(self) -> None:
        """Begin the tail anew: an invocation begins."""
        with self._lock:
            self._recent.clear()
            self._held = 0

    def tail(self) -> bytes:
        """Return the last bytes since ``begin``, when what is in the pipe has come."""
        with self._lock:
            return b"".join(self._recent)[-TAIL_BYTES:]

    def settle(self) -> None:
        """Wait until what was written has been read, for a moment at the most."""
        until = time.monotonic() + _PATIENCE
        waiting = array.array("i", [0])
        while time.monotonic() < until:
            try:
                fcntl.ioctl(self._read_end, termios.FIONREAD, waiting)
            except (OSError, ValueError):
                return  # it has ended
            if not waiting[0]:
                break
            time.sleep(0.001)
        with self._lock:
            pass  # what was read last has been added

    def _drain(self) -> None:
        try:
            # Under the lock, so that nothing is neither in the pipe nor added.
            while self._read():
                pass
        finally:
            with self._lock:
                descriptor, self._read_end = self._read_end, -1
            os.close(descriptor)
            self._file.close()

    def _read(self) -> bool:
        poll = select.poll()
        poll.register(self._read_end)
        poll.poll()
        with self._lock:
            piece = os.read(self._read_end, 1 << 16)
            self._keep(piece)
        return bool(piece)

    def _add(self, data: bytes) -> None:
        with self._lock:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._recent.append(data[-TAIL_BYTES:])
        self._held += len(self._recent[-1])
        while self._held - len(self._recent[0]) >= TAIL_BYTES:
            self._held -= len(self._recent.popleft())
        try:
            if self._size + len(data) > FILE_BYTES:
                os.replace(self.path, self.path.with_suffix(".old.log"))
                self._file.close()
                self._file, self._size = open(self.path, "wb", buffering=0), 0  # noqa: SIM115 (likewise)
            self._size += self._file.write(data) or 0
        except (OSError, ValueError):
            pass  # a full disk costs the log, and no invocation


def prune(folder: Path) -> None:
    """Remove the oldest logs of a folder that has too many. Raises OSError if there is no such folder."""
    found = sorted(folder.glob("*.log"), key=_time)
    for path in found[:-FILES]:
        path.unlink(missing_ok=True)


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
