"""The Lambda Runtime API (version 2018-06-01) for one sandbox: a server that a runtime asks for events.

"Using the Lambda runtime API for custom runtimes", AWS Lambda Developer Guide. One invocation runs at a time,
as in a sandbox of Lambda's; what becomes of it is an ``Answer``. A runtime that dies, or does not answer in
time, has to be told of by who watches over the sandbox (``died``), or is found out here (``timeout``).
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import Popen
from typing import Any, Literal, NamedTuple

#: Bytes of an answer at the most: 6 MB ("Lambda quotas": payload of synchronous invocations).
MOST_BYTES = 6 * 1024 * 1024
_PREFIX = "/2018-06-01/runtime/"
_ARN = "arn:aws:lambda:us-east-1:123456789012:function:{name}"
#: Seconds that the init phase may take, here as the longest that ``wait_ready`` waits by itself.
INIT_SECONDS = 10.0

Kind = Literal["result", "error", "init-error", "exit", "timeout"]


class Answer(NamedTuple):
    """What became of an invocation.

    ``kind``: ``result`` (``body`` is the JSON that the handler returned), ``error`` and ``init-error``
    (``body`` is AWS' JSON of an error), ``exit`` (the runtime died; ``body`` likewise), ``timeout``.
    ``seconds`` is the time from when the runtime took the event; ``request_id`` "" where it took none.
    """

    kind: Kind
    body: bytes
    request_id: str = ""
    seconds: float = 0.0

    @property
    def value(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class _Invocation:
    """An event on its way, and what became of it."""

    def __init__(self, event: bytes, headers: dict[str, str], seconds: float) -> None:
        self.event, self.headers, self.seconds = event, headers, seconds
        self.id = headers["Lambda-Runtime-Aws-Request-Id"]
        self.answer: Answer | None = None
        self.taken = 0.0


def failure(kind: str, message: str, request_id: str = "") -> bytes:
    """Return the JSON of an error that is not a handler's own."""
    said = {"errorType": kind, "errorMessage": message}
    return json.dumps({**said, "requestId": request_id} if request_id else said).encode()


def exit_reason(status: int) -> str:
    """Return how AWS tells of an exit status (negative, or 128 more than it: the signal that killed)."""
    if status == 0:
        return "Runtime exited without providing a reason"
    number = -status if status < 0 else status - 128
    try:
        name = signal.Signals(number).name.removeprefix("SIG").lower()
    except ValueError:
        return f"Runtime exited with error: exit status {status}"
    return f"Runtime exited with error: signal: {'killed' if name == 'kill' else name}"


def size_of(said: str | bytes, base: int = 10) -> int:
    """Return a number of bytes that a client says, 0 for none. Raises ConnectionError if it is none."""
    text = said.strip()
    if not text:
        return 0
    # By itself, int() takes -1, and reading -1 bytes is reading without a bound.
    if not text.isalnum():
        raise ConnectionError(f"{said!r} is no number of bytes")
    try:
        return int(text, base)
    except ValueError:
        raise ConnectionError(f"{said!r} is no number of bytes") from None


class RuntimeApi:
    """A server for one sandbox, on a free port of the loopback; ``address`` is what the runtime is told.

    ``name`` is the function's, for its ARN. If it is ``guarded``, only processes with the uid of the sandbox
    that ``watch`` is told of are answered: every sandbox of a machine can reach the port. May be used by
    several threads; ``close`` ends it.
    """

    def __init__(
        self, name: str = "function", most_bytes: int = MOST_BYTES, *, guarded: bool = False
    ) -> None:
        self.most_bytes = most_bytes
        self._arn = _ARN.format(name=name)
        self._changed = threading.Condition()
        self._waiting: _Invocation | None = None
        self._running: _Invocation | None = None
        self._asked = False
        self._guarded = guarded
        self._owner: int | None = None
        self._watched = threading.Event()
        self._init_error: Answer | None = None
        self._ended: Answer | None = None
        self._server = _Server(self)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="runtime-api", daemon=True
        )
        self._thread.start()

    def invoke(
        self,
        event: bytes,
        *,
        timeout: float,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        patience: float = INIT_SECONDS,
    ) -> Answer:
        """Hand an event to the runtime and return what becomes of it.

        ``timeout`` (seconds) runs from when the runtime takes it; a runtime that does not ask for one
        within ``patience`` seconds has timed out too. ``headers`` are added to those of the invocation
        (``Lambda-Runtime-Client-Context``, …). Callers come one after the other.
        """
        request_id = request_id or str(uuid.uuid4())
        given = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Invoked-Function-Arn": self._arn,
            "Lambda-Runtime-Trace-Id": f"Root=1-{int(time.time()):08x}-{uuid.uuid4().hex[:24]};Sampled=0",
            **(headers or {}),
        }
        one = _Invocation(event, given, timeout)
        with self._changed:
            self._changed.wait_for(lambda: self._is_free() or self._over() is not None)
            if (over := self._over()) is not None:
                return over
            self._waiting = one
            self._changed.notify_all()
            self._changed.wait_for(lambda: one.taken or one.answer or self._over(), patience)
            if one.taken and one.answer is None:
                left = one.taken + timeout - time.monotonic()
                self._changed.wait_for(lambda: one.answer or self._ended, max(0.0, left))
            self._waiting = self._running = None
            self._changed.notify_all()
            return one.answer or self._over(one) or self._late(one)

    def wait_ready(self, timeout: float = INIT_SECONDS) -> Answer | None:
        """Wait until the runtime asks for its first event; None then, else what it ended with."""
        with self._changed:
            self._changed.wait_for(lambda: self._asked or self._over(), timeout)
            if self._asked:
                return None
            return self._over() or Answer("timeout", failure("Sandbox.Timedout", "the init phase timed out"))

    def died(self, reason: str, kind: str = "Runtime.ExitError") -> None:
        """Say that the sandbox has ended: whoever waits for it is told ``reason``, now and later."""
        with self._changed:
            if self._ended is None:
                self._ended = Answer("exit", failure(kind, reason))
            self._changed.notify_all()

    @property
    def has_ended(self) -> bool:
        """Whether the sandbox has ended, as far as ``died`` was told."""
        return self._ended is not None

    def watch(self, process: Popen[bytes]) -> None:
        """Have ``died`` called when a process ends, with the reason that AWS gives."""
        self._owner = getattr(process, "uid", None)
        self._watched.set()
        wait = threading.Thread(
            target=lambda: self.died(exit_reason(process.wait())), name="sandbox-end", daemon=True
        )
        wait.start()

    def close(self) -> None:
        """End the server and its connections."""
        self.died("the sandbox was closed")
        self._server.shutdown()
        self._server.server_close()
        self._server.close_connections()

    def _is_free(self) -> bool:
        return self._waiting is None and self._running is None

    def _over(self, one: _Invocation | None = None) -> Answer | None:
        """Return what the runtime has ended with, if it has."""
        if self._init_error is not None and not self._asked:
            return self._init_error
        if self._ended is None or one is None or not one.taken:
            return self._ended
        said = {**self._ended.value, "requestId": one.id}
        said["errorMessage"] = f"RequestId: {one.id} Error: {said['errorMessage']}"
        return Answer("exit", json.dumps(said).encode(), one.id, time.monotonic() - one.taken)

    def _late(self, one: _Invocation) -> Answer:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        text = f"{at}Z {one.id} Task timed out after {one.seconds:.2f} seconds"
        if not one.taken:
            text = f"{at}Z {one.id} the runtime did not ask for an event"
        return Answer("timeout", failure("Sandbox.Timedout", text), one.id, one.seconds)

    # What follows is called by the server's threads.

    def may_ask(self, connection: socket.socket) -> bool:
        """Whether who is at the other end of a connection is of the sandbox."""
        if not self._guarded:
            return True
        owner = os.geteuid() if not self._watched.wait(INIT_SECONDS) or self._owner is None else self._owner
        return _uid_of_peer(connection) == owner

    def next(self, is_connected: Any) -> _Invocation | None:
        """Wait for an event and take it; None when there will be none."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()
            while self._waiting is None and self._ended is None:
                self._changed.wait(1.0)
                if not is_connected():
                    return None
            if self._waiting is None or self._ended is not None or not is_connected():
                return None
            one, self._waiting = self._waiting, None
            self._running = one
            one.taken = time.monotonic()
            deadline = int((time.time() + one.seconds) * 1000)
            one.headers["Lambda-Runtime-Deadline-Ms"] = str(deadline)
            self._changed.notify_all()
            return one

    def answered(self, request_id: str, kind: Kind, body: bytes) -> bool:
        """Take what the runtime says of an invocation; returns whether that is the one that runs."""
        with self._changed:
            one = self._running
            if one is None or one.id != request_id or one.answer is not None:
                return False
            one.answer = Answer(kind, body, one.id, time.monotonic() - one.taken)
            self._changed.notify_all()
            return True

    def failed_to_start(self, body: bytes) -> None:
        """Take an error of the init phase."""
        with self._changed:
            self._init_error = Answer("init-error", body)
            self._changed.notify_all()


def _uid_of_peer(connection: socket.socket) -> int | None:
    """Return the uid of a socket of this machine that is connected to ours, None if it is not found."""
    peer, own = connection.getpeername(), connection.getsockname()
    ends = [
        f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}:{port:04X}"
        for host, port in (peer, own)
    ]
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:  # proc(5): local end, remote end, and the uid in the eighth column
            fields = line.split()
            if fields[1:3] == ends:
                return int(fields[7])
    return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, api: RuntimeApi) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.api = api
        self._lock = threading.Lock()
        self._sockets: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End what the runtime keeps open."""
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(2)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a sandbox that is killed leaves connections that break."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece: headers and body apart wait 40 ms for an acknowledgement
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as the base names it)
        """Say nothing: what happens stands in the answers."""

    def handle(self) -> None:
        """Answer who may ask, one request after the other."""
        if self.server.api.may_ask(self.connection):
            super().handle()

    def do_GET(self) -> None:
        """Answer with the next event."""
        if self.path != f"{_PREFIX}invocation/next":
            self._answer(404, failure("InvalidPath", f"{self.path} is not known"))
            return
        one = self.server.api.next(self._is_connected)
        if one is None:
            self.close_connection = True
            return
        self._answer(200, one.event, one.headers)

    def do_POST(self) -> None:
        """Take an answer or an error."""
        api = self.server.api
        body = self._body(api.most_bytes)
        parts = self.path.removeprefix(_PREFIX).split("/")
        if self.path == f"{_PREFIX}init/error" and body is not None:
            api.failed_to_start(body)
        elif len(parts) != 3 or parts[0] != "invocation" or parts[2] not in ("response", "error"):
            self._answer(404, failure("InvalidPath", f"{self.path} is not known"))
            return
        elif body is None:
            text = f"Response payload size exceeded maximum allowed payload size ({api.most_bytes} bytes)."
            self._answer(413, failure("Function.ResponseSizeTooLarge", text))
            return
        elif not api.answered(parts[1], "result" if parts[2] == "response" else "error", body):
            self._answer(400, failure("InvalidRequestID", f"{parts[1]} is not the request that runs"))
            return
        self._answer(202, b'{"status":"OK"}')

    def _is_connected(self) -> bool:
        """Whether the runtime still waits at the other end."""
        try:
            return len(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)) > 0
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self, most: int) -> bytes | None:
        """Return what was posted, None if it is more than ``most`` bytes; then it was read all the same."""
        kept = bytearray()
        for piece in self._pieces():
            if len(kept) <= most:
                kept += piece
        return None if len(kept) > most else bytes(kept)

    def _pieces(self) -> Any:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := size_of(self.rfile.readline(32).split(b";")[0], 16):
                yield from self._read(size)
                self.rfile.readline(8)
            while self.rfile.readline(1 << 16).strip():
                pass  # trailers
        else:
            yield from self._read(size_of(self.headers.get("Content-Length", "")))

    def _read(self, size: int) -> Any:
        while size:
            piece = self.rfile.read(min(size, 1 << 16))
            if not piece:
                raise ConnectionError("the runtime went away")
            size -= len(piece)
            yield piece
