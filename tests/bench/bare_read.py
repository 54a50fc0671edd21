"""Ranges over TLS by bare sockets, and nothing done with them: what link and server take of any client.

Import budget: ``socket``, ``ssl``, ``threading``.
"""

from __future__ import annotations

import os
import queue
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T", bytes, int)
_PIECE = 1 << 20


def read(host: str, port: int, connections: int, ranges: Sequence[tuple[str, int, int]]) -> None:
    """Read ranges (path, first byte, number of bytes) over so many connections. Raises OSError."""
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    wanted: queue.SimpleQueue[tuple[str, int, int] | None] = queue.SimpleQueue()
    for row in (*ranges, *[None] * connections):
        wanted.put(row)
    errors: list[Exception] = []

    def work() -> None:
        try:
            with context.wrap_socket(socket.create_connection((host, port)), server_hostname=host) as sock:
                while (row := wanted.get()) is not None:
                    _read(sock, f"{host}:{port}", *row)
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _read(sock: ssl.SSLSocket, host: str, path: str, start: int, length: int) -> None:
    lines = (f"GET {path} HTTP/1.1", f"host: {host}", f"range: bytes={start}-{start + length - 1}", "", "")
    sock.sendall("\r\n".join(lines).encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(sock.recv(4096))
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 206 " not in head.partition(b"\r\n")[0]:
        raise OSError(head.decode("latin-1"))
    left, buffer = length - len(body), bytearray(_PIECE)
    while left > 0:
        left -= _some(sock.recv_into(buffer, min(left, _PIECE)))


def _some(got: _T) -> _T:
    if not got:
        raise OSError("the server closed the connection")
    return got
