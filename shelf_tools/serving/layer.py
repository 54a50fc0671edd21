"""The runtime for the functions of one Python version, as a layer: the package and its codec, compiled."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from importlib.metadata import version as version_of
from pathlib import Path

import cloudimport
from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Target
from shelf_tools import process
from shelf_tools.fetch import fetch
from shelf_tools.interpreters import Interpreter
from shelf_tools.swap import new_folder

_CODEC = "backports.zstd"
_MARK = ".complete"
#: Seconds for compiling some ninety modules.
_TIMEOUT = 120.0


def runtime_layer(cache: Path, target: Target, python: Interpreter, environ: Mapping[str, str]) -> Path:
    """Return a folder to be mounted at /opt, made below ``cache`` if it is not there yet.

    The codec is the installed one where that fits, else it comes from the index that pip is configured for.
    Raises ConfigurationError, WheelError or OSError.
    """
    package = Path(cloudimport.__file__).parent
    name = f"{python.cache_tag}-{_digest(package)[:16]}"
    place = cache / "runtimes" / name
    if (place / _MARK).is_file():
        return place
    with new_folder(str(place), lambda folder: os.path.isfile(f"{folder}/{_MARK}")) as made:
        folder = Path(made, "python")
        shutil.copytree(package, folder / "cloudimport", ignore=shutil.ignore_patterns("__pycache__", "*.c"))
        if target.python < (3, 14):
            _add_codec(folder / "cloudimport" / "format", target, environ)
        _compile(python, folder)
        for path in (Path(made), *Path(made).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        Path(made, _MARK).touch()
    return place


def _digest(package: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.suffix in (".py", ".so", ".pem"):
            found.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return found.hexdigest()


def _add_codec(folder: Path, target: Target, environ: Mapping[str, str]) -> None:
    """Put the codec where the runtime looks first: a folder ``backports`` would be seen by functions."""
    suffix = target.extension_suffixes[0]
    for entry in sys.path:
        installed = Path(entry, "backports", "zstd", f"_zstd{suffix}")
        if installed.is_file():
            shutil.copyfile(installed, folder / installed.name)
            return
    with tempfile.TemporaryDirectory(prefix="cloudimport-serve-") as temporary:
        (wanted,) = parse_lines([f"{_CODEC}=={version_of(_CODEC)}"])
        (wheel,) = fetch([wanted], target, Path(temporary), env=environ).values()
        with zipfile.ZipFile(wheel.path) as archive:
            member = f"backports/zstd/_zstd{suffix}"
            if member not in archive.namelist():
                raise ConfigurationError(f"{wheel.filename} has no {member}")
            (folder / f"_zstd{suffix}").write_bytes(archive.read(member))


def _compile(python: Interpreter, folder: Path) -> None:
    command = [str(python.executable), "-I", "-m", "compileall", "-q"]
    command += ["--invalidation-mode", "unchecked-hash", str(folder)]
    done = process.run(command, timeout=_TIMEOUT)
    if done.returncode:
        raise CloudImportError(f"{python} cannot compile the runtime: {done.reason()}")
