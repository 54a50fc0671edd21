"""Faults by count: the k-th read, or the k-th request on the wire, goes wrong in a given way."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from pathlib import Path
from urllib.parse import unquote

from cloudimport.errors import UnreachableError
from cloudimport.sources.base import Source
from cloudimport.sources.reading import hand_out
from tests.support.httpserver import HttpServer, Reply, Request

_RANGE = re.compile(r"bytes=([0-9]+)-([0-9]*)\Z")


class Faulty:
    """A source whose ``k``-th read (from 1), and the ``times - 1`` after it, go wrong.

    ``fault``: an exception to raise; "short" (what a source without obligations would return:
    half the bytes); "wrong" (as many bytes, all of them other ones).
    """

    def __init__(self, source: Source, k: int, fault: BaseException | str, times: int = 1) -> None:
        self.url = source.url
        self.reads = 0
        self._source = source
        self._bad = range(k, k + times)
        self._fault = fault
        self._lock = threading.Lock()

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return the inner source's bytes, or fail."""
        with self._lock:
            self.reads += 1
            is_bad = self.reads in self._bad
        if not is_bad:
            return self._source.read(key, start, length)
        if isinstance(self._fault, BaseException):
            raise self._fault
        data = self._source.read(key, start, length)
        return data[: len(data) // 2] if self._fault == "short" else bytes(byte ^ 0xFF for byte in data)

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers with the inner source's bytes, or fail."""
        data = self.read(key, start, length)
        if len(data) < length:
            raise unreachable(key)
        hand_out(data, buffers)

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source."""
        self._source.forget()


def unreachable(key: str = "k") -> UnreachableError:
    """Return an error as a source gives it for a passing fault."""
    return UnreachableError(f"test: {key}: it broke off", key=key)


class FaultyServer(HttpServer):
    """Serves ``folder`` as ``/bucket/key`` GETs, like S3, and injects ``faults`` by request number.

    A fault is "reset", "close", "stall", "short", "wrong", "whole" (Range ignored), "chunked",
    "hang-up" (answers, then closes), "skew", "expired", "region", or a status: 301, 403, 404,
    500, 503. Fault number 0 stands for every request that has none of its own.
    """

    def __init__(
        self, folder: Path, faults: Mapping[int, str | int] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(self._answer, tls)
        self._folder = folder
        self.faults = dict(faults or {})

    def _answer(self, request: Request) -> Reply:
        fault = self.faults.get(request.number, self.faults.get(0, ""))
        if isinstance(fault, int):
            return _error(fault, _CODES.get(fault, "Other"))
        if fault in ("reset", "close", "stall"):
            return Reply(fault=fault)
        if fault in _ERRORS:
            return _ERRORS[fault]()
        return self._object(request, fault)

    def _object(self, request: Request, fault: str) -> Reply:
        path = self._folder / unquote(request.target).partition("/")[2].partition("/")[2]
        if not path.is_file():
            return _error(404, "NoSuchKey")
        data = path.read_bytes()
        match = None if fault == "whole" else _RANGE.match(request.headers.get("range", ""))
        reply = Reply(body=data) if match is None else _part(data, int(match[1]), match[2])
        if fault == "wrong":
            reply = reply._replace(body=bytes(byte ^ 0xFF for byte in reply.body))
        if fault == "short":
            reply = reply._replace(fault="short")
        return reply._replace(chunked=fault == "chunked", hang_up=fault == "hang-up")


_CODES = {
    301: "PermanentRedirect",
    403: "AccessDenied",
    404: "NoSuchKey",
    500: "InternalError",
    503: "SlowDown",
}


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Reply:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>a message</Message></Error>"
    return Reply(status, body.encode(), headers or {})


def _part(data: bytes, start: int, last: str) -> Reply:
    if start >= len(data):
        return _error(416, "InvalidRange")
    end = min(int(last) + 1, len(data)) if last else len(data)
    return Reply(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})


_ERRORS = {
    "skew": lambda: _error(
        403, "RequestTimeTooSkewed", {"Date": formatdate(time.time() + 7200, usegmt=True)}
    ),
    "expired": lambda: _error(400, "ExpiredToken"),
    "region": lambda: _error(400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-west-3"}),
}
