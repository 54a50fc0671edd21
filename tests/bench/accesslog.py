"""What a server's log says of a run: how many requests there were, and how many had to wait for another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

#: A line of radosgw's front end (beast): when it was answered, what it was, how long that took.
_LINE = re.compile(
    r'^(?P<logged>\S+) .* beast: .* "(?P<method>\S+) (?P<target>\S+) HTTP/\S+" (?P<status>\d+) '
    r"(?P<size>\d+) .*latency=(?P<latency>[\d.]+)s"
)


class Request(NamedTuple):
    """One request as the server saw it; times in seconds since the epoch."""

    start: float
    end: float
    method: str
    target: str
    status: int


class AccessLog:
    """The requests since the last time one asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def take(self) -> list[Request]:
        """Return the requests since the last call, in the order in which they were answered."""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        found = map(_LINE.search, whole.decode("utf-8", "replace").splitlines())
        return [_request(match) for match in found if match]


def _request(match: re.Match[str]) -> Request:
    end = datetime.fromisoformat(f"{match['logged'][:23]}+00:00").timestamp()
    return Request(end - float(match["latency"]), end, match["method"], match["target"], int(match["status"]))


def sequential(requests: Iterable[Request], round_trip: float) -> int:
    """Return how many of the requests, at least, came one after the other.

    One that waited for another's answer reaches the server a round trip (seconds) after that was sent;
    the longest chain of such is what latency is paid for.
    """
    count, free = 0, float("-inf")
    for request in sorted(requests, key=lambda request: request.end):
        # The log's clock is coarse (4 ms), hence not the whole of it.
        if request.start >= free:
            count += 1
            free = request.end + 0.7 * round_trip
    return count
