"""What a distribution has, read from the folder that pip has made: so it is known which behaviours apply."""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, field
from importlib.metadata import PathDistribution
from pathlib import Path

from cloudimport.ids import normalise_name

#: Notes of whoever has installed it: not the distribution's own, and made anew by each installer. What they
#: say is compared through ``importlib.metadata``. So are the launchers of entry points, which are run.
_INSTALLERS_OWN = ("RECORD", "INSTALLER")
_ELF = b"\x7fELF"
#: Extension modules that are also loaded by ctypes, apart from plain libraries.
_EXTENSIONS = 3


@dataclass
class Subject:
    """A distribution, as the probes get it (inside/behaviours/record.py)."""

    name: str
    version: str
    group: str
    files: list[str] = field(default_factory=list)
    roots: list[str] = field(default_factory=list)
    namespaces: list[str] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    mains: list[str] = field(default_factory=list)
    libraries: list[str] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    skip: list[str] = field(default_factory=list)

    def fields(self) -> dict[str, object]:
        """Return what is written down for the probes."""
        return asdict(self)


def read_subjects(plain: Path, group: str) -> list[Subject]:
    """Return all distributions in a folder, by name."""
    found = [_read(plain, folder, group) for folder in plain.glob("*.dist-info")]
    return sorted(found, key=lambda subject: subject.name)


def _read(plain: Path, folder: Path, group: str) -> Subject:
    distribution = PathDistribution(folder)
    name = normalise_name(distribution.metadata["Name"])
    subject = Subject(name, distribution.version, group, files=_files(plain, folder))
    _find_roots(plain, subject)
    _find_scripts(folder, subject)
    for file in subject.files:
        _sort(plain, file, subject)
    return subject


def _files(plain: Path, folder: Path) -> list[str]:
    """Return the files of a distribution that are there, relative to the root and sorted."""
    with (folder / "RECORD").open(newline="") as file:
        names = {row[0] for row in csv.reader(file) if row}
    own = {f"{folder.name}/{name}" for name in _INSTALLERS_OWN}
    own |= {f"bin/{name}" for name in _launchers(folder)}
    return sorted(name for name in names - own if (plain / name).is_file())


def _find_roots(plain: Path, subject: Subject) -> None:
    """Find the import names that the distribution owns: the topmost regular packages, and modules."""
    roots: set[str] = set()
    namespaces: set[str] = set()
    for file in subject.files:
        if not file.endswith((".py", ".so")) or file.startswith("bin/") or ".dist-info/" in file:
            continue
        *folders, last = file.split("/")
        parts = [*folders, last.partition(".")[0]]
        if not all(part.isidentifier() for part in parts):
            continue
        found, above = _topmost(plain, parts)
        roots.add(found)
        namespaces |= above
    subject.roots = sorted(roots)
    subject.namespaces = sorted(name for name in namespaces if not _is_plain_folder(name, roots))


def _topmost(plain: Path, parts: list[str]) -> tuple[str, set[str]]:
    namespaces: set[str] = set()
    for count in range(1, len(parts)):
        folder = plain.joinpath(*parts[:count])
        if any(folder.glob("__init__.*")):
            return ".".join(parts[:count]), namespaces
        namespaces.add(".".join(parts[:count]))
    return ".".join(parts), namespaces


def _is_plain_folder(name: str, roots: set[str]) -> bool:
    """Whether a folder without ``__init__`` holds no package that is imported through it."""
    return not any(root.startswith(name + ".") for root in roots)


def _find_scripts(folder: Path, subject: Subject) -> None:
    subject.scripts = [name for name in _launchers(folder) if (folder.parent / "bin" / name).is_file()]
    own = [file for file in subject.files if file.endswith("/__main__.py")]
    mains = [os.path.dirname(file).replace("/", ".") for file in own]
    subject.mains = sorted(m for m in mains if all(part.isidentifier() for part in m.split(".")))


def _launchers(folder: Path) -> list[str]:
    """Return the names of programs that an installer makes for a distribution."""
    points = PathDistribution(folder).entry_points
    return sorted({point.name for point in points if point.group in ("console_scripts", "gui_scripts")})


def _sort(plain: Path, file: str, subject: Subject) -> None:
    """Look at a file's first bytes for what it is good for."""
    path = plain / file
    with path.open("rb") as stream:
        head = stream.read(16)
    executable = bool(path.stat().st_mode & 0o100)
    if head.startswith(b"SQLite format 3\0"):
        subject.databases.append(file)
    elif head.startswith(b"PK\x03\x04") or file.endswith((".tar.gz", ".tar.xz", ".tar.bz2", ".tgz")):
        subject.archives.append(file)
    elif head.startswith(_ELF):
        _sort_elf(file, executable, subject)
    elif executable and head.startswith(b"#!") and file.removeprefix("bin/") not in subject.scripts:
        subject.programs.append(file)


def _sort_elf(file: str, executable: bool, subject: Subject) -> None:
    name = file.rpartition("/")[2]
    if ".so" not in name:
        if executable:
            subject.programs.append(file)
        return
    is_module = ".cpython-" in name or ".abi3." in name
    modules = sum(".cpython-" in library or ".abi3." in library for library in subject.libraries)
    if not is_module or modules < _EXTENSIONS:
        subject.libraries.append(file)


def environment_subject(group: str) -> Subject:
    """Return what stands for a group as a whole."""
    return Subject("(all)", group, group)
