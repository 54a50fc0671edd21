"""Signs of networks: in what the running interpreter compiles, in texts, in native files."""

from __future__ import annotations

import marshal
import os
import textwrap

import pytest

from shelf_tools import network

#: A statement, and the signs that its bytecode shows.
CASES: dict[str, set[str]] = {
    "import socket": {"socket"},
    "import socket as anything": {"socket"},
    "from ssl import wrap_socket": {"ssl"},
    "import http.client": {"http.client"},
    "from http import client": {"http.client"},
    "from http.client import HTTPSConnection": {"http.client"},
    "import urllib.request": {"urllib.request"},
    "from urllib import request": {"urllib.request"},
    "from urllib.parse import quote": set(),
    "import urllib.parse": set(),
    "from http import HTTPStatus": set(),
    "import requests.adapters": {"requests"},
    "from requests.adapters import HTTPAdapter": {"requests"},
    "import requests_toolbelt": set(),
    "import httpx, httpcore": {"httpx", "httpcore"},
    "def f():\n    def g():\n        class A:\n            import smtplib": {"smtplib"},
    "import importlib\nm = importlib.import_module('socket')": {"socket"},
    "m = __import__('soc' + 'ket')": {"socket"},
    "async def f(asyncio):\n    await asyncio.open_connection('a', 1)": {"open_connection"},
    "x = 'a text about requests and sockets'": set(),
    "import os, json, re": set(),
    "try:\n    import _socket\nexcept ImportError:\n    import aiohttp.web": {"_socket", "aiohttp"},
    "lambda: exec(open('x').read())": set(),
}


@pytest.mark.parametrize("source", CASES)
def test_in_code(source: str) -> None:
    """What a code object names is found wherever it is in it; longer names are other names."""
    assert network.in_code(marshal.dumps(compile(source, "x.py", "exec"))) == CASES[source]


def test_every_module_and_function_is_found() -> None:
    """Each name of the lists, imported in a function between others, is a sign by itself."""
    for name in (*network._MODULES, *network._ASYNCIO):
        text = (
            f"import zzz\ndef f(a, b):\n    from {name} import {name}_x as z{name}\n    return a + z{name}\n"
        )
        assert network.in_code(marshal.dumps(compile(text, "x.py", "exec"))) == {name}


@pytest.mark.parametrize("kind", [b"Z", b"\xda", b"z", b"\xfa"])
def test_every_short_form_of_a_string(kind: bytes) -> None:
    """A name counts in whatever form marshal can hold it."""
    assert network.in_code(b"xyz" + kind + b"\x06socket" + b"abc") == {"socket"}
    assert network.in_code(b"xyz" + kind + b"\x08requests.adapters") == {"requests"}
    assert network.in_code(b"xyz" + kind + b"\x07socket" + b"abc") == set()
    assert network.in_code(kind + kind + b"\x06socket") == {"socket"}


@pytest.mark.parametrize("kind", [b"A", b"\xc1", b"a", b"\xe1", b"u", b"\xf5", b"t", b"\xf4"])
def test_every_long_form_of_a_string(kind: bytes) -> None:
    """Bytecode that a wheel brings can be of any form that the interpreter loads."""
    data = kind + b"\x03\0\0\0ssl"
    assert marshal.loads(data) == "ssl"
    assert network.in_code(data) == {"ssl"}


def test_noise_is_no_sign() -> None:
    """Random bytes, and names with another length before them, are none."""
    assert network.in_code(os.urandom(1 << 18)) == set()
    assert network.in_code(b"\x05socket socket ssl") == set()


def test_in_text() -> None:
    """Without bytecode a word of the source counts, be it in a comment; a part of a word does not."""
    text = textwrap.dedent(
        """
        from ssl import x  # and urllib3
        import websocket_like, my.socket
        import http.client as c
        loop.create_connection(None)
        import urllib.parse
        """
    )
    assert network.in_text(text.encode()) == {"ssl", "urllib3", "http.client", "create_connection"}
    assert network.in_text(b"") == set()


def test_in_native() -> None:
    """A symbol counts whole, with or without a version, also where it lies over two pieces."""
    data = b"\x7fELF\0disconnect\0getaddrinfo@GLIBC_2.2.5\0connected\0x"
    assert network.in_native([data]) == {"getaddrinfo"}
    for at in range(len(data)):
        assert network.in_native([data[:at], data[at:]]) == {"getaddrinfo"}
    assert network.in_native([]) == set()
