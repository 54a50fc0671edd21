"""Real wheels from a package index, installed and traced in the sandbox."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudimport.ids import Pin, Target
from shelf_tools.install import Installed, install
from shelf_tools.interpreters import Interpreter
from shelf_tools.trace import Trace, trace
from tests.support.sandboxes import bubblewrap, others, running

pytestmark = pytest.mark.network


def downloaded(name: str, target: Target, into: Path) -> Iterator[tuple[Pin, Path]]:
    """Download a package with its dependencies for a target; yield pins and wheels."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--only-binary",
        ":all:",
        "--dest",
        str(into),
    ]
    command += ["--python-version", f"{target.python[0]}.{target.python[1]}"]
    for platform in ("manylinux_2_28", "manylinux_2_17", "manylinux2014"):
        command += ["--platform", f"{platform}_{target.machine}"]
    subprocess.run([*command, name], check=True)
    for wheel in sorted(into.glob("*.whl")):
        parts = wheel.name.split("-")
        yield Pin.of(parts[0], parts[1]), wheel


def published(name: str, target: Target, interpreter: Interpreter, folder: Path) -> tuple[Installed, Trace]:
    """Install a package and its dependencies, each alone, and trace the package."""
    done = {
        pin: install(wheel, pin, target, interpreter, bubblewrap(), into=folder / pin.name)
        for pin, wheel in downloaded(name, target, folder / "wheels")
    }
    pin = next(pin for pin in done if pin.name == name)
    beside = {other.name: (one.tree, one.code) for other, one in done.items() if other != pin}
    own = done[pin]
    return own, trace(pin, [name], own.tree, own.code, beside, interpreter, bubblewrap())


@pytest.mark.parametrize(
    ("name", "first", "native"),
    [
        ("requests", "requests/__init__.py", "charset_normalizer/md"),
        ("numpy", "numpy/__init__.py", "numpy.libs/libscipy_openblas"),
        ("pandas", "pandas/__init__.py", "pandas/_libs/"),
    ],
)
def test_real_package_installs_and_traces(tmp_path: Path, name: str, first: str, native: str) -> None:
    """The import works inside, starts at the package, and its libraries are in the order."""
    own, found = published(name, *running(), tmp_path)
    assert own.notes == ()
    assert (found.failed, found.notes, found.c_opened) == ({}, (), ())
    assert found.opened[0] == (name, first, "code")
    assert any(path.startswith(native) and kind == "file" for _, path, kind in found.opened)


@pytest.mark.long
@pytest.mark.parametrize(("target", "interpreter"), others(), ids=lambda value: str(value).split(" (")[0])
def test_real_packages_under_other_interpreters(
    tmp_path: Path, target: Target, interpreter: Interpreter
) -> None:
    """pandas with its dependencies installs and imports under every interpreter that is found."""
    _, found = published("pandas", target, interpreter, tmp_path)
    assert (found.failed, found.notes) == ({}, ())
