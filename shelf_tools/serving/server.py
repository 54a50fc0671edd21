"""The HTTP side: ``POST /run/NAME`` as OpenLambda has it, AWS' Invoke, and ``GET /status``."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import sys
import threading
import uuid
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from cloudimport.errors import CloudImportError
from shelf_tools.lambdabox.runtime_api import MOST_BYTES, size_of
from shelf_tools.serving.instance import Outcome
from shelf_tools.serving.pool import ThrottledError
from shelf_tools.serving.registry import UnknownFunctionError
from shelf_tools.serving.worker import Worker

#: Bytes of the event of an asynchronous invocation ("Lambda quotas").
MOST_EVENT_BYTES = 1024 * 1024
_INVOKE = re.compile(r"/2015-03-31/functions/([^/]+)/invocations")
_RUN = re.compile(r"/run/([^/]+)(?:/.*)?")
#: A function's name in what AWS takes for one: a name, a partial or a whole ARN, each with a qualifier.
_ARN = re.compile(r"(?:arn:[\w-]+:lambda:[\w-]*:|)(?:\d{12}:|)(?:function:|)([A-Za-z0-9_-]+)(?::([\w$-]+))?")
_JSON = "application/json"
#: Bytes of a body that is too large that are read all the same.
_DRAINED = 64 << 20


class Reply(NamedTuple):
    """A status, a body, and headers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


