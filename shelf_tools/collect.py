"""Reading what comes out of a sandbox: one tar stream, hostile, into a folder.

The reader knows exactly what ``inside/install_wheel.py`` writes (ustar headers and GNU long names)
and refuses everything else, so extended headers, sparse maps and links never reach any code that
would follow them. ``tarfile`` is not used on this side: it reads extended headers of any size into
memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloudimport.errors import CloudImportError, FormatError
from cloudimport.format.records import check_path

_BLOCK = 512
_CHUNK = 1 << 18
#: Bytes: more than any writer pads a stream with.
_PADDING = 1 << 20
#: Bytes of a path in the stream: docs/format.md's 1,024 and the prefix that is taken off it.
_LONGEST_NAME = 1100
_FILE, _OLD_FILE, _FOLDER, _LONG_NAME = b"0", b"\0", b"5", b"L"
_BYTECODE = "__pycache__"
_REFUSED = {b"1": "a hard link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a named pipe"}


class OutputError(CloudImportError):
    """What came out of the sandbox is not accepted; the text names the path and the reason."""


class TruncatedOutputError(OutputError):
    """The output ended in the middle: whoever wrote it failed or was killed."""


class OverflowingOutputError(OutputError):
    """The output is more than its bounds allow; ``field`` is the bound's name among a sandbox's limits."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Bounds:
    """What a stream may hold: bytes of contents, files (and as many folders), bytes of the largest file."""

    bytes: int
    files: int
    file_bytes: int


@dataclass(frozen=True)
class _Entry:
    path: str
    executable: bool
    size: int


def code_file(code: Path, path: str) -> Path:
    """Return where the code object of the source ``path`` lies below an ``Installed.code``."""
    return code / (path + ".code")


def collect(stream: BinaryIO, into: Path, bounds: Bounds) -> int:
    """Write the files of a tar stream below ``into``, an existing empty folder; return their number.

    Files get mode 0644 or 0755 and belong to the caller. Folders are made as files need them, so
    empty ones are dropped, and so is whatever lies in a ``__pycache__``. Raises OutputError, with
    one line that names the path, for anything but files and folders, for setuid and setgid bits,
    for names that docs/format.md does not allow, for a name that comes twice, for more than
    ``bounds``, and for a stream that ends early.
    """
    seen: set[str] = set()
    folders: set[str] = {""}
    total = 0
    for entry in _entries(stream, bounds.files):
        total += entry.size
        if entry.size > bounds.file_bytes:
            raise OverflowingOutputError(
                f"{entry.path!r} is larger than {bounds.file_bytes} bytes", "file_bytes"
            )
        if total > bounds.bytes:
            raise OverflowingOutputError(
                f"{entry.path!r}: the output is larger than {bounds.bytes} bytes", "output_bytes"
            )
        if entry.path in seen:
            raise OutputError(f"{entry.path!r} comes twice")
        seen.add(entry.path)
        if _BYTECODE in entry.path.split("/"):
            _skip(stream, entry.size)
        else:
            _make_folders(into, entry.path, folders)
            if len(folders) > bounds.files:
                raise OverflowingOutputError(
                    f"{entry.path[:200]!r}: the output has more than {bounds.files} folders", "output_files"
                )
            _write(stream, into, entry)
        _skip(stream, -entry.size % _BLOCK)
    _finish(stream)
    return len(seen)


def _finish(stream: BinaryIO) -> None:
    """Read the padding after the end mark, so that the writer is not cut off while it writes it."""
    if len(stream.read(_PADDING)) == _PADDING:
        raise OutputError("the output goes on after its end")


def _make_folders(into: Path, path: str, made: set[str]) -> None:
    """Make the folders of ``path`` that are not there yet, outermost first."""
    missing = []
    head = path.rpartition("/")[0]
    while head not in made:
        missing.append(head)
        head = head.rpartition("/")[0]
    for folder in reversed(missing):
        try:
            os.mkdir(into / folder, 0o755)
        except FileExistsError:
            raise OutputError(f"{folder!r} is a file and a folder in one") from None
        made.add(folder)


def _write(stream: BinaryIO, into: Path, entry: _Entry) -> None:
    """Write one file. ``into`` is the caller's own and holds no links, since none are ever made."""
    mode = 0o755 if entry.executable else 0o644
    try:
        descriptor = os.open(into / entry.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except (FileExistsError, IsADirectoryError):
        raise OutputError(f"{entry.path!r} is a file and a folder in one") from None
    with open(descriptor, "wb") as out:
        os.fchmod(descriptor, mode)
        for chunk in _read(stream, entry.size):
            out.write(chunk)


def _entries(stream: BinaryIO, most: int) -> Iterator[_Entry]:
    """Yield the files of the stream; the caller takes each one's contents and padding."""
    long_name: bytes | None = None
    count = 0
    while header := _header(stream):
        kind, size, mode = header[156:157], _number(header[124:136]), _number(header[100:108])
        if kind == _LONG_NAME:
            if long_name is not None or size > _LONGEST_NAME:
                raise OutputError("the output has a name that is too long")
            long_name = _exactly(stream, size).rstrip(b"\0")
            _skip(stream, -size % _BLOCK)
            continue
        count += 1
        if count > most:
            raise OverflowingOutputError(f"the output has more than {most} files", "output_files")
        path = _name(header, long_name)
        long_name = None
        if kind == _FOLDER and size == 0:
            continue
        if kind not in (_FILE, _OLD_FILE):
            raise OutputError(f"{path!r} is {_REFUSED.get(kind, 'neither a file nor a folder')}: refused")
        if mode & 0o6000:
            raise OutputError(f"{path!r} has a setuid or setgid bit: refused")
        yield _Entry(path, bool(mode & 0o111), size)


def _name(header: bytes, long_name: bytes | None) -> str:
    """Return the entry's path, checked by docs/format.md, section 5."""
    raw = long_name if long_name is not None else header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and long_name is None and header[345] != 0:
        raw = header[345:500].split(b"\0", 1)[0] + b"/" + raw
    try:
        path = raw.rstrip(b"/").decode("utf-8")
        # Bytecode folders are no path of a build; theirs are checked all the same, then dropped.
        check_path(path.replace(_BYTECODE, "_"), "the sandbox's output")
        return path
    except UnicodeDecodeError:
        raise OutputError(f"the name {raw[:100]!r} is not UTF-8") from None
    except FormatError as error:
        raise OutputError(str(error)) from None


def _header(stream: BinaryIO) -> bytes:
    """Return the next header with its checksum checked; b"" at the end mark, which must be there."""
    header = _exactly(stream, _BLOCK)
    if not any(header):
        return b""
    if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * 32:
        raise OutputError("the output is not a tar stream")
    return header


def _number(field: bytes) -> int:
    """Return an octal field. Binary (base 256) numbers, for files over 8 GiB, are not accepted."""
    text = field.split(b"\0", 1)[0].strip()
    if not text.isdigit() or len(text) > 12:
        raise OutputError("the output is not a tar stream")
    try:
        return int(text, 8)
    except ValueError:
        raise OutputError("the output is not a tar stream") from None


def _read(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, _CHUNK))
        if not chunk:
            raise TruncatedOutputError("the output ended early")
        size -= len(chunk)
        yield chunk


def _exactly(stream: BinaryIO, size: int) -> bytes:
    return b"".join(_read(stream, size))


def _skip(stream: BinaryIO, size: int) -> None:
    for _ in _read(stream, size):
        pass
