"""The filler: a process that puts files of a site tree in their place when C code of its parent asks.

Started by ``cloudimport/_native.c`` when it is first needed; ends when its parent does. Standard input
is a socket to the parent. A question is a size (uint32), then so many bytes: one that says what is
asked (``F``: a file or folder, ``D``: all files of a folder), and a path relative to the root. The
answer is an errno (int32, 0 when it is there), the size of a path that follows (uint32, 0 when it is
in its place), and how many requests (uint64) and bytes (uint64) that took; native byte order.
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

from cloudimport.bootstrap import Unimported
from cloudimport.errors import CloudImportError
from cloudimport.settings import CHILD

_ANSWER = struct.Struct("=iIQQ")


def main() -> None:
    """Serve the parent until it closes the socket. The caller's process ends here."""
    if os.fork():
        os._exit(0)  # an unknown child would show in the parent's os.wait()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends this
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.socket(fileno=0) as peer, peer.makefile("rb") as questions:
        environment = Unimported(json.loads(os.environ.pop(CHILD)))
        while size := questions.read(4):
            question = questions.read(int.from_bytes(size, sys.byteorder))
            status, other = _serve(environment, question[:1], os.fsdecode(question[1:]))
            path = os.fsencode(other)
            try:
                peer.sendall(_ANSWER.pack(status, len(path), *environment.counts()) + path)
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
        if what == b"D":
            tree.fill_folder(relative)
            return 0, ""
        path = tree.ensure(relative)
    except (CloudImportError, OSError) as error:
        text = f"cloudimport: {relative} cannot be had for C code that opens it: {error}\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
        return errno.EIO, ""
    if path is None:
        return errno.ENOENT, ""
    return 0, "" if path == tree.prefix + relative else path
