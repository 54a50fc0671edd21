"""One HTTP/1.1 connection: a request out, an answer in (RFC 9112).

Import budget: ``io``, ``time``; a connected socket is handed in.
"""

from __future__ import annotations

import io
import time

from cloudimport.sources.clock import clock
from cloudimport.sources.reading import hand_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

#: Bytes of a response head, at the most. S3's are below 2 KiB.
_MAX_HEAD = 65536
#: Bytes of a body of unknown use, at the most: no object of a shelf that is read whole is near.
_MAX_BODY = 1 << 30
#: Bytes that are kept of an error's body. S3's are below 2 KiB.
_MAX_ERROR = 65536
_PIECE = 1 << 18
#: Seconds after which a wait looks whether the process was suspended meanwhile, and after how long a
#: suspension a connection that says nothing is given up: the other side has not waited.
_LOOK, _LONG = 1.0, 5.0
#: Seconds for which is looked for an answer when its time is over before it was waited for.
_GLANCE = 0.05


class HttpError(Exception):
    """No usable answer. ``passing``: whether trying again may help."""

    def __init__(self, text: str, *, passing: bool = True) -> None:
        super().__init__(text)
        self.passing = passing


class StaleError(Exception):
    """The connection was dead before the first byte of an answer."""


class Window(NamedTuple):
    """The part of a 200 or 206 answer that is wanted, in bytes (``length`` None: to the end).

    It goes into ``buffers``, which are of that length together, one after another, if there are any; an
    answer that has less of it leaves them alone.
    """

    start: int = 0
    length: int | None = None
    buffers: Iterable[memoryview] | None = None


#: All of an answer, as its body.
WHOLE = Window()


class Response(NamedTuple):
    """An answer. Header names are in lower case. ``received``: bytes of the body, or in the buffers."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes
    received: int


class _Raw(io.RawIOBase):
    """A socket's incoming bytes under two limits: each silence, and ``until`` for all (running time)."""

    def __init__(self, sock: socket.socket, silence: float) -> None:
        super().__init__()
        self._sock = sock
        self._silence = silence
        self._timeout = -1.0
        self.limit(0.0)

    def limit(self, seconds: float) -> None:
        """Let the answer that is now asked for take so many seconds of running time."""
        self.until = clock.now() + seconds
        self._may_look = True

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        silent = 0.0
        while True:
            left = self.until - clock.now()
            if left <= 0:
                if not self._may_look:
                    raise TimeoutError("the whole answer took too long")
                # Who was suspended before it waited did not wait: what came meanwhile is taken.
                self._may_look, left = False, _GLANCE
            began = time.monotonic()
            wait = self.set_timeout(min(left, self._silence - silent, _LOOK))
            try:
                got = self._sock.recv_into(buffer)
            except TimeoutError:
                suspended = clock.waited(began, wait)
                if suspended > _LONG:
                    raise TimeoutError(f"the process was suspended for {suspended:.0f} s") from None
                silent += 0.0 if suspended else wait
                if silent >= self._silence:
                    raise
            else:
                clock.waited(began, wait)
                return got

    def set_timeout(self, seconds: float) -> float:
        """Set the socket's timeout, where it is another one: that takes a system call. Returns it."""
        if seconds != self._timeout:
            self._timeout = seconds
            self._sock.settimeout(seconds)
        return seconds


