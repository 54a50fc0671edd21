"""Virtual environments that have the runtime, as ``pip install cloudimport`` gives it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import uv

from cloudimport.ids import running_targets
from shelf_tools.interpreters import find_interpreter
from tests.support.children import REPOSITORY

#: Seconds for making a venv and installing one small wheel.
_TIMEOUT = 300


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
    _uv("venv", "--quiet", "--no-project", "--python", python, str(folder / "venv"))
    interpreter = str(folder / "venv" / "bin" / "python")
    _uv("pip", "install", "--quiet", "--compile-bytecode", "--python", interpreter, str(REPOSITORY))
    return interpreter


def install_packages(version: str, requirements: Path, folder: Path) -> Path:
    """Install pinned packages into a plain folder, as ``pip install --target`` does; return the folder."""
    python = find_python(version)
    assert python is not None, f"there is no CPython {version} on this machine"
    _uv(
        "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--link-mode", "copy",
        "--python", python, "--target", str(folder), "-r", str(requirements),
    )  # fmt: skip
    return folder


def _uv(*arguments: str) -> None:
    done = subprocess.run(
        [uv.find_uv_bin(), *arguments],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env={k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
