"""Any other store that fsspec speaks, read by a helper process that imports fsspec.

fsspec and its plugins never stand in this process's modules, so a pinned ``fsspec`` or
``aiohttp`` is the one that the handler gets. Protocol (see ``foreign_helper``): one local
socket for each read in flight; a JSON line out, a JSON line and raw bytes back. Import budget:
``json``, ``socket``, ``subprocess``, ``threading``; imported only for such URLs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading

from cloudimport.errors import (
    AbsentError,
    CloudImportError,
    ConfigurationError,
    UnreachableError,
)
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.helper import helper_command, helper_path
from cloudimport.sources.reading import final, hand_out, is_empty, join, lacks, refused, too_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

#: Seconds that a helper gets to end by itself once nobody speaks to it.
_GRACE = 1.0


class ForeignSource:
    """Reads objects below an fsspec URL through one helper process, several reads at a time."""

    def __init__(self, url: str, config: SourceConfig) -> None:
        self.url = url
        self._config = config
        self._path = helper_path(config)
        self._lock = threading.Lock()
        self._helper: _Helper | None = None

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the object ``key``; see ``Source.read``.

        Raises ConfigurationError if fsspec or its plugin for this scheme is not installed.
        """
        if is_empty(start, length):
            return b""
        helper = self._running()
        question = {"key": key, "start": start, "length": length}
        try:
            answer, body = helper.ask(question)
        except (OSError, ValueError) as error:
            self._discard(helper)
            reason = str(error) or type(error).__name__
            text = f"{join(self.url, key)}: the helper process did not answer: {reason}"
            raise UnreachableError(text, key=key) from error
        if "error" in answer:
            raise self._typed(answer, key)
        if lacks(start, length, start + len(body)):
            raise too_short(join(self.url, key), key, start, length, None)
        return body

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers with bytes of the object ``key``; see ``Source.readv``."""
        hand_out(self.read(key, start, length), buffers)

    def close(self) -> None:
        """End the helper process."""
        with self._lock:
            helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()

    def forget(self) -> None:
        """Leave the helper to the parent; the next read starts another."""
        self._lock = threading.Lock()
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.forget()

    def _running(self) -> _Helper:
        with self._lock:
            if self._helper is not None and not self._helper.is_alive():
                self._helper.end()
                self._helper = None
            if self._helper is None:
                self._helper = _Helper(self.url, self._path, self._config)
            return self._helper

    def _discard(self, helper: _Helper) -> None:
        with self._lock:
            if self._helper is helper:
                self._helper = None
        helper.end()

    def _typed(self, answer: dict[str, Any], key: str) -> CloudImportError:
        kind = answer["error"]
        text = f"{join(self.url, key)}: {answer.get('text')}"
        if kind == "configuration":
            return ConfigurationError(f"{self.url}: {answer.get('text')}")
        if kind == "absent":
            return AbsentError(text, key=key)
        if kind == "denied":
            return refused(text, key)
        error = UnreachableError(text, key=key)
        return final(error) if kind == "range" else error


class _Helper:
    """The helper process, and idle sockets to it. Thread-safe."""

    def __init__(self, url: str, path: list[str], config: SourceConfig) -> None:
        self._deadline = config.deadline
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[socket.socket] = []
        self._control, theirs = socket.socketpair()
        self._control.settimeout(config.deadline)
        question = json.dumps({"url": url, "path": path})
        with theirs:
            try:
                self._process = subprocess.Popen(
                    helper_command("foreign_helper.py", str(theirs.fileno()), question),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=dict(config.environ),
                    pass_fds=(theirs.fileno(),),
                )
            except OSError as error:
                self._control.close()
                raise UnreachableError(f"{url}: cannot start the helper process: {error}") from error

    def is_alive(self) -> bool:
        """Return whether this process's own helper is running."""
        return self._pid == os.getpid() and self._process.poll() is None

    def ask(self, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """Return an answer and its bytes. Raises OSError or ValueError if the helper does not answer."""
        channel = self._channel()
        try:
            channel.sendall(json.dumps(question).encode() + b"\n")
            with channel.makefile("rb") as reader:
                answer = dict(json.loads(reader.readline()))
                size = int(answer.get("size", 0))
                body = reader.read(size)
            if len(body) != size:
                raise OSError("it broke off")
        except BaseException:
            channel.close()
            raise
        with self._lock:
            self._idle.append(channel)
        return answer, body

    def end(self) -> None:
        """End the process: it goes by itself when the control socket closes, else is killed."""
        self._close()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """In a forked child: close our copies of the sockets, leave the process alone."""
        self._lock = threading.Lock()
        self._close()
        # It is the parent's child: Popen must not wait for it here, nor complain.
        self._process.returncode = 0

    def _channel(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            ours, theirs = socket.socketpair()
            with theirs:
                try:
                    socket.send_fds(self._control, [b"+"], [theirs.fileno()])
                except OSError:
                    ours.close()
                    raise
        ours.settimeout(self._deadline)
        return ours

    def _close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for channel in (*idle, self._control):
            channel.close()
