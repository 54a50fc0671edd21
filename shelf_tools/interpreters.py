"""Finding an interpreter that fits a target: it compiles the bytecode and runs the trace."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.ids import Target
from shelf_tools import process

#: Seconds; an interpreter answers in 20 ms, a cold disk is slower.
_TIMEOUT = 60.0

_PROBE = """\
import importlib.util, json, os, platform, sys
print(json.dumps({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "flags": getattr(sys, "abiflags", ""),
    "machine": platform.machine(),
    "executable": os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable),
    "prefix": os.path.realpath(sys.base_prefix),
    "magic": importlib.util.MAGIC_NUMBER.hex(),
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A CPython on this machine.

    ``executable`` lies in ``prefix``, the folder to bind into a sandbox; ``lib`` is the folder with
    libpython and the standard library; ``magic`` is the pyc magic number, hexadecimal.
    """

    executable: Path
    prefix: Path
    version: tuple[int, int, int]
    magic: str
    lib: Path

    @property
    def cache_tag(self) -> str:
        """The tag in the names of its bytecode files, such as ``cpython-312`` (PEP 3147)."""
        return f"cpython-{self.version[0]}{self.version[1]}"

    def __str__(self) -> str:
        return f"CPython {'.'.join(map(str, self.version))} ({self.executable})"


def find_interpreter(target: Target, given: Sequence[Path] = ()) -> Interpreter | None:
    """Return an interpreter for ``target``: one that was given, the running one, else what uv, or a look at
    where pyenv and uv keep theirs, finds.

    It is a CPython with a GIL, of the target's minor version, and never a virtual environment's: its base
    is. It compiles for the target whatever the target's machine: "compiled modules are platform-independent"
    (the Python tutorial, "Compiled Python files"); only where ``runs_here`` does it also import what is for
    the target. None when this machine has no such interpreter; then there is no bytecode for the target, and
    readers compile from source.
    """
    for candidate in (*given, *([_running()] if tuple(sys.version_info[:2]) == target.python else ())):
        found = _probe(candidate, target.python)
        if found is not None:
            return found
    for candidate in (*_uv_find(target.python), *_kept(target.python)):
        found = _probe(candidate, target.python)
        if found is not None:
            return found
    return None


def runs_here(target: Target) -> bool:
    """Whether this machine runs what is built for ``target``, given an interpreter."""
    return target.machine == platform.machine()


def check_given(given: Iterable[Path], targets: Iterable[Target]) -> None:
    """Check interpreters that somebody named: each is one, and for one of the targets.

    Raises ConfigurationError.
    """
    wanted = sorted({target.python for target in targets})
    names = ", ".join(f"{major}.{minor}" for major, minor in wanted)
    for path in given:
        if not any(_probe(path, python) for python in wanted):
            raise ConfigurationError(
                f"{path} is not a CPython (with a GIL) of a version that is published for: {names}"
            )


def fitting(given: Iterable[Path], target: Target) -> tuple[Path, ...]:
    """Return those of some interpreters that are of a target's version."""
    return tuple(path for path in given if _probe(path, target.python))


def running_interpreter() -> Interpreter:
    """Return the curator's own interpreter, which installs for targets that have none here.

    Raises CloudImportError if it does not answer.
    """
    version = (sys.version_info[0], sys.version_info[1])
    own = _probe(_running(), version)
    if own is None:
        raise CloudImportError(f"{sys.executable} does not answer as CPython {version[0]}.{version[1]}")
    return own


def _running() -> Path:
    return Path(getattr(sys, "_base_executable", None) or sys.executable)


def _kept(python: tuple[int, int], environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Return interpreters beside the running one and below pyenv's root, newest name first.

    pyenv, mise, asdf and uv keep one folder a version; uv stumbles over pyenv's shims.
    """
    pyenv = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME") or "/", ".pyenv"))
    name = f"python{python[0]}.{python[1]}"
    folders = dict.fromkeys((Path(sys.base_prefix).parent, pyenv / "versions"))
    return [
        path
        for folder in folders
        for path in sorted(folder.glob(f"*{python[0]}.{python[1]}*/bin/{name}"), reverse=True)
    ]


def _uv_find(python: tuple[int, int]) -> list[Path]:
    """Ask ``uv python find``; uv reads the caller's environment (PATH, its managed interpreters)."""
    try:
        from uv import find_uv_bin

        command = [find_uv_bin(), "python", "find", "--no-project", "--no-python-downloads", "--system"]
        done = process.run([*command, f"cpython@{python[0]}.{python[1]}"], timeout=_TIMEOUT)
    except (ImportError, FileNotFoundError, process.ProcessError):
        return []
    path = done.stdout.decode("utf-8", "replace").strip()
    return [Path(path)] if done.returncode == 0 and path else []


@lru_cache(maxsize=32)
def _probe(executable: Path, python: tuple[int, int]) -> Interpreter | None:
    """Return what ``executable`` says that it is, or None if it is not what is looked for."""
    try:
        done = process.run([str(executable), "-I", "-S", "-c", _PROBE], timeout=_TIMEOUT)
        said = json.loads(done.stdout)
    except (process.ProcessError, ValueError):
        return None
    fits = (
        said["implementation"] == "cpython"
        and tuple(said["version"][:2]) == python
        and "t" not in said["flags"]
        and said["machine"] == platform.machine()
    )
    if not fits:
        return None
    prefix, path = Path(said["prefix"]), Path(said["executable"])
    if not path.is_relative_to(prefix):
        path = prefix / "bin" / f"python{python[0]}.{python[1]}"
        if not path.is_file():
            return None
    return Interpreter(path, prefix, tuple(said["version"]), said["magic"], prefix / "lib")
