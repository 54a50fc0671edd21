"""Virtual environments that have the runtime, as ``pip install cloudimport`` gives it, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from cloudimport.ids import running_targets
from shelf_tools.interpreters import find_interpreter
from tests.support.children import REPOSITORY

#: Seconds for installing some fifty wheels.
_TIMEOUT = 600


def running_version() -> str:
    """Return the version of the running interpreter, as ``3.12``."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def find_python(version: str) -> str | None:
    """Return a CPython of that version on this machine, or None."""
    major, _, minor = version.partition(".")
    found = find_interpreter(running_targets()[0]._replace(python=(int(major), int(minor))))
    return str(found.executable) if found else None


def make_runtime(version: str, folder: Path) -> str:
    """Make a venv below ``folder`` with the package from this repository; return its interpreter."""
    python = find_python(version)
    assert python is not None, f"there is no CPython {version} on this machine"
    _run(python, "-m", "venv", "--without-pip", str(folder / "venv"))
    interpreter = str(folder / "venv" / "bin" / "python")
    shutil.rmtree(REPOSITORY / "build", ignore_errors=True)  # an earlier version
    _pip(interpreter, "install", "--quiet", "--compile", str(REPOSITORY))
    return interpreter


def install_packages(version: str, requirements: Path, folder: Path) -> Path:
    """Install pinned packages into a plain folder, as ``pip install --target`` does; return the folder."""
    python = find_python(version)
    assert python is not None, f"there is no CPython {version} on this machine"
    wanted = ("--no-deps", "--only-binary", ":all:", "--target", str(folder), "-r", str(requirements))
    _pip(python, "install", "--quiet", *wanted)
    return folder


def _pip(python: str, *arguments: str) -> None:
    """Run this environment's pip for another interpreter, with the certificates and indexes it knows."""
    _run(
        sys.executable,
        "-m",
        "pip",
        "--no-input",
        "--disable-pip-version-check",
        "--python",
        python,
        *arguments,
    )


def _run(*command: str) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
