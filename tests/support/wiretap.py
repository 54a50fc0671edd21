"""A server on a free port that hands everything on to another one, and keeps what the client has sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


class Wiretap:
    """``address`` is in the place of the server's; ``sent`` is what came there, of all connections."""

    def __init__(self, address: str, listener: socket.socket) -> None:
        parts = urlsplit(address)
        self._target = (str(parts.hostname), int(parts.port or 0))
        self._listener = listener
        self.address = f"{parts.scheme}://127.0.0.1:{listener.getsockname()[1]}"
        self.sent = bytearray()

    def serve(self) -> None:
        """Take connections until the listener is closed."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            back = threading.Thread(target=_pump, args=(server, client, bytearray()), daemon=True)
            back.start()
            _pump(client, server, self.sent)
            back.join()


def _pump(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            kept += data
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def wiretap(address: str) -> Iterator[Wiretap]:
    """Listen before the server at ``address``, ``tcp://HOST:PORT``."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tap = Wiretap(address, listener)
        threading.Thread(target=tap.serve, daemon=True).start()
        try:
            yield tap
        finally:
            listener.shutdown(socket.SHUT_RDWR)
