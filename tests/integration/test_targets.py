"""``shelf publish --target``: for machines that are not here, in the order that is known from here."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import zstandard

from cloudimport.ids import Pin, Target, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import read_build, verify_build
from shelf_tools.indexing import Built
from shelf_tools.interpreters import find_interpreter
from tests.support.children import Ran
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

HERE = running_targets()[0]
OTHER_MACHINE = "aarch64" if HERE.machine == "x86_64" else "x86_64"
THERE = HERE._replace(machine=OTHER_MACHINE)
MINOR = HERE.python[1]
NATIVE, BASE = Pin.parse("native==1.0"), Pin.parse("base==1.0")

INIT = """\
import base.used
from native import z
try:
    from native import _core
except ImportError:
    pass
from native import a
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package with native code for two machines and any Python, and what it imports."""
    folder = tmp_path_factory.mktemp("wheels")
    files = {f"base/{name}.py": f"{name} = 1\n" for name in ("__init__", "unused", "used")}
    build_wheel(folder, "base", "1.0", files)
    modules = {f"native/{name}.py": f"{name} = 1\n" * 50 for name in ("a", "b", "y", "z")}
    for machine, digest in (("x86_64", "01234567"), ("aarch64", "89abcdef")):
        for python in range(10, 15):
            tag = f"cp3{python}-cp3{python}-manylinux_2_17_{machine}.manylinux2014_{machine}"
            extension = f"native/_core.cpython-3{python}-{machine}-linux-gnu.so"
            native = {extension: b"\x7fELF" + machine.encode(), f"native.libs/libq-{digest}.so.1": b"\x7fELF"}
            everything = {"native/__init__.py": INIT, **modules, **native}
            build_wheel(folder, "native", "1.0", everything, tag=tag, purelib=False, requires=["base"])
    for tag in ("cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-musllinux_1_2_aarch64"):
        build_wheel(folder, "picky", "1.0", {"picky.py": ""}, tag=tag, purelib=False)
    for tag in ("cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_34_aarch64"):
        build_wheel(folder, "modern", "1.0", {"modern.py": ""}, tag=tag, purelib=False)
    return folder


class Curator:
    """Publishes from the wheels to a folder shelf."""

    def __init__(self, wheels: Path, folder: Path) -> None:
        self.folder, self.shelf = folder, folder / "shelf"
        self._env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def publish(
        self, *targets: object, pins: str = "base==1.0\nnative==1.0\n", options: tuple[str, ...] = ()
    ) -> Ran:
        """Publish pins for targets."""
        (self.folder / "requirements.txt").write_text(pins)
        wanted = [part for target in targets for part in ("--target", str(target))]
        where = ("--shelf", self.shelf, "-r", self.folder / "requirements.txt")
        return run_shelf("publish", *where, *wanted, *options, env=self._env)

    def built(self, pin: Pin, target: Target) -> Built:
        """Return a build, which is sound."""
        source = open_source(str(self.shelf), SourceConfig())
        assert verify_build(source, pin, str(target)) == []
        built = read_build(source, pin, str(target))
        assert built is not None
        return built


@pytest.fixture
def curator(wheels: Path, tmp_path: Path) -> Curator:
    """A curator with a shelf of its own."""
    return Curator(wheels, tmp_path)


def lead(built: Built) -> list[str]:
    """Return what leads a build, in its order: modules by name, other files by path."""
    rows = [(e, p[: -len(".py")]) for p, e in built.layout.code.items()]
    rows += [
        (extents, file.path)
        for file, extents in zip(built.content.files, built.layout.files, strict=True)
        if extents and not file.path.endswith(".dist-info/RECORD")
    ]
    return [name for extents, name in sorted(rows) if extents[0] < built.layout.lead]


def extension(target: Target) -> str:
    """Return the name of the extension module for a target."""
    return f"native/_core.cpython-3{target.python[1]}-{target.machine}-linux-gnu.so"


def test_another_machine_takes_the_order_of_this_one(curator: Curator) -> None:
    """One command, two machines: what leads here leads there, with the names that files have there."""
    ran = curator.publish(THERE, HERE)
    assert [line.partition(":")[0] for line in ran.ok().splitlines()[:2]] == [str(THERE), str(HERE)]
    assert (
        f"note: packages for {THERE} cannot be imported on this machine: 2 ordered by their trace for {HERE}"
        in ran.stderr
    )
    here, there = curator.built(NATIVE, HERE), curator.built(NATIVE, THERE)
    mine = ["native/__init__", "native/z", extension(HERE), "native/a"]
    assert [name for name in lead(here) if name in mine] == mine
    assert lead(there) == [extension(THERE) if name == extension(HERE) else name for name in lead(here)]
    assert (here.layout.order, here.layout.traced) == ("trace", "")
    assert (there.layout.order, there.layout.traced) == ("trace", str(HERE))
    assert there.layout.magic == here.layout.magic  # code objects are the same on every machine
    assert there.layout.follow == here.layout.follow == {"base": ("base/__init__.py", "base/used.py")}
    assert there.layout.imports == here.layout.imports
    assert there.content_digest != here.content_digest


def test_the_shelf_knows_an_order(curator: Curator) -> None:
    """What is on the shelf gives the order too; of another Python if there is none of the same."""
    curator.publish(HERE).ok()
    other = THERE._replace(python=(3, 14), glibc=(2, 34))
    for target in (THERE, other):
        assert f"2 ordered by their trace for {HERE}" in curator.publish(target).stderr
        built = curator.built(NATIVE, target)
        assert (built.layout.order, built.layout.traced) == ("trace", str(HERE))
        names = [name.removesuffix(".py") for name in lead(built)]
        mine = ["native/__init__", "native/z", extension(target), "native/a"]
        assert [name for name in names if name in mine] == mine
    without = find_interpreter(other) is None
    assert bool(curator.built(NATIVE, other).layout.code) is not without


def test_nothing_is_known(curator: Curator) -> None:
    """On a new shelf, for another machine only, the order is static, with bytecode, and that is said."""
    ran = curator.publish(THERE)
    assert f"packages for {THERE} cannot be imported on this machine: 2 in static order" in ran.stderr
    built = curator.built(NATIVE, THERE)
    assert (built.layout.order, built.layout.traced, bool(built.layout.code)) == ("static", "", True)


def test_a_static_order_is_not_borrowed(curator: Curator) -> None:
    """A build that was never traced has nothing to give."""
    curator.publish(THERE).ok()
    ran = curator.publish(THERE._replace(glibc=(2, 17)))
    assert "2 in static order" in ran.stderr


def test_provenance_says_whose_trace_it_was(curator: Curator) -> None:
    """The record of a build names the target that was traced."""
    curator.publish(HERE, THERE).ok()
    found = {}
    for path in curator.shelf.glob("packages/native/1/*/provenance-*"):
        record = json.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
        found[path.parent.name] = record["trace"].get("of")
    assert found == {str(HERE): None, str(THERE): str(HERE)}


def test_an_interpreter_that_is_given(curator: Curator, tmp_path: Path) -> None:
    """``--python`` is taken for targets of its version; one of no wanted version is an error."""
    interpreter = find_interpreter(HERE)
    assert interpreter is not None
    link = tmp_path / "some-python"
    link.symlink_to(interpreter.executable)
    other = HERE._replace(python=(3, 14 if MINOR != 14 else 13), glibc=(2, 34))
    ran = curator.publish(other, options=("--python", str(link)))
    assert ran.returncode == 1
    assert f"{link} is not a CPython (with a GIL) of a version that is published for" in ran.stderr
    assert curator.publish(HERE, options=("--python", str(link))).returncode == 0


@pytest.mark.parametrize(
    ("pin", "target", "tags"),
    [
        (
            "picky",
            "lambda-python3.12-arm64",
            "cp312-cp312-manylinux_2_28_x86_64, cp312-cp312-musllinux_1_2_aarch64",
        ),
        (
            "picky",
            "lambda-python3.13-x86_64",
            "cp312-cp312-manylinux_2_28_x86_64, cp312-cp312-musllinux_1_2_aarch64",
        ),
        # Amazon Linux 2 has glibc 2.26.
        (
            "modern",
            "lambda-python3.11-x86_64",
            "cp311-cp311-manylinux_2_28_x86_64, cp311-cp311-manylinux_2_34_aarch64",
        ),
        (
            "modern",
            "cp311-manylinux_2_28_aarch64",
            "cp311-cp311-manylinux_2_34_aarch64, cp311-cp311-manylinux_2_28_x86_64",
        ),
    ],
)
def test_no_wheel_for_a_target(curator: Curator, pin: str, target: str, tags: str) -> None:
    """The error lists the tags of what there is; nothing is published."""
    ran = curator.publish(target, pins=f"{pin}==1.0\n")
    assert ran.returncode == 1
    said = f"{pin}==1: there is no wheel for {Target.parse(target)}; there are wheels for {tags}"
    assert re.search(re.escape(said), ran.stderr), ran.stderr
    assert not list(curator.shelf.glob("packages/*"))


def test_the_same_in_threads(curator: Curator, wheels: Path, tmp_path: Path) -> None:
    """Threads give what processes give."""
    curator.publish(HERE, THERE).ok()
    os.mkdir(tmp_path / "other")
    other = Curator(wheels, tmp_path / "other")
    other.publish(HERE, THERE, options=("--executor", "threads")).ok()
    for pin in (NATIVE, BASE):
        for target in (HERE, THERE):
            one, two = curator.built(pin, target), other.built(pin, target)
            assert (one.content_digest, lead(one)) == (two.content_digest, lead(two))
