"""Dynamic sections of ELF files, read with pyelftools from files that nobody has vouched for.

Only the program headers are looked at, as the dynamic loader does: section headers say nothing
about how a file is loaded, may be stripped, and are where a damaged file could make a reader run
for hours. ELF: System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, cast

from elftools.elf.elffile import ELFFile

from cloudimport.format.content import Native

MAGIC = b"\x7fELF"
#: Dynamic entries that are read, at the most. The largest library seen (torch) has 60.
_MAX_TAGS = 4096
#: Longest name in a dynamic section that is believed, in characters (PATH_MAX on Linux is 4,096 bytes).
_MAX_NAME = 65536
#: e_shoff, then e_shnum and e_shstrndx, as (offset, bytes) in a file header, by ELF class.
_SECTION_FIELDS = {1: ((32, 4), (48, 4)), 2: ((40, 8), (60, 4))}
#: e_phentsize by ELF class; another value is damage.
_PROGRAM_HEADER = {1: (42, 32), 2: (54, 56)}
_MACHINES = {"EM_X86_64": "x86_64", "EM_AARCH64": "aarch64"}


class Elf(NamedTuple):
    """What the loader would see. ``machine`` is as in a target, or ELF's own name for another one.

    ``native`` is None where there is no (readable) dynamic section; ``damage`` then says why,
    or is "" for a file that simply has none.
    """

    machine: str
    native: Native | None
    damage: str

    @property
    def musl(self) -> bool:
        """Whether the file is linked against musl, which no target of this format has."""
        needed = self.native.needed if self.native else ()
        return any(name == "libc.so" or name.startswith(("libc.musl-", "ld-musl-")) for name in needed)


def read_elf(path: Path) -> Elf:
    """Return what the ELF file at ``path`` says of itself. Damage never raises; OSError may."""
    with open(path, "rb") as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
                _drop_sections(view)
                return _read(view)
        except OSError:
            raise
        except Exception as error:  # noqa: BLE001 - pyelftools raises whatever the damage leads it to
            return Elf("", None, str(error) or type(error).__name__)


def needed_versions(path: Path) -> tuple[str, ...]:
    """Return the versions of symbols that a file needs of its libraries, such as ``GLIBC_2.17``.

    Raises ValueError for a file in which they cannot be read, and OSError.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
        try:
            _drop_sections(view)
            elf = ELFFile(cast(Any, view))
            dynamic: Any = next((s for s in elf.iter_segments() if s["p_type"] == "PT_DYNAMIC"), None)
            return tuple(sorted(set(_versions(view, elf, dynamic)))) if dynamic is not None else ()
        except Exception as error:  # pyelftools raises whatever the damage leads it to
            raise ValueError(str(error) or type(error).__name__) from error


def _versions(view: mmap.mmap, elf: ELFFile, dynamic: Any) -> Iterator[str]:
    """Yield the names in DT_VERNEED (Linux Standard Base, "Symbol Versioning"). Raises as ``_native``."""
    count = next((tag.entry.d_val for tag in dynamic.iter_tags("DT_VERNEEDNUM")), 0)
    at, names = dynamic.get_table_offset("DT_VERNEED")[1], dynamic.get_table_offset("DT_STRTAB")[1]
    if not count or at is None:
        return
    order, read = "<" if elf.little_endian else ">", 0
    for _ in range(min(count, _MAX_TAGS)):
        _, auxiliary, _, first, following = struct.unpack_from(order + "HHIII", view, at)
        here = at + first
        for _ in range(auxiliary):
            read += 1
            _, _, _, name, step = struct.unpack_from(order + "IHHII", view, here)
            if read > _MAX_TAGS or names is None:
                raise ValueError("the table of needed versions has no end")
            end = view.find(b"\0", names + name, names + name + _MAX_NAME)
            if end < 0:
                raise ValueError("a name in the table of needed versions has no end")
            yield view[names + name : end].decode("ascii")
            here += step
        at += following


def _drop_sections(view: mmap.mmap) -> None:
    """Make a private copy of the header say that there are no sections. Raises ValueError."""
    wide = view[4]
    if wide not in _SECTION_FIELDS or len(view) < 64:
        raise ValueError("no ELF header")
    at, expected = _PROGRAM_HEADER[wide]
    size, count = struct.unpack("<HH" if view[5] == 1 else ">HH", view[at : at + 4])
    if count and size != expected:
        raise ValueError(f"program headers of {size} bytes")
    for offset, length in _SECTION_FIELDS[wide]:
        view[offset : offset + length] = bytes(length)


def _read(view: Any) -> Elf:
    elf = ELFFile(view)
    machine = str(elf["e_machine"])
    machine = _MACHINES.get(machine, machine.removeprefix("EM_").lower())
    if machine == "x86_64" and elf.elfclass == 32:
        machine = "x32"
    dynamic: Any = next((s for s in elf.iter_segments() if s["p_type"] == "PT_DYNAMIC"), None)
    if dynamic is None:
        return Elf(machine, None, "")
    try:
        return Elf(machine, _native(dynamic), "")
    except Exception as error:  # noqa: BLE001 - see read_elf
        return Elf(machine, None, str(error) or type(error).__name__)


def _native(dynamic: Any) -> Native:
    """Return the names in a dynamic segment. Raises whatever a damaged one leads to."""
    needed: list[str] = []
    soname, runpath, rpath = "", "", ""
    for tag in islice(dynamic.iter_tags(), _MAX_TAGS):
        kind = tag.entry.d_tag
        if kind == "DT_NEEDED":
            needed.append(_name(tag.needed))
        elif kind == "DT_SONAME":
            soname = _name(tag.soname)
        elif kind == "DT_RUNPATH":
            runpath = _name(tag.runpath)
        elif kind == "DT_RPATH":
            rpath = _name(tag.rpath)
    return Native(tuple(needed), soname, tuple(part for part in (runpath or rpath).split(":") if part))


def _name(value: str) -> str:
    value.encode()  # a lone surrogate cannot stand in canonical JSON
    if len(value) > _MAX_NAME:
        raise ValueError("a name in the dynamic section has no end")
    return value