class Server(ThreadingHTTPServer):
    """Serves a worker's functions on an address."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, host: str, port: int, worker: Worker) -> None:
        super().__init__((host, port), _Handler)
        self.worker = worker
        #: Whether only this machine reaches it.
        self.is_local = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away: that is no error of ours."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shelf"
    wbufsize = -1  # an answer in one piece
    disable_nagle_algorithm = True
    timeout = 600
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (as the base names it)
        """Say nothing: what functions do stands in their logs."""

    def do_GET(self) -> None:
        """Tell of the server."""
        if self._is_of_a_page():
            self._refuse_page()
        elif urlsplit(self.path).path == "/status":
            self._reply(Reply(200, json.dumps(self.server.worker.status(), indent=1).encode()))
        else:
            self._reply(_aws_error(404, "UnknownOperationException", "there is GET /status, and POST"))

    def do_POST(self) -> None:
        """Run a function."""
        path = urlsplit(self.path).path
        run, invoke = _RUN.fullmatch(path), _INVOKE.fullmatch(path)
        if self._is_of_a_page():
            self._refuse_page()
        elif run is None and invoke is None:
            self._refuse(_aws_error(404, "UnknownOperationException", f"there is no {path[:200]}"))
        elif (body := self._received()) is not None:
            work = self._run if run else self._invoke
            try:
                self._reply(work(unquote((run or invoke)[1]), body))  # type: ignore[index]
            except (CloudImportError, OSError) as error:
                self._reply(_refusal(error))
            except Exception as error:  # an error of ours is told too
                text = f"{type(error).__name__}: {error}"
                self._reply(_aws_error(500, "ServiceException", text))
                raise

    def _is_of_a_page(self) -> bool:
        """Whether a page that a browser shows has sent this: any page can post here."""
        if self.headers.get("Origin") or self.headers.get("Sec-Fetch-Site") == "cross-site":
            return True
        # A page of a name that now leads to the loopback (DNS rebinding) reads what is answered.
        return self.server.is_local and not _is_local(self.headers.get("Host", ""))

    def _refuse_page(self) -> None:
        text = "requests of web pages are refused; ask an address, or localhost"
        self._refuse(_aws_error(403, "AccessDeniedException", text))

    def _received(self) -> bytes | None:
        """Return what was posted; None if it is refused, and that is said."""
        limit = _most(self.headers)
        try:
            body = self._body(limit)
        except ConnectionError as error:
            self._refuse(_aws_error(400, "InvalidRequestContentException", str(error)))
            return None
        if body is None:
            text = f"the payload is larger than {limit} bytes, the most for this invocation type"
            self._refuse(_aws_error(413, "RequestTooLargeException", text))
        return body

    def _run(self, name: str, body: bytes) -> Reply:
        """Answer as OpenLambda does: the result as JSON, or the traceback as text."""
        if not _is_json(body):
            shown = body[:200].decode("utf-8", "replace")
            return Reply(400, f"bad POST data: {shown!r}\n".encode(), {"Content-Type": "text/plain"})
        outcome = self.server.worker.invoke(name, body)
        answer = outcome.answer
        if answer.kind == "result":
            return Reply(200, answer.body)
        said = json.loads(answer.body)
        trace = "".join(said.get("stackTrace") or ())
        head = "Traceback (most recent call last):\n" if trace else ""
        text = f"{head}{trace}{said.get('errorType')}: {said.get('errorMessage')}\n"
        return Reply(500, text.encode(), {"Content-Type": "text/plain; charset=utf-8"})

    def _invoke(self, said: str, body: bytes) -> Reply:
        """Answer as AWS does ("Invoke", Lambda API reference)."""
        found = _ARN.fullmatch(said)
        name = found[1] if found else said
        worker, kind = self.server.worker, self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if found and found[2] not in (None, "$LATEST"):
            raise UnknownFunctionError(f"{name} has no version or alias {found[2]}: there is $LATEST")
        if body and not _is_json(body):
            text = "Could not parse request body into json"
            return _aws_error(400, "InvalidRequestContentException", text)
        headers = _client_context(self.headers.get("X-Amz-Client-Context"))
        if headers is None:
            text = "Client context must be a valid Base64-encoded JSON object."
            return _aws_error(400, "InvalidRequestContentException", text)
        worker.find(name)
        event = body or b"{}"
        if kind == "DryRun":
            return Reply(204, b"", {"X-Amz-Executed-Version": "$LATEST"})
        if kind == "Event":
            worker.later(name, event, headers)
            return Reply(202, b"", {"x-amzn-RequestId": str(uuid.uuid4())})
        if kind != "RequestResponse":
            return _aws_error(400, "InvalidParameterValueException", f"{kind[:80]!r} is no invocation type")
        tail = self.headers.get("X-Amz-Log-Type", "None") == "Tail"
        return _invoked(worker.invoke(name, event, headers), tail)

    def _body(self, most: int) -> bytes | None:
        """Return what was posted; None if it is too much. Raises ConnectionError for what is no body."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            return self._chunks(most)
        size = size_of(self.headers.get("Content-Length", ""))
        if size <= most:
            return self.rfile.read(size)
        # A client that is writing does not hear that it is too much.
        for _ in range(0, min(size, _DRAINED), 1 << 16):
            self.rfile.read(1 << 16 if size >= 1 << 16 else size)
            size -= 1 << 16
        return None

    def _chunks(self, most: int) -> bytes | None:
        found = bytearray()
        while size := size_of(self.rfile.readline(32).split(b";")[0], 16):
            if len(found) + size > most:
                return None
            found += self.rfile.read(size)
            self.rfile.readline(8)
        while self.rfile.readline(1 << 16).strip():
            pass  # trailers
        return bytes(found)

    def _refuse(self, reply: Reply) -> None:
        """Reply, and end the connection: what was posted has not been read."""
        self.close_connection = True
        self._reply(reply)

    def _reply(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in {"Content-Type": _JSON, **reply.headers}.items():
            self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(reply.body)


def _is_local(host: str) -> bool:
    """Whether a Host header has an address, or localhost; without one nobody was misled."""
    try:
        name = urlsplit(f"//{host.strip()}").hostname or ""
        return name in ("", "localhost") or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _most(headers: Any) -> int:
    return MOST_EVENT_BYTES if headers.get("X-Amz-Invocation-Type") == "Event" else MOST_BYTES


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _client_context(said: str | None) -> dict[str, str] | None:
    """Return the header that a runtime gets for it; None if it is not what it is to be."""
    if not said:
        return {}
    try:
        context = json.loads(base64.b64decode(said, validate=True))
    except (ValueError, RecursionError):
        return None
    # In one line of ASCII, as json writes it: it becomes a header.
    return {"Lambda-Runtime-Client-Context": json.dumps(context)} if isinstance(context, dict) else None


def _invoked(outcome: Outcome, tail: bool) -> Reply:
    headers = {"X-Amz-Executed-Version": "$LATEST", "x-amzn-RequestId": outcome.request_id}
    if outcome.answer.kind != "result":
        headers["X-Amz-Function-Error"] = "Unhandled"
    if tail:
        headers["X-Amz-Log-Result"] = base64.b64encode(outcome.tail).decode()
    return Reply(200, outcome.answer.body, headers)


def _refusal(error: Exception) -> Reply:
    """Return the reply for what keeps a function from being run."""
    if isinstance(error, UnknownFunctionError):
        return _aws_error(404, "ResourceNotFoundException", str(error))
    if isinstance(error, ThrottledError):
        reason = {"Reason": "ConcurrentInvocationLimitExceeded", "Retry-After": "1"}
        return _aws_error(429, "TooManyRequestsException", str(error), reason)
    return _aws_error(502, "InvalidRuntimeException", f"{type(error).__name__}: {error}")


def _aws_error(status: int, kind: str, text: str, more: Mapping[str, str] | None = None) -> Reply:
    said = {"Type": "User" if status < 500 else "Server", "Message": text, "message": text, **(more or {})}
    return Reply(
        status, json.dumps(said).encode(), {"x-amzn-ErrorType": kind, "x-amzn-RequestId": str(uuid.uuid4())}
    )


def serve(server: Server) -> None:
    """Answer until the process is interrupted."""
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1.0)
    finally:
        server.shutdown()
        server.server_close()
