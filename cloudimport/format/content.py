"""WHAT a build installs: the content record (docs/format.md, section 5). Pure.

The runtime reads environment indexes only; this serves those who publish and verify.
"""

from __future__ import annotations

from cloudimport.errors import FormatError
from cloudimport.format.records import (
    FORMAT,
    MALFORMED,
    canonical,
    check_path,
    identity,
    integer,
    one_of,
    parse,
    text,
    texts,
)
from cloudimport.ids import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

KINDS = ("source", "bytecode", "native", "metadata", "script", "data")


class File(NamedTuple):
    """One installed file: path below the target folder, kind, mode bit, plain size in bytes, digest."""

    path: str
    kind: str
    executable: bool
    size: int
    digest: str


class Native(NamedTuple):
    """The dynamic section of a native file: ``DT_NEEDED``, ``DT_SONAME``, ``DT_RUNPATH`` or ``DT_RPATH``."""

    needed: tuple[str, ...]
    soname: str
    runpath: tuple[str, ...]


class Content(NamedTuple):
    """WHAT a build installs. ``files`` are sorted by the UTF-8 bytes of their paths."""

    name: str
    version: str
    target: str
    files: tuple[File, ...]
    requires: tuple[str, ...]
    requires_python: str
    extras: tuple[str, ...]
    native: dict[str, Native]

    def encode(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is the build's identity."""
        return canonical(
            {
                "format": FORMAT,
                "kind": "content",
                "name": self.name,
                "version": self.version,
                "target": self.target,
                "files": [list(file) for file in self.files],
                "requires": list(self.requires),
                "requires_python": self.requires_python,
                "extras": list(self.extras),
                "native": {
                    path: {"needed": list(n.needed), "soname": n.soname, "runpath": list(n.runpath)}
                    for path, n in self.native.items()
                },
            }
        )

    @classmethod
    def decode(cls, data: bytes, what: str = "content") -> Content:
        """Return the content that ``data`` holds. Raises FormatError."""
        record = parse(data, "content", what)
        try:
            files = tuple(_file(*row) for row in record["files"])
            native = {
                check_path(path, what): Native(texts(n["needed"]), text(n["soname"]), texts(n["runpath"]))
                for path, n in record["native"].items()
            }
            content = cls(
                *identity(record["name"], record["version"], record["target"]),
                files,
                texts(record["requires"]),
                text(record["requires_python"]),
                texts(record["extras"]),
                native,
            )
        except MALFORMED as error:
            raise FormatError(f"{what} is not a well-formed content: {error!r}") from None
        for file in files:
            check_path(file.path, what)
        check_files(files, what)
        return content


def _file(path: object, kind: object, executable: object, size: object, digest: object) -> File:
    """Return a file's row. Raises ValueError."""
    if not isinstance(executable, bool):
        raise ValueError(f"{path!r}: executable is not true or false")
    return File(text(path), one_of(kind, KINDS), executable, integer(size), check_digest(digest))


def check_files(files: tuple[File, ...], what: str) -> None:
    """Check order, kinds and that no path is a folder of another. Raises FormatError."""
    folders: set[str] = set()
    for file in files:
        head = file.path.rpartition("/")[0]
        while head and head not in folders:
            folders.add(head)
            head = head.rpartition("/")[0]
    previous = b""
    for file in files:
        key = file.path.encode()
        if key <= previous:
            raise FormatError(f"{what}: files are not sorted or not distinct at {file.path!r}")
        if file.path in folders:
            raise FormatError(f"{what}: {file.path!r} is both a file and a folder")
        if file.kind not in KINDS or file.size < 0:
            raise FormatError(f"{what}: {file.path!r} has kind {file.kind!r} and size {file.size}")
        previous = key
