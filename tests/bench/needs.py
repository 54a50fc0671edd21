"""What a start needs of what is installed, by whole files and by pages of 4 KiB.

A program runs from local site-packages. Which files it opens, an audit hook and its memory map say; which of
their pages, the page cache does: it is emptied of them before and asked afterwards, while the disk reads
nothing ahead (both need root; without it there are figures by file only).
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

_PAGE = mmap.PAGESIZE
#: Level of the blocks of a shelf (shelf_tools/pack.py): what a start needs, compressed as there.
_LEVEL = 9

#: Says on its last line which files below a folder were opened or mapped.
_PROGRAM = """\
import sys
_root, _seen = {root!r}, set()
def _hook(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        _seen.add(arguments[0] if isinstance(arguments[0], str) else arguments[0].decode())
sys.addaudithook(_hook)
{imports}
{first}
import json, os
_seen |= {{line.split(None, 5)[5].strip() for line in open("/proc/self/maps") if line.count("/")}}
_seen = sorted(p for p in map(os.path.realpath, _seen) if p.startswith(_root + "/") and os.path.isfile(p))
print("files", json.dumps(_seen), flush=True)
"""


class Needs(NamedTuple):
    """What one start needed of a tree, in bytes; ``pages`` are those of each file, None if not known."""

    files: list[str]
    size: int
    compressed: int
    pages: dict[str, bytes] | None

    @property
    def paged(self) -> int | None:
        """How many bytes the pages have that were read."""
        return None if self.pages is None else sum(map(sum, self.pages.values())) * _PAGE


def measure_needs(python: str, tree: Path, imports: str, first: str, folder: Path) -> dict[str, Any]:
    """Start a program twice from a tree of packages with bytecode; return what JSON can have of it."""
    program = folder / "needs.py"
    program.write_text(_PROGRAM.format(root=os.path.realpath(tree), imports=imports, first=first))
    one, two = (_start(python, tree, program) for _ in range(2))
    installed = sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
    return {
        "installed": installed,
        "files": len(one.files),
        "size": one.size,
        "compressed": one.compressed,
        "paged": one.paged,
        "same_files": _overlap(set(one.files), set(two.files)),
        "same_pages": None if one.paged is None else _overlap(_numbered(one), _numbered(two)),
    }


def _start(python: str, tree: Path, program: Path) -> Needs:
    everything = [path for path in tree.rglob("*") if path.is_file()]
    with _no_read_ahead(tree) as is_exact:
        for path in everything if is_exact else ():
            _drop(path)
        done = subprocess.run(
            [python, str(program)],
            cwd=program.parent,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(program.parent),
                "PYTHONPATH": str(tree),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=True,
        )
        files = json.loads(done.stdout.splitlines()[-1].removeprefix("files "))
        pages = {path: _resident(Path(path)) for path in files} if is_exact else None
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    compressed = sum(len(compressor.compress(Path(path).read_bytes())) for path in files)
    return Needs(files, sum(map(os.path.getsize, files)), compressed, pages)


def _numbered(needs: Needs) -> set[tuple[str, int]]:
    """Return the pages that were read, by file and number."""
    pages = needs.pages or {}
    return {(path, number) for path, has in pages.items() for number, there in enumerate(has) if there}


def _overlap(one: set[Any], two: set[Any]) -> float:
    return len(one & two) / len(one | two) if one | two else 1.0


@contextmanager
def _no_read_ahead(tree: Path) -> Iterator[bool]:
    """Have the disk of ``tree`` read nothing ahead; gives whether that could be had."""
    device = os.stat(tree).st_dev
    setting = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    try:
        before = setting.read_text()
        setting.write_text("0")
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        setting.write_text(before)


def _drop(path: Path) -> None:
    """Let the page cache forget a file."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)  # what is dirty stays
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def _resident(path: Path) -> bytes:
    """Return for each page of a file whether the page cache has it (mincore(2)), as 0 or 1."""
    size = path.stat().st_size
    if not size:
        return b""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    found = ctypes.create_string_buffer(-(-size // _PAGE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
        view = (ctypes.c_char * size).from_buffer(mapped)
        status = libc.mincore(ctypes.addressof(view), size, ctypes.addressof(found))
        del view
    if status:
        raise OSError(ctypes.get_errno(), f"mincore of {path}")
    return bytes(byte & 1 for byte in found.raw)