class Connection:
    """A connected socket and what of its next answer has arrived. Not thread-safe.

    ``silence``, ``total``: the longest pause and the longest exchange, in seconds. After any
    exception the connection must be closed.
    """

    def __init__(self, sock: socket.socket, silence: float, total: float) -> None:
        self._sock = sock
        self._silence = silence
        self._total = total
        self._raw = _Raw(sock, silence)
        # Reads larger than the buffer go straight into the bytes object that is returned.
        self._reader = io.BufferedReader(self._raw, 16384)
        self.reusable = True

    def close(self) -> None:
        """Close the socket. Never raises."""
        self.reusable = False
        try:
            self._sock.close()
        except OSError:
            pass

    def exchange(
        self, method: str, host: str, target: str, headers: Mapping[str, str], window: Window
    ) -> Response:
        """Send a request, return the answer. Raises StaleError before the first byte, else HttpError.

        What making the next buffer raises goes through.
        """
        began = time.monotonic()
        try:
            return self._exchange(method, host, target, headers, window)
        finally:
            clock.waited(began, self._total)  # it may have been suspended where nothing is waited for

    def _exchange(
        self, method: str, host: str, target: str, headers: Mapping[str, str], window: Window
    ) -> Response:
        status, reason, fields = self.head(method, host, target, headers)
        start, length, buffers = window
        body, received = b"", None
        if buffers is not None and length is not None and status in (200, 206):
            received = self._scatter(host, fields, start if status == 200 else 0, length, buffers)
        if received is None:
            try:
                body = self._body(method, status, fields, start, length)
            except OSError as error:
                raise _broken(host, error) from error
            received = len(body)
            if buffers is not None and status in (200, 206) and received == length:
                hand_out(body, buffers)
        if fields.get("connection", "").lower() == "close":
            self.reusable = False
        return Response(status, reason, fields, body, received)

    def head(
        self, method: str, host: str, target: str, headers: Mapping[str, str]
    ) -> tuple[int, str, dict[str, str]]:
        """Send a request without a body; return status, reason and headers of the answer."""
        lines = [f"{method} {target} HTTP/1.1", f"host: {host}", *(f"{k}: {v}" for k, v in headers.items())]
        if any("\r" in line or "\n" in line for line in lines):
            raise HttpError("a line break in a request's head", passing=False)
        self._raw.limit(self._total)
        self._send_and_wait("\r\n".join((*lines, "\r\n")).encode("latin-1"), host)
        status, reason = 100, ""
        while 100 <= status < 200:
            status, reason, fields = self._read_head(host)
        return status, reason, fields

    def _send_and_wait(self, data: bytes, host: str) -> None:
        try:
            self._raw.set_timeout(self._silence)
            self._sock.sendall(data)
            if not self._reader.peek(1):
                raise StaleError("end of file")
        except TimeoutError as error:
            raise HttpError(f"{host} did not answer within {min(self._silence, self._total):g} s") from error
        except OSError as error:
            raise StaleError(str(error)) from error

    def _read_head(self, host: str) -> tuple[int, str, dict[str, str]]:
        try:
            lines = self._head_lines()
            version, _, rest = lines[0].partition(" ")
            status, _, reason = rest.partition(" ")
            if not version.startswith("HTTP/1.") or len(status) != 3:
                raise ValueError(f"not a status line: {lines[0][:80]!r}")
            fields = dict(_field(line) for line in lines[1:])
            if version == "HTTP/1.0" and fields.get("connection", "").lower() != "keep-alive":
                self.reusable = False
            return int(status), reason, fields
        except (OSError, ValueError) as error:
            raise HttpError(f"{host} did not give a whole answer: {error}") from error

    def _head_lines(self) -> list[str]:
        lines: list[str] = []
        left = _MAX_HEAD
        while True:
            line = self._line(left)
            if not line:
                return lines or [""]
            lines.append(line)
            left -= len(line) + 1

    def _line(self, limit: int) -> str:
        line = self._reader.readline(max(limit, 0))
        if not line.endswith(b"\n"):
            raise ValueError("the head is too long" if len(line) >= limit else "the head is cut off")
        return line.rstrip(b"\r\n").decode("latin-1")

    def _scatter(
        self, host: str, fields: Mapping[str, str], start: int, length: int, buffers: Iterable[memoryview]
    ) -> int | None:
        """Fill buffers with ``length`` bytes of a body from ``start``; returns how many of them it has.

        None, and nothing is read, of a body whose size is not known; nor is it where it has fewer.
        """
        size = None if "transfer-encoding" in fields else _content_length(fields)
        if size is None:
            return None
        if start + length != size:
            self.reusable = False
        if start + length > size:
            return max(0, size - start)
        try:
            self._skip(start)
        except OSError as error:
            raise _broken(host, error) from error
        for buffer in buffers:
            try:
                got = self._reader.readinto(buffer)
            except OSError as error:
                raise _broken(host, error) from error
            if got < len(buffer):
                raise HttpError(f"the body ended {len(buffer) - got} bytes before a buffer was full")
        return length

    def _body(
        self, method: str, status: int, fields: Mapping[str, str], start: int, length: int | None
    ) -> bytes:
        if method == "HEAD" or status in (204, 304):
            return b""
        if "chunked" in fields.get("transfer-encoding", "").lower():
            body = self._chunked(_MAX_BODY if status < 300 else _MAX_ERROR)
            return _cut(body, start, length) if status == 200 else body
        size = _content_length(fields)
        if size is None:
            self.reusable = False
        if status >= 300:
            return self._part(0, _MAX_ERROR, size, strict=False)
        return self._part(*((start, length) if status == 200 else (0, None)), size, strict=True)

    def _part(self, start: int, length: int | None, size: int | None, *, strict: bool) -> bytes:
        """Return ``length`` bytes of a body of ``size`` from ``start``, or as many as it has."""
        if size is None:
            self._skip(start)
            return self._rest(_MAX_BODY if length is None else length)
        start = min(start, size)
        want = size - start if length is None else min(length, size - start)
        if want > _MAX_BODY:
            raise HttpError(f"a body of {size} bytes is more than a shelf has", passing=False)
        if start + want < size:
            self.reusable = False
        self._skip(start)
        body = self._reader.read(want) or b""
        if strict and len(body) < want:
            raise HttpError(f"the body ended after {len(body)} of {want} bytes")
        return body

    def _rest(self, limit: int) -> bytes:
        """Return what comes until the end of the connection, ``limit`` bytes at the most."""
        pieces: list[bytes] = []
        while limit > 0 and (piece := self._reader.read(min(limit, _PIECE))):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces)

    def _skip(self, count: int) -> None:
        while count > 0:
            piece = self._reader.read(min(count, _PIECE))
            if not piece:
                raise HttpError("the body ended too soon")
            count -= len(piece)

    def _chunked(self, limit: int) -> bytes:
        pieces: list[bytes] = []
        got = 0
        try:
            while size := int(self._line(256).partition(";")[0].strip(), 16):
                got += size
                if size < 0 or got > limit:
                    raise HttpError(f"a body of more than {limit} bytes", passing=False)
                pieces.append(self._reader.read(size) or b"")
                if len(pieces[-1]) < size or self._line(2):
                    raise HttpError("a chunk is cut off")
            while self._line(_MAX_HEAD):
                pass
        except ValueError as error:
            raise HttpError(f"a chunk has no size, or is cut off: {error}") from error
        return b"".join(pieces)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise ValueError(f"not a header: {line[:80]!r}")
    return name.lower(), value.strip()


def _content_length(fields: Mapping[str, str]) -> int | None:
    text = fields.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise HttpError(f"Content-Length {text[:40]!r} is not a number")
    return int(text)


def _broken(host: str, error: OSError) -> HttpError:
    return HttpError(f"{host} broke off in the middle of an answer: {error}")


def _cut(body: bytes, start: int, length: int | None) -> bytes:
    return body[start:] if length is None else body[start : start + length]
