"""The filler: a process that puts files of a site tree in their place when C code of another one asks.

Started by ``cloudimport/_native.c`` when it is first needed; ends when that process does. Standard
input is a socket to it. A question is a size (uint32), then so many bytes: one that says what is asked
(``F``: a file or folder, ``D``: all files of a folder, ``T``: all that lies below a folder), and paths
relative to the root, with NUL between them: what is asked for, and what to leave as it is. What is there
is never replaced: whoever asks may have changed it. The answer is an errno (int32, 0 when it is there),
the size of a path that follows (uint32, 0 when it is in its place), and how many requests (uint64) and
bytes (uint64) that took; native byte order. While it is at work it says so once in a while: answers with
-1 for the errno.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

from cloudimport.errors import CloudImportError
from cloudimport.parts import Unimported
from cloudimport.settings import CHILD

_ANSWER = struct.Struct("=iIQQ")
#: Seconds after which it says that it is still at work.
_SIGN_OF_LIFE = 1.0
#: Seconds without a question after which it ends, if it is a child of the process that asks.
_IDLE = 2.0


class _Peer:
    """The process that asks."""

    def __init__(self) -> None:
        self._socket = socket.socket(fileno=0)
        self._reader = self._socket.makefile("rb")
        self._lock = threading.Lock()
        self._at_work = threading.Event()
        threading.Thread(target=self._say_at_work, daemon=True).start()

    def is_parent(self) -> bool:
        """Whether this process was given to the one that asks: PID 1 of a container without an init."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        parent: int = struct.unpack("=iII", credentials)[0]
        return parent == os.getppid()

    def question(self, patience: float | None) -> bytes:
        """Return the next question; nothing at the end, or after ``patience`` seconds."""
        if not select.select([0], [], [], patience)[0]:
            return b""
        size = self._reader.read(4)
        question = self._reader.read(int.from_bytes(size, sys.byteorder))
        self._at_work.set()
        return question

    def answer(self, status: int, path: bytes, requests: int, received: int) -> None:
        """Answer the question. Raises OSError when nobody is there any more."""
        with self._lock:
            self._at_work.clear()
            self._socket.sendall(_ANSWER.pack(status, len(path), requests, received) + path)

    def _say_at_work(self) -> None:
        while self._at_work.wait():
            time.sleep(_SIGN_OF_LIFE)
            with self._lock, contextlib.suppress(OSError):
                if self._at_work.is_set():
                    self._socket.sendall(_ANSWER.pack(-1, 0, 0, 0))


def main() -> None:
    """Serve the process that asks until it closes the socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, whose end ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    peer = _Peer()
    environment = Unimported(json.loads(os.environ.pop(CHILD)))
    environment.tree.replaces = False
    # A program that waits until it has no child any more would wait for this one.
    patience = _IDLE if peer.is_parent() else None
    while question := peer.question(patience):
        relative, *touched = map(os.fsdecode, question[1:].split(b"\0"))
        for path in touched:
            environment.tree.keep(path)
        status, other = _serve(environment, question[:1], relative)
        try:
            peer.answer(status, os.fsencode(other), *environment.counts())
        except OSError:
            break


def _end_with_parent() -> None:
    """End at once when the parent has gone, whatever is being fetched: somebody may wait for its outputs."""
    waiting = select.poll()
    waiting.register(0, select.POLLHUP)
    waiting.poll()
    os._exit(0)


def _serve(environment: Unimported, what: bytes, relative: str) -> tuple[int, str]:
    """Return (errno, other path). The parent's caller learns the errno alone: the reason is printed."""
    tree = environment.tree
    try:
        path = tree.ensure(relative)
        if what in b"DT":
            (tree.fill_folder if what == b"D" else tree.fill_below)(relative)
            path = tree.prefix + relative
    except (CloudImportError, OSError) as error:
        text = f"cloudimport: {relative} cannot be had for C code that opens it: {error}\n"
        with contextlib.suppress(OSError):
            if select.select([], [2], [], 0)[1]:  # a full pipe that nobody reads must not stop this
                os.write(2, text.encode(errors="backslashreplace"))
        return errno.EIO, ""
    if path is None:
        return errno.ENOENT, ""
    return 0, "" if path == tree.prefix + relative else path
