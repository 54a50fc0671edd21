"""The corpus: groups of packages, and the pins that each was resolved to."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
#: The group of the fast tests; the full run leaves it out, since the others have all of it.
SAMPLE = "sample"


@dataclass(frozen=True)
class Group:
    """Packages that install together: ``packages`` is name to reason, ``wanted`` what is resolved."""

    name: str
    packages: dict[str, str]
    wanted: tuple[str, ...]


def read_toml(path: Path) -> dict[str, object]:
    """Return a TOML file's table, on Python 3.10 by the module that pytest brings along."""
    try:
        toml = importlib.import_module("tomllib")
    except ModuleNotFoundError:
        toml = importlib.import_module("tomli")
    found: dict[str, object] = toml.loads(path.read_text())
    return found


def read_groups() -> dict[str, Group]:
    """Return the groups by name."""
    tables = read_toml(FOLDER / "packages.toml")
    instruments = tables.pop("instruments")
    assert isinstance(instruments, list)
    groups = {}
    for name, packages in tables.items():
        assert isinstance(packages, dict)
        groups[name] = Group(name, packages, tuple(sorted({*packages, *instruments})))
    return groups


def pins_file(group: str, version: str) -> Path:
    """Return where a group's pins for a Python are."""
    return FOLDER / f"{group}-{version}.txt"


def read_pins(path: Path) -> dict[str, str]:
    """Return the versions in a file of pins, by name."""
    lines = [line for line in path.read_text().splitlines() if "==" in line]
    return dict(line.split("==") for line in lines)
