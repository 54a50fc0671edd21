"""Whether native code that was built on this machine runs on a target: PEP 600's rules.

A build takes what this machine's C library offers; a wheel that needs more than the target's has does
not load there. So the versions of the symbols that it needs decide, not the name of its file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from cloudimport.errors import CloudImportError
from cloudimport.ids import Pin, Target
from shelf_tools.elf import MAGIC, needed_versions, read_elf

#: What libraries of a distribution with that glibc offer at most: that of RHEL 7 (gcc 4.8), Amazon Linux 2
#: (gcc 7), RHEL 8 (gcc 8) and RHEL 9 (gcc 11); GCC manual, "ABI Policy and Guidelines", 3.
_OFFERED: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {
    (2, 17): {"GLIBCXX": (3, 4, 19), "CXXABI": (1, 3, 7), "GCC": (4, 8, 0)},
    (2, 26): {"GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)},
    (2, 28): {"GLIBCXX": (3, 4, 25), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)},
    (2, 34): {"GLIBCXX": (3, 4, 29), "CXXABI": (1, 3, 13), "GCC": (7, 0, 0)},
}
#: Libraries that every such system has (PEP 513, PEP 599); the dynamic loader is one too.
_EVERYWHERE = frozenset(
    """
    libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libnsl.so.1 libresolv.so.2
    libgcc_s.so.1 libstdc++.so.6 libz.so.1 libexpat.so.1 libglib-2.0.so.0 libgobject-2.0.so.0
    libgthread-2.0.so.0 libX11.so.6 libXext.so.6 libXrender.so.1 libICE.so.6 libSM.so.6 libGL.so.1
    """.split()
)
_VERSION = re.compile(r"(?P<library>GLIBC|GLIBCXX|CXXABI|GCC)_(?P<number>[0-9]+(?:\.[0-9]+)*)\Z")
#: Names that are versions too. Relative relocations in packed form came with glibc 2.36.
_KNOWN = {"GLIBC_ABI_DT_RELR": (2, 36)}


class PortableError(CloudImportError):
    """What was built does not run on the target; the text names pin, file and what it needs."""


def check_portable(tree: Path, pin: Pin, target: Target) -> None:
    """Check each native file of an installed tree. Raises PortableError for the first that does not fit."""
    files = list(_native_files(tree))
    own = {path.name for path in files}
    for path in files:
        problem = _problem(path, own, target)
        if problem:
            where = path.relative_to(tree)
            raise PortableError(
                f"{pin}: {where}, which was built on this machine, {problem}: publish for a target of this "
                "machine, or build a wheel on an older system and name its folder with --find-links"
            )


def _native_files(tree: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(tree):
        for name in names:
            path = Path(folder, name)
            with open(path, "rb") as stream:
                if stream.read(len(MAGIC)) == MAGIC:
                    yield path


def _problem(path: Path, own: set[str], target: Target) -> str:
    """Say why a file does not run on the target, or ""."""
    elf = read_elf(path)
    if elf.damage:
        return f"cannot be read ({elf.damage})"
    if elf.machine != target.machine:
        return f"is for {elf.machine}, and {target} is not"
    needed = elf.native.needed if elf.native else ()
    for name in needed:
        if name not in _EVERYWHERE and name not in own and not name.startswith("ld-linux"):
            return f"needs {name}, which is neither in the wheel nor on every system"
    try:
        versions = needed_versions(path)
    except ValueError as error:
        return f"cannot be read ({error})"
    beyond = [version for version in versions if not _offered(version, target)]
    return f"needs {max(beyond, key=_number)}, and {target} has less" if beyond else ""


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"[0-9]+", version)))


def _offered(version: str, target: Target) -> bool:
    """Whether a target's libraries have a symbol version; of libraries that are in the wheel, always."""
    if version in _KNOWN:
        return _KNOWN[version] <= target.glibc
    found = _VERSION.match(version)
    if found is None:
        return not version.startswith("GLIBC_")  # GLIBC_PRIVATE is no other library's business
    most = {"GLIBC": target.glibc, **_OFFERED[target.glibc]}[found["library"]]
    return _number(found["number"]) <= most
