"""A small HTTP/1.1 server on a free port that answers what a function says, or misbehaves."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple


class Request(NamedTuple):
    """One request as it came. ``number`` counts from 1; header names are in lower case."""

    number: int
    method: str
    target: str
    headers: dict[str, str]
    connection: int


class Reply(NamedTuple):
    """One answer. ``fault``: "" or "reset", "close", "stall" (before any byte), "short" (half the body)."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}
    fault: str = ""
    chunked: bool = False
    #: Close after the answer, without saying so: what a server does to an idle connection.
    hang_up: bool = False


Handle = Callable[[Request], Reply]


class HttpServer:
    """A context manager; a thread for each connection. ``requests`` is what came so far."""

    def __init__(self, handle: Handle, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.connections = 0
        self._handle = handle
        self._tls = tls
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> HttpServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        # An accept() in another thread wakes up by shutdown, not by close.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Close every connection now."""
        with self._lock:
            for sock in self._open:
                _shut(sock)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            with self._lock:
                self._open.add(sock)
            self._converse(sock, number)
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
            sock.close()

    def _converse(self, sock: socket.socket, number: int) -> None:
        with sock.makefile("rb") as reader:
            while head := _read_head(reader.readline):
                method, target, _ = head[0].split(" ", 2)
                headers = dict(_field(line) for line in head[1:])
                with self._lock:
                    request = Request(len(self.requests) + 1, method, target, headers, number)
                    self.requests.append(request)
                if not self._reply(sock, self._handle(request)):
                    return

    def _reply(self, sock: socket.socket, reply: Reply) -> bool:
        """Send an answer; return whether the connection goes on."""
        if reply.fault == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if reply.fault == "stall":
            self._stopped.wait(30)
        if reply.fault in ("reset", "close", "stall"):
            return False
        sock.sendall(_head(reply) + _framed(reply))
        return reply.fault != "short" and not reply.hang_up


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def _read_head(readline: Callable[[], bytes]) -> list[str]:
    lines = []
    while line := readline().rstrip(b"\r\n"):
        lines.append(line.decode("latin-1"))
    return lines


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _head(reply: Reply) -> bytes:
    framing = {"Transfer-Encoding": "chunked"} if reply.chunked else {"Content-Length": str(len(reply.body))}
    fields = "".join(f"{name}: {value}\r\n" for name, value in {**framing, **reply.headers}.items())
    return f"HTTP/1.1 {reply.status} Status\r\n{fields}\r\n".encode("latin-1")


def _framed(reply: Reply) -> bytes:
    body = reply.body[: len(reply.body) // 2] if reply.fault == "short" else reply.body
    if not reply.chunked:
        return body
    pieces = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    end = b"" if reply.fault == "short" else b"0\r\n\r\n"
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end
