"""Exact pins for what is wanted, by uv.

The index is whatever uv has been told to use; nothing of that is written down.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.support.runtimes import find_python

#: Seconds for one resolution over a slow network.
_TIMEOUT = 600


def write_pins(wanted: Iterable[tuple[str, Iterable[str], str, Path]], header: str = "") -> bool:
    """Resolve each (name, requirements, version, file) and say how that went; returns whether all did."""
    failed = []
    for name, requirements, version, path in wanted:
        pins = resolve(requirements, version)
        if pins is None:
            failed.append(f"{name} for Python {version}")
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + pins)
        sys.stdout.write(f"{name} for Python {version}: {pins.count('==')} distributions\n")
    for line in failed:
        sys.stderr.write(f"not resolved: {line}\n")
    return not failed


def resolve(wanted: Iterable[str], version: str) -> str | None:
    """Return pins of requirements with all dependencies for a Python, wheels only.

    Returns None, and lets uv or this say why, if there are none.
    """
    python = find_python(version)
    if python is None:
        sys.stderr.write(f"there is no CPython {version} on this machine\n")
        return None
    uv = str(Path(sys.executable).with_name("uv"))
    done = subprocess.run(
        [uv, "pip", "compile", "-", "--python", python, "--only-binary", ":all:"]
        + ["--quiet", "--no-header", "--no-annotate", "--no-python-downloads"],
        input="\n".join(wanted),
        stdout=subprocess.PIPE,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None
