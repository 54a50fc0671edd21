"""A package index of a test's own, over HTTP: PEP 691 with upload times, behind a password or not."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from packaging.utils import parse_wheel_filename

from tests.support.httpserver import HttpServer, Reply, Request

_SIMPLE = "application/vnd.pypi.simple.v1+json"


@contextmanager
def package_index(
    wheels: Path, password: str = "", times: Mapping[str, str] | None = None
) -> Iterator[HttpServer]:
    """Serve the wheels of a folder below ``/simple/``; ``password`` is ``user:password``.

    ``times`` are upload times by file name (RFC 3339); others came in 2020.
    """
    wanted = "Basic " + base64.b64encode(password.encode()).decode()

    def answer(request: Request) -> Reply:
        if password and request.headers.get("authorization") != wanted:
            return Reply(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
        parts = unquote(request.target).strip("/").split("/")
        if parts[0] == "files":
            path = wheels / parts[1].removesuffix(".metadata")
            found = path.name == parts[1] and path.is_file()
            return Reply(200, path.read_bytes()) if found else Reply(404)
        files = [_row(path, times or {}) for path in sorted(wheels.glob("*.whl")) if _name(path) == parts[1]]
        page = {"meta": {"api-version": "1.1"}, "name": parts[1], "files": files, "versions": []}
        return Reply(200 if files else 404, json.dumps(page).encode(), {"Content-Type": _SIMPLE})

    with HttpServer(answer) as server:
        yield server


def _name(wheel: Path) -> str:
    return parse_wheel_filename(wheel.name)[0]


def _row(wheel: Path, times: Mapping[str, str]) -> dict[str, object]:
    data = wheel.read_bytes()
    return {
        "filename": wheel.name,
        "url": f"/files/{wheel.name}",
        "hashes": {"sha256": hashlib.sha256(data).hexdigest()},
        "size": len(data),
        "upload-time": times.get(wheel.name, "2020-01-01T00:00:00Z"),
    }
