"""A helper process: reads objects through fsspec for ``foreign.ForeignSource``.

Run as a script, never imported: it stands alone, with the ``sys.path`` that it is given.
Arguments: the control socket's number; a JSON object with ``url`` and ``path``. Over the control
socket come descriptors of channels. On a channel: a JSON line with ``key``, ``start`` and
``length`` (or null) in; a JSON line out, ``{"size": n}`` followed by n bytes, or ``{"error":
kind, "text": line}`` with kind configuration, absent, denied, range or unreachable. It ends when
the control socket closes.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import threading
from typing import Any
from urllib.parse import quote

#: What botocore, google-auth and azure-core raise for credentials, none of which is an OSError.
_DENIED = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
)
_BY_STATUS = {401: "denied", 403: "denied", 404: "absent", 410: "absent", 416: "range"}


class _Store:
    """fsspec's file system for a URL, made at the first read."""

    def __init__(self, url: str, path: list[str]) -> None:
        self._url = url
        self._path = path
        self._lock = threading.Lock()
        self._opened: tuple[Any, str] | None = None

    def read(self, key: str, start: int, length: int | None) -> bytes:
        system, root = self._open()
        # These take a URL where the others take a path.
        name = f"{root.rstrip('/')}/{quote(key) if root.startswith(('http://', 'https://')) else key}"
        if length is None:
            return bytes(system.cat_file(name))[start:]
        data = bytes(system.cat_file(name, start=start, end=start + length))
        # A server that ignores Range gives everything.
        return data[start : start + length] if len(data) > length else data

    def _open(self) -> tuple[Any, str]:
        with self._lock:
            if self._opened is None:
                sys.path[:] = self._path
                core: Any = importlib.import_module("fsspec.core")
                self._opened = core.url_to_fs(self._url)
            return self._opened


def _kind(error: BaseException) -> str:
    for name in ("status", "status_code", "code"):
        status = getattr(error, name, None)
        if isinstance(status, int) and status in _BY_STATUS:
            return _BY_STATUS[status]
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        return "absent"
    if isinstance(error, PermissionError) or type(error).__name__ in _DENIED:
        return "denied"
    return "unreachable"


def _advice(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == "fsspec":
        return "reading it needs fsspec: pip install fsspec"
    return f"fsspec cannot open it: {_line(error)}"


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"


def _answer(store: _Store, question: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        data = store.read(question["key"], question["start"], question["length"])
    except (ImportError, ValueError, TypeError) as error:
        # What fsspec says of a scheme that it does not know, and of a plugin that is not there.
        return {"error": "configuration", "text": _advice(error)}, b""
    except Exception as error:  # noqa: BLE001 - plugins' own libraries have no common root
        return {"error": _kind(error), "text": _line(error)}, b""
    return {"size": len(data)}, data


def _serve(channel: socket.socket, store: _Store) -> None:
    with channel, channel.makefile("rb") as reader:
        for line in reader:
            answer, data = _answer(store, json.loads(line))
            channel.sendall(json.dumps(answer).encode() + b"\n")
            channel.sendall(data)


def main() -> None:
    """Serve channels until the control socket closes."""
    question = json.loads(sys.argv[2])
    store = _Store(question["url"], question["path"])
    with socket.socket(fileno=int(sys.argv[1])) as control:
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
            if not message:
                break
            channel = socket.socket(fileno=descriptors[0])
            threading.Thread(target=_serve, args=(channel, store), daemon=True).start()
    # Plugins keep event loops in threads, which would hold up an orderly end.
    os._exit(0)


if __name__ == "__main__":
    main()
