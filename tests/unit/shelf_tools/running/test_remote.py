"""What is said of a function that is no runner."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import lambda_layer
from lambda_layer import runner
from shelf_tools.running.functions import Program
from shelf_tools.running.remote import InvokeError, RemoteRunner

_TEMPLATE = Path(lambda_layer.__file__).parent / "templates" / "runner.yaml"


@pytest.mark.parametrize("answer", [[1], {"targets": ["none"]}, {}])
def test_the_handler_of_a_runner_is_named_as_in_its_template(
    answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And there is a function of that name in the one file that is deployed."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        asked = RemoteRunner("some", url, Program(Path("f.py"), b"", {}), lambda function, line: None)
        with pytest.raises(InvokeError) as raised:
            asked.targets()
        server.shutdown()
    handler = str(raised.value).partition("the handler of one is ")[2].split()[0]
    assert f"Handler: {handler}\n" in _TEMPLATE.read_text()
    module, _, function = handler.partition(".")
    assert Path(runner.__file__).stem == module
    assert callable(getattr(runner, function))
