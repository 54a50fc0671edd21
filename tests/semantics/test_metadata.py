"""Distributions and resources: `importlib.metadata`, `pkg_resources`, `importlib.resources`, `pkgutil`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.semantics.conftest import World
from tests.support.shelves import MadeShelf
from tests.support.wheels import wheel_files


def test_metadata(world: World) -> None:
    """`importlib.metadata` gives version, requirements, files (which can be located and read), and the
    distributions of each import name.
    """
    world.both("""
        import importlib.metadata as m
        print(m.version("demo"), m.version("Demo"), m.requires("demo"), m.metadata("demo")["Name"])
        dist = m.distribution("nsp_a")
        print(dist.version, dist.files, dist.locate_file("x"), dist.read_text("METADATA"),
            dist.read_text("nothing"))
        ours = [d for d in m.distributions() if str(d.locate_file("")).rstrip("/") == ROOT]
        print(sorted(d.metadata["Name"] for d in ours))
        try:
            m.version("nowhere-to-be-found")
        except m.PackageNotFoundError as error:
            print(error)
    """)


def test_entry_points(world: World) -> None:
    """`importlib.metadata.entry_points` has the entry points of all distributions, and they load."""
    world.both("""
        import importlib.metadata as m
        print([(e.name, e.value, e.load().__name__) for e in m.entry_points(group="demo.plugins")])
        print("demo-tool" in {e.name for e in m.entry_points(group="console_scripts")})
    """)


def test_resources(world: World) -> None:
    """`importlib.resources` reads a package's files and folders (`files`, `iterdir`, `joinpath`,
    `read_text`, `as_file`, `open_binary`), and `files()` is a real path.
    """
    world.both("""
        import importlib.resources as r, pathlib, demo.sub
        root = r.files("demo")
        print(type(root).__name__, os.fspath(root),
            sorted(p.name for p in root.iterdir() if p.name != "__pycache__"))
        print((root / "data" / "x.txt").read_text(), root.joinpath("data/nested/y.txt").read_bytes(),
            (root / "data").is_dir())
        print((root / "nothing").is_file(), (root / "large.bin").is_file(),
            r.files(demo.sub).joinpath("text.txt").read_text())
        with r.as_file(root / "data" / "table.csv") as path:
            print(path, path.read_text())
        with r.open_binary("demo", "stub.pyi") as file:
            print(file.read())
        print(demo.__loader__.get_resource_reader("demo").is_resource("stub.pyi"))
    """)


def test_namespace_resources(world: World) -> None:
    """`importlib.resources` of a namespace package merges the folders of all its distributions."""
    world.both("""
        import importlib.resources as r, nsp
        print(sorted(p.name for p in r.files("nsp").iterdir() if p.name != "__pycache__"))
        print(r.files("nsp").joinpath("data/a.txt").read_text(), r.files("nsp").joinpath("a.py").read_text())
        print(sorted(p.name for p in r.files("nsp.data").iterdir()),
            r.files("nsp.data").joinpath("b.txt").read_text())
    """)


def test_get_data(world: World) -> None:
    """`pkgutil.get_data` reads a package's file."""
    world.both("""
        import pkgutil
        print(pkgutil.get_data("demo", "data/x.txt"), pkgutil.get_data("demo.sub", "text.txt"),
            len(pkgutil.get_data("demo", "large.bin")))
        try:
            pkgutil.get_data("demo", "nothing")
        except OSError as error:
            print(error)
    """)


def test_packages_distributions(world: World) -> None:
    """`importlib.metadata.packages_distributions` knows the environment's import names (on Python 3.10,
    where it goes by `top_level.txt` alone, those of distributions that have one).
    """
    if sys.version_info < (3, 11):
        pytest.skip("Python 3.10 reads top_level.txt only")
    world.both("""
        import importlib.metadata as m
        found = m.packages_distributions()
        print({name: found.get(name) for name in ("demo", "single", "nsp", "left")})
    """)


@pytest.mark.network
def test_pkg_resources(tmp_path: Path, world: World) -> None:
    """`pkg_resources` of a pinned setuptools finds the environment's distributions, requirements, entry
    points and resources.
    """
    (tmp_path / "s").mkdir()
    shelf = MadeShelf(tmp_path / "s")
    shelf.add("setuptools", "80.9.0", wheel_files("setuptools==80.9.0", tmp_path), with_metadata=False)
    plugin = "[demo.plugins]\none = thing:x\n"
    shelf.add(
        "thing",
        "1.5",
        {"thing/__init__.py": "x = 1\n", "thing/d.txt": "d", "ns/m.py": ""},
        requires=["other>=1"],
        entry_points=plugin,
    )
    shelf.add("other", "1.0", {"other.py": "", "ns/n.py": ""})
    shelf.environment()
    out = World(shelf, tmp_path).run("""
        import warnings
        warnings.simplefilter("ignore")
        import pkg_resources as p
        print(p.__file__.startswith(ROOT), p.get_distribution("thing").version,
            [str(r) for r in p.require("thing")])
        print(p.resource_string("thing", "d.txt"), p.resource_filename("thing",
            "d.txt") == ROOT + "/thing/d.txt")
        print(p.resource_exists("thing", "d.txt"), sorted(p.resource_listdir("thing", "")),
            p.resource_isdir("thing", "."))
        print([e.load() for e in p.iter_entry_points("demo.plugins")], "thing" in p.working_set.by_key)
        import setuptools
        from setuptools import find_packages
        print("ns" not in find_packages(ROOT), "thing" in find_packages(ROOT))
    """)
    assert out == (
        "True 1.5 ['thing 1.5', 'other 1.0']\nb'd' True\n"
        "True ['__init__.py', 'd.txt'] True\n[1] True\nTrue True"
    )
