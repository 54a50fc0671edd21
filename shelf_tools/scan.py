"""What an installed tree holds: every file with kind, mode, size and digest; metadata; native links.

docs/format.md, section 5. The tree comes out of the installer's sandbox and is hostile input:
nothing in it is executed, imported or followed.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterator
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.content import Content, File, Native, check_files
from cloudimport.format.records import check_path
from cloudimport.ids import Pin, Target, normalise_name
from shelf_tools.elf import MAGIC, Elf, read_elf

#: Bytes read at a time while a file is hashed; large enough that hashlib releases the GIL.
_CHUNK = 1 << 20
#: METADATA files longer than this (bytes) are cut: the fields that matter stand at the top.
_MAX_METADATA = 16 << 20

_ANY_X = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH

Note = Callable[[str], None]


def _silent(_: str) -> None:
    return


class _Read(NamedTuple):
    head: bytes
    size: int
    digest: str


def scan(tree: Path, pin: Pin, target: Target, note: Note = _silent) -> Content:
    """Return the content of the build whose files lie below ``tree``.

    Equal trees give equal contents. ``note`` is called with one line for each thing that a
    curator should know and that does not stop the publication: ``.pth`` files, names that differ
    only by case, files for another machine or C library, damaged ELF files, missing metadata.
    Raises FormatError for what a content cannot hold (links, devices, forbidden names).
    """
    files: list[File] = []
    native: dict[str, Native] = {}
    for path in sorted(_walk(tree), key=lambda path: path.encode("utf-8", "surrogatepass")):
        check_path(path, str(pin))
        file, head = _file(tree, path)
        files.append(file)
        if head.startswith(MAGIC) and file.kind == "native":
            elf = read_elf(tree / path)
            _note_elf(elf, path, target, note)
            if elf.native is not None:
                native[path] = elf.native
    check_files(tuple(files), str(pin))
    _note_names([file.path for file in files], note)
    metadata = _metadata(tree, pin, [file.path for file in files], note)
    requires = tuple(_fields(metadata, "Requires-Dist"))
    python = next(iter(_fields(metadata, "Requires-Python")), "")
    extras = tuple(_fields(metadata, "Provides-Extra"))
    return Content(pin.name, pin.version, str(target), tuple(files), requires, python, extras, native)


def _walk(tree: Path, below: str = "") -> Iterator[str]:
    """Yield the path of each regular file, without ``__pycache__``. Raises FormatError for others."""
    with os.scandir(tree / below) as entries:
        for entry in entries:
            path = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    yield from _walk(tree, path + "/")
            elif entry.is_file(follow_symlinks=False):
                yield path
            else:
                what = "a link" if entry.is_symlink() else "a special file"
                raise FormatError(f"{path!r} is {what}: only regular files can be published")


def _file(tree: Path, path: str) -> tuple[File, bytes]:
    """Return the row of one file and its first bytes."""
    read, mode = _read(tree / path)
    kind = kind_of(path, read.head)
    executable = bool(mode & _ANY_X) or kind == "script"
    return File(path, kind, executable, read.size, read.digest), read.head


def _read(path: Path) -> tuple[_Read, int]:
    """Return the first bytes, size and digest of a file, and its mode."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        mode = os.fstat(descriptor).st_mode
        digest, size, head = hashlib.sha256(), 0, b""
        while chunk := file.read(_CHUNK):
            head = head or chunk[:64]
            digest.update(chunk)
            size += len(chunk)
    return _Read(head, size, digest.hexdigest()), mode


def kind_of(path: str, head: bytes) -> str:
    """Return the kind of a file (docs/format.md, section 5) from its path and first bytes."""
    top, _, rest = path.partition("/")
    if top.endswith(".dist-info"):
        return "metadata"
    if head.startswith(MAGIC):
        return "native"
    if top == "bin" and "/" not in rest and head.startswith(b"#!python"):
        return "script"
    if path.endswith(".py"):
        return "source"
    return "bytecode" if path.endswith(".pyc") else "data"


def _note_elf(elf: Elf, path: str, target: Target, note: Note) -> None:
    if elf.damage:
        note(f"{path}: the ELF file is damaged ({elf.damage}); its libraries are not known")
    elif elf.machine != target.machine:
        note(f"{path}: is made for {elf.machine}, not for {target.machine}")
    elif elf.musl:
        note(f"{path}: is linked against musl, not glibc")


def _note_names(paths: list[str], note: Note) -> None:
    """Note names that are equal but for case or for how characters are composed, or that cannot be read."""
    folded: dict[str, str] = {}
    for path in paths:
        other = folded.setdefault(unicodedata.normalize("NFKC", path).casefold(), path)
        if other != path:
            same = "case" if other.casefold() == path.casefold() else "the form of its characters"
            note(f"{path}: differs from {other} only by {same}")
        if not path.isprintable():
            note(f"{path!a}: has characters that are not seen")


def _metadata(tree: Path, pin: Pin, paths: list[str], note: Note) -> Message:
    """Return the fields of the distribution's METADATA (core metadata specification), read leniently.

    The email parser reads what every tool has ever written; ``packaging.metadata`` refuses fields
    that do not matter here.
    """
    for path in paths:
        folder, _, base = path.partition("/")
        if base == "METADATA" and _is_of(folder, pin):
            with open(tree / path, "rb") as file:
                return BytesParser().parsebytes(file.read(_MAX_METADATA), headersonly=True)
    note(f"{pin} has no METADATA: its dependencies are not known")
    return Message()


def _is_of(folder: str, pin: Pin) -> bool:
    """Whether ``folder`` is the dist-info folder of the pin's distribution."""
    stem = folder.removesuffix(".dist-info")
    try:
        # From the right: there are wheels that spell the name with a hyphen.
        return stem != folder and normalise_name(stem.rpartition("-")[0]) == pin.name
    except ConfigurationError:
        return False


def _fields(metadata: Message, name: str) -> Iterator[str]:
    """Yield the values of a field, folded to one line, as UTF-8 text (broken bytes replaced)."""
    for value in metadata.get_all(name) or ():
        text = str(value).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        folded = " ".join(text.split())
        if folded:
            yield folded
