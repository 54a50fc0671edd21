"""Sizes of bodies that are none: neither server reads on for them, however much is sent."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

import pytest

from shelf_tools.lambdabox.runtime_api import RuntimeApi
from shelf_tools.serving.server import Server

#: Seconds in which a server that reads on would not have answered.
_PATIENCE = 10.0
_SIZES = pytest.mark.parametrize(
    "head",
    [
        "Content-Length: -1\r\n\r\n",
        "Content-Length: many\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-ffffff\r\n",
    ],
)


def ask(address: tuple[str, int], path: str, head: str) -> bytes:
    """Post more than was said, and never end; return what comes until the connection is closed."""
    found = b""
    with socket.create_connection(address, timeout=_PATIENCE) as connection, suppress(ConnectionError):
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}".encode() + bytes(100))
        while data := connection.recv(1 << 16):
            found += data
    return found


@pytest.fixture
def api() -> Iterator[RuntimeApi]:
    """The Runtime API of a sandbox."""
    made = RuntimeApi()
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[Server]:
    """The server of ``shelf serve``, as far as it gets without a worker: no request here is one."""
    with Server("127.0.0.1", 0, cast(Any, None)) as made:
        threading.Thread(target=made.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        made.shutdown()


@_SIZES
def test_the_runtime_api_ends_the_connection(api: RuntimeApi, head: str) -> None:
    """A function that says so gets no answer, and no memory."""
    host, _, port = api.address.partition(":")
    assert ask((host, int(port)), "/2018-06-01/runtime/invocation/x/response", head) == b""


@_SIZES
def test_the_server_refuses(server: Server, head: str) -> None:
    """As AWS does what it cannot read."""
    host, port = cast("tuple[str, int]", server.server_address)
    answer = ask((host, port), "/run/some", head)
    assert answer.startswith(b"HTTP/1.1 400 ")
