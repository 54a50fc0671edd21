"""Taking the source out of an installed tree: what ``compileall -b`` leaves once the ``.py`` files are gone.

The bytecode was made in the sandbox (``install``); here files are moved, and RECORD is written anew. The tree
is hostile input: nothing in it is executed or followed.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from cloudimport.errors import CloudImportError
from shelf_tools.collect import code_file

#: PEP 552: by the source's hash, never checked, and nothing is told of the source: there is none to check.
_HEADER_AFTER_MAGIC = (0b01).to_bytes(4, "little") + bytes(8)
#: Files that have the source of native modules; they stay, and are counted in a note.
_NATIVE_SOURCES = (".pyx", ".pxi", ".c", ".cc", ".cpp", ".cxx", ".rs", ".f", ".f90")
#: What an installer notes of a source that does not compile, which is not so here.
_STAYS = ": does not compile, stays source: "


class NoSourcesError(CloudImportError):
    """A package has no source that could be left out."""


def strip(tree: Path, code: Path, magic: str, notes: Sequence[str]) -> list[str]:
    """Put bytecode in place of every ``.py`` file of ``tree``; return notes, with ``notes`` of the install.

    ``code`` and ``magic`` are as ``Installed`` has them. What has no bytecode is left out. Raises
    NoSourcesError if there is none, OSError.
    """
    sources = [path for path in _files(tree) if path.endswith(".py")]
    if not sources:
        raise NoSourcesError("it has no .py files: publish it without --bytecode-only")
    left_out = [path for path in sources if not _replace(tree, code, path, magic)]
    _write_record(tree)
    kept = [note for note in notes if _STAYS not in note]
    return [*kept, *_notes(tree, left_out)]


def _files(tree: Path) -> list[str]:
    """Return the paths of all files below ``tree``, sorted by their bytes."""
    found = []
    for folder, _, names in os.walk(tree):
        below = os.path.relpath(folder, tree)
        found += [name if below == "." else f"{below}/{name}" for name in names]
    return sorted(found, key=os.fsencode)


def _replace(tree: Path, code: Path, path: str, magic: str) -> bool:
    """Replace one source by its bytecode; return whether it has any. A script is no module: it has none."""
    compiled = code_file(code, path)
    is_module = compiled.is_file() and not path.startswith("bin/")
    if is_module:
        data = bytes.fromhex(magic) + _HEADER_AFTER_MAGIC + compiled.read_bytes()
        target = tree / f"{path}c"
        target.unlink(missing_ok=True)  # a wheel may bring one of its own, which the source comes before
        target.write_bytes(data)
        target.chmod(0o644)
    (tree / path).unlink()
    return is_module


def _notes(tree: Path, left_out: Sequence[str]) -> Iterator[str]:
    for path in left_out:
        why = "a script is no module" if path.startswith("bin/") else "it does not compile"
        yield f"{path}: left out, without bytecode in its place: {why}"
    rest = _files(tree)
    for path in rest:
        if path.startswith("bin/") and not _is_launcher(tree / path):
            yield f"{path}: a script of its own stays as it is"
    native = [path for path in rest if path.endswith(_NATIVE_SOURCES)]
    if native:
        yield f"{len(native)} files with source of native modules stay, such as {native[0]}"


def _is_launcher(path: Path) -> bool:
    """Whether a script is what an installer makes of an entry point (docs/format.md, section 5)."""
    with open(path, "rb") as stream:
        lines = stream.read(2000).splitlines()
    return len(lines) == 6 and lines[0] == b"#!python" and lines[3] == b'if __name__ == "__main__":'


def _write_record(tree: Path) -> None:
    """Write RECORD over what is there now, as the installer does (docs/format.md, section 5)."""
    for record in tree.glob("*.dist-info/RECORD"):
        place = record.relative_to(tree).as_posix()
        rows = [(path, *_measured(tree / path)) for path in _files(tree) if path != place]
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(sorted([*rows, (place, "", "")]))
        record.write_bytes(text.getvalue().encode())


def _measured(path: Path) -> tuple[str, str]:
    """Return RECORD's digest and size of a file (PEP 376)."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    encoded = base64.urlsafe_b64encode(digest.digest()).decode().rstrip("=")
    return f"sha256={encoded}", str(path.stat().st_size)
