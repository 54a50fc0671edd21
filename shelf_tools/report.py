"""``shelf report``: a cold start as a picture, from the record that ``CLOUDIMPORT_TRACE`` makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.keys import package_of
from cloudimport.format.records import MALFORMED, integer, parse, text


class Request(NamedTuple):
    """A read of the shelf. ``size`` in bytes, -1 if it failed; ``package`` is "" for records."""

    key: str
    package: str
    start: int
    size: int
    began: int
    ended: int


class Came(NamedTuple):
    """A block that was fetched: by which request (-1: not known), and when it was ready."""

    block: str
    request: int
    ready: int


class Wait(NamedTuple):
    """A thread that waited for a block."""

    block: str
    began: int
    ended: int
    thread: int


class Import(NamedTuple):
    """A module that was run; ``depth`` counts the imports of its thread that were under way."""

    name: str
    package: str
    began: int
    ended: int
    thread: int
    depth: int = 0


class Share(NamedTuple):
    """What was fetched of a package, in bytes: ``unused`` is the part of it that nobody asked for."""

    name: str
    version: str
    installed: int
    fetched: int
    unused: int


class Run(NamedTuple):
    """One start. Times are microseconds since ``install()`` began."""

    program: str
    python: str
    target: str
    installed: int
    ended: int
    cpu: int
    requests: Sequence[Request]
    came: Sequence[Came]
    waits: Sequence[Wait]
    imports: Sequence[Import]
    shares: Sequence[Share]
    stats: Mapping[str, float]

    @classmethod
    def read(cls, path: Path) -> Run:
        """Return the run in a trace. Raises ConfigurationError in one line."""
        try:
            record = parse(path.read_bytes(), "trace", str(path))
            if "run" not in record:
                raise FormatError("it has no times")
            return cls._of(record, record["run"])
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        except (FormatError, *MALFORMED) as error:
            raise ConfigurationError(
                f"{path} is not the record of a run ({error}): make one with 'shelf trace'"
            ) from None

    @classmethod
    def _of(cls, record: Mapping[str, Any], run: Mapping[str, Any]) -> Run:
        requests = [
            Request(text(key), _package(key), integer(start), _size(size), integer(a), integer(b))
            for key, start, size, a, b in run["requests"]
        ]
        imports = [
            Import(text(name), text(package), integer(a), integer(b), integer(thread))
            for name, package, a, b, thread in run["imports"]
        ]
        return cls(
            text(run["program"]),
            text(run["python"]),
            text(record["target"]),
            integer(run["installed"]),
            integer(run["ended"]),
            integer(run["cpu"]),
            requests,
            [Came(text(block), _size(at), integer(ready)) for block, at, ready in run["blocks"]],
            [Wait(text(block), *map(integer, row)) for block, *row in run["waits"]],
            list(nested(imports)),
            [Share(text(name), text(version), *map(integer, row)) for name, version, *row in run["packages"]],
            {text(name): float(value) for name, value in record["stats"].items()},
        )

    @property
    def end(self) -> int:
        """When the last thing of those that are drawn was over."""
        rows: Iterator[Request | Wait | Import] = chain(self.requests, self.waits, self.imports)
        return max([self.installed, 1, *(row.ended for row in rows)])

    def bringer(self, wait: Wait) -> int:
        """Return which request a wait was for, -1 if none is known."""
        found = [c.request for c in self.came if c.block == wait.block and c.ready <= wait.ended]
        return found[-1] if found and found[-1] < len(self.requests) else -1


def _package(key: str) -> str:
    """Return the name of a key's package, "" for an index or a pointer."""
    return package_of(key).partition("==")[0] if key.startswith("packages/") else ""


def _size(value: object) -> int:
    return integer(value) if value != -1 else -1


def nested(imports: Sequence[Import]) -> Iterator[Import]:
    """Yield imports by thread and begin, each with how many others it is within."""
    thread, open_until = -1, list[int]()
    for row in sorted(imports, key=lambda row: (row.thread, row.began, -row.ended)):
        if row.thread != thread:
            thread, open_until = row.thread, []
        while open_until and open_until[-1] <= row.began:
            open_until.pop()
        yield row._replace(depth=len(open_until))
        open_until.append(row.ended)


def own_times(imports: Sequence[Import]) -> list[tuple[int, Import]]:
    """Return (microseconds without the imports within, import), the longest first; ``imports`` is nested."""
    spent = [row.ended - row.began for row in imports]
    within: list[int] = []
    for at, row in enumerate(imports):
        del within[row.depth :]
        if row.depth and len(within) >= row.depth:
            spent[within[row.depth - 1]] -= row.ended - row.began
        within.append(at)
    return sorted(((max(0, own), row) for own, row in zip(spent, imports, strict=True)), reverse=True)
