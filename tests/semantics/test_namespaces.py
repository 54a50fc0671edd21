"""Namespace packages, and who wins when a name is in several places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.semantics.conftest import World, merge
from tests.support.shelves import MadeShelf, metadata, write_tree
from tests.support.wheels import wheel_files


def test_namespace(world: World) -> None:
    """A namespace package (PEP 420) has the portions of all distributions and of local folders, also of a
    folder that comes on `sys.path` later.
    """
    write_tree(world.handler, {"nsp/local.py": "d = 4\n"})
    write_tree(world.folder / "later", {"nsp/late.py": "e = 5\n"})
    world.both("""
        import nsp, nsp.a, nsp.b, nsp.deep.c, nsp.local, importlib
        print(nsp.a.a, nsp.b.b, nsp.deep.c.c, nsp.local.d, type(nsp.__path__).__name__, getattr(nsp,
            "__file__", None))
        print([p.replace(os.getcwd(), ".") for p in nsp.__path__])
        sys.path.append(os.path.abspath("../later"))
        import nsp.late
        print(nsp.late.e, len(list(nsp.__path__)), type(nsp.__loader__).__name__,
            nsp.__spec__.loader is not None)
    """)


def test_extend_path(world: World) -> None:
    """A package that extends its path by `pkgutil.extend_path` takes in local folders."""
    write_tree(world.handler, {"old/local.py": "b = 2\n"})
    world.both("""
        sys.path.append(os.getcwd())
        sys.path.remove(sys.path[0])
        import old.a, old.local
        print(old.a.a, old.local.b, [os.path.basename(p) for p in old.__path__])
    """)


@pytest.mark.network
def test_declare_namespace(tmp_path: Path) -> None:
    """A namespace package in the manner of `pkg_resources`, whose `__init__.py` every portion has, is one of
    all distributions and of local folders.
    """
    declared = "__import__('pkg_resources').declare_namespace(__name__)\n"
    (tmp_path / "shelf").mkdir()
    shelf = MadeShelf(tmp_path / "shelf")
    shelf.add("setuptools", "80.9.0", wheel_files("setuptools==80.9.0", tmp_path), with_metadata=False)
    for name in ("one", "two"):
        shelf.add(f"spam-{name}", "1", {"spam/__init__.py": declared, f"spam/{name}.py": f"x = {name!r}\n"})
    shelf.environment()
    merge(shelf)
    world = World(shelf, tmp_path)
    write_tree(world.handler, {"spam/__init__.py": declared, "spam/local.py": "x = 'local'\n"})
    out = world.both("""
        import warnings
        warnings.simplefilter("ignore")
        import spam.one, spam.two, spam.local
        print(spam.one.x, spam.two.x, spam.local.x, len(spam.__path__))
        import pkgutil
        print(sorted(m.name for m in pkgutil.iter_modules(spam.__path__)))
    """)
    assert out == "one two local 2\n['local', 'one', 'two']"


def test_who_wins(world: World) -> None:
    """A module of the standard library is never taken from the shelf. Else the handler's folder and
    what `PYTHONPATH` or the program has put on `sys.path` before wins, then the shelf, then site-packages.
    """
    write_tree(
        world.handler, {"left/__init__.py": "whose = 'handler'\n", "right.txt": "", "shadowed/data.txt": ""}
    )
    write_tree(world.folder / "path", {"right.py": "whose = 'path'\n"})
    write_tree(
        world.folder / "site-packages",
        {"sitething.py": "whose = 'site'\n", "siteonly.py": "whose = 'site'\n"},
    )
    out = world.run(
        """
        import colorsys, left, right, shadowed, sitething, siteonly
        print("whose" in vars(colorsys), left.whose, right.whose)
        print(shadowed.whose, sitething.whose, siteonly.whose)
        import subprocess
        code = "import left, right, colorsys; print(left.whose, right.whose, 'whose' in vars(colorsys))"
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        """,
        env={"PYTHONPATH": f"{world.folder}/path:{world.folder}/site-packages:{_repository()}"},
    )
    assert out == "False handler path\nshelf shelf site\nhandler path False"


def test_who_wins_metadata(world: World) -> None:
    """The order is the same for metadata and for namespace portions, and in children."""
    write_tree(world.handler, {**metadata("left", "9"), "nsp/a.py": "a = 'handler'\n"})
    write_tree(
        world.folder / "site-packages",
        {
            **metadata("right", "9"),
            **metadata("only", "9"),
            "nsp/b.py": "b = 'site'\n",
            "nsp/s.py": "s = 'site'\n",
        },
    )
    out = world.run(
        """
        code = '''
        import importlib.metadata as m, json, nsp.a, nsp.b, nsp.s
        print(json.dumps([m.version("left"), m.version("right"), m.version("only"), nsp.a.a, nsp.b.b,
            nsp.s.s]))
        '''.replace("    ", "").strip()
        exec(code)
        import subprocess
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        """,
        env={"PYTHONPATH": f"{world.folder}/site-packages:{_repository()}"},
    )
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines == [["9", "2.0", "9", "handler", 2, "site"]] * 2


def test_local_first(world: World) -> None:
    """`install(local=["name"])` or `CLOUDIMPORT_LOCAL` turns the order round for a package: the copy that is
    installed here comes before the shelf's, for modules and metadata, and in children; where there is none
    the shelf's is taken.
    """
    site = {"right/__init__.py": "whose = 'site'\n", "sitething.py": "whose = 'site'\n"}
    write_tree(world.folder / "site-packages", {**metadata("right", "9"), **site})
    out = world.run(
        """
        code = '''
        import importlib.metadata as m, json, right, sitething, demo, sys
        m.packages_distributions()
        print(json.dumps([right.whose, sitething.whose, demo.x, m.version("right"), m.version("demo"),
            [d.version for d in m.distributions(name="right")]]))
        '''.replace("    ", "").strip()
        exec(code)
        import subprocess
        print(subprocess.check_output([sys.executable, "-c", code], text=True).strip())
        print("right" in {pin.name for pin in env.pins}, "demo" in {pin.name for pin in env.pins})
        """,
        env={
            "PYTHONPATH": f"{world.folder}/site-packages:{_repository()}",
            "CLOUDIMPORT_LOCAL": "Right, demo,unknown",
        },
    )
    *lines, pins = out.splitlines()
    assert [json.loads(line) for line in lines] == [["site", "shelf", 1, "9", "1.2", ["9"]]] * 2
    assert pins == "False True"


def test_shadow_is_no_package(world: World) -> None:
    """A folder of the handler without `__init__.py` does not hide a package of the shelf of the same name."""
    write_tree(world.handler, {"demo/readme.txt": ""})
    world.both("import demo\nprint(demo.x, demo.__file__)")


def test_conflicting_pins(world: World) -> None:
    """What the runtime needs for itself it never puts into `sys.modules` under its public name; a pinned
    `zstandard`, `cachetools`, `botocore`, `backports.zstd` or `fsspec` is what the handler gets.
    """
    world.run("")  # from now on the index is in the cache: nothing is decompressed before the first import
    out = world.run("""
        import single, demo
        open(os.path.join(os.path.dirname(demo.__file__), "large.bin"), "rb").close()
        names = ("zstandard", "cachetools", "botocore", "boto3", "fsspec", "s3fs", "backports",
            "backports.zstd", "urllib3")
        print([name for name in names if name in sys.modules], cloudimport.stats()["bytes_fetched"] > 0)
        import zstandard, cachetools, botocore, fsspec, backports.zstd
        print({m.__version__ for m in (zstandard, cachetools, botocore, fsspec, backports.zstd)})
        import nsp.a
        print(nsp.a.a)
    """)
    assert out == "[] True\n{'pinned'}\n1"


def _repository() -> str:
    from tests.support.children import REPOSITORY

    return str(REPOSITORY)
