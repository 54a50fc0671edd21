"""A server on a free port that answers with given bytes, whatever is asked, or tunnels."""

from __future__ import annotations

import socket
import threading
from types import TracebackType


class RawServer:
    """A context manager. ``heads`` is what came so far.

    Each connection gets ``answer`` and is closed; with ``drip``, one byte more every so many
    seconds until the other side goes; with ``tunnel``, a 200 and the bytes of that local port.
    """

    def __init__(self, answer: bytes = b"", *, drip: float = 0.0, tunnel: int = 0) -> None:
        self.heads: list[bytes] = []
        self._answer = answer
        self._drip = drip
        self._tunnel = tunnel
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock:
            try:
                self.heads.append(sock.recv(65536))
                if self._tunnel:
                    self._relay(sock)
                else:
                    self._send(sock)
            except OSError:
                pass

    def _send(self, sock: socket.socket) -> None:
        sock.sendall(self._answer)
        while self._drip and not self._stopped.wait(self._drip):
            sock.sendall(b"x")
        # So that the other side reads all of it: a close with unread input resets.
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)

    def _relay(self, sock: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._tunnel)) as other:
            sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pump, args=(sock, other), daemon=True).start()
            _pump(other, sock)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
