"""Lambda's Invoke API over boxes of this machine, as far as clients of synchronous invocations use it.

"Invoke", AWS Lambda API reference: headers and errors are as there.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.support.lambdas import Function

_PREFIX, _SUFFIX = "/2015-03-31/functions/", "/invocations"
#: Bytes of a log that come back.
_TAIL = 4096


@contextmanager
def invoke_server(functions: Mapping[str, Function], timeout: float = 60.0) -> Iterator[str]:
    """Serve functions by name; yields the endpoint's URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            name = self.path.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            if name not in functions:
                text = {"Message": f"Function not found: {name}", "Type": "User"}
                error = {"x-amzn-ErrorType": "ResourceNotFoundException"}
                self._answer(404, json.dumps(text).encode(), error)
                return
            one = functions[name]
            before = len(one.log)
            answer = one.api.invoke(body, timeout=timeout, patience=60.0)
            headers = {"X-Amz-Executed-Version": "$LATEST"}
            if self.headers.get("X-Amz-Log-Type") == "Tail":
                tail = one.log[before:].encode()[-_TAIL:]
                headers["X-Amz-Log-Result"] = base64.b64encode(tail).decode()
            if answer.kind != "result":
                headers["X-Amz-Function-Error"] = "Unhandled"
            self._answer(200, answer.body, headers)

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
