"""A few small wheels in a folder, and how the ``shelf`` command is told to use nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.support.wheels import build_wheel

PINS = ("alpha==1.0", "beta==2.0", "gamma==3.0")


def files_of(name: str, variant: str = "") -> dict[str, str | bytes]:
    """Return the modules and data of a package; ``variant`` makes other bytes."""
    other = "" if name == "alpha" else "try:\n    import alpha\nexcept ImportError:\n    alpha = None\n"
    return {
        f"{name}/__init__.py": f"{other}from {name} import one\nNAME = {name!r}\n",
        f"{name}/one.py": f"VALUE = {variant!r}\n" + "def f():\n    return 1\n" * 300,
        f"{name}/two.py": "def g():\n    return 2\n" * 300,
        f"{name}/noise.bin": bytes(range(256)) * 2000,
    }


def make_wheels(folder: Path, variant: str = "") -> dict[str, str]:
    """Write the wheels; return an environment that takes packages from there only."""
    for name, version in (pin.split("==") for pin in PINS):
        requires = [] if name == "alpha" else ["alpha>=1"]
        build_wheel(folder, name, version, files_of(name, variant), requires=requires)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}


def write_requirements(path: Path, lines: tuple[str, ...] = PINS) -> Path:
    """Write a requirements file."""
    path.write_text("".join(line + "\n" for line in lines))
    return path
