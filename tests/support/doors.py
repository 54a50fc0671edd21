"""What stands before a server and can be shut: a store that goes away, comes back, or says nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit


class Door:
    """A context manager that hands connections on to the server at ``url``; its own is ``endpoint``.

    ``shut``: connections are refused, and those that there are end. ``mute``: what comes is taken and not
    handed on. ``opened`` counts connections, ``muted`` requests that were not handed on.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._is_mute = False
        self.endpoint = f"http://127.0.0.1:{self._port}"
        self.opened = self.muted = 0

    def __enter__(self) -> Door:
        self._serve()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shut()

    def shut(self) -> None:
        """Refuse connections, and end those that there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        self.cut()

    def open(self) -> None:
        """Take connections again, and hand on what comes."""
        self._is_mute = False
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._serve()

    def mute(self) -> None:
        """Hand on nothing that comes from now on."""
        self._is_mute = True

    def cut(self) -> None:
        """End all connections."""
        sockets, self._sockets = self._sockets, []
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._target)
                self.opened += 1
                self._sockets += [client, server]
                for one, other, is_asking in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pump, args=(one, other, is_asking), daemon=True).start()

    def _pump(self, one: socket.socket, other: socket.socket, is_asking: bool) -> None:
        with suppress(OSError):
            while data := one.recv(1 << 16):
                if is_asking and self._is_mute:
                    self.muted += 1
                else:
                    other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def wait_until(holds: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait until something holds; fails after so many seconds."""
    waiting = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if holds():
            return
        waiting.wait(0.02)
    raise AssertionError(f"not within {seconds:g} s: {what}")
