"""One shelf of small made packages for all tests here, and two ways to run a script that uses them.

``run`` runs it with ``install()``; ``both`` runs it a second time with the same files as pip would
leave them, and compares what it prints: what is the same under pip is not written down here twice.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.children import Ran, Runner
from tests.support.shelves import MadeShelf, write_tree

#: So much that a package's data files are not all materialised when it is imported (shelf_tools/order.py).
_LARGE = bytes(range(256)) * 5000

#: A hang ends with the tracebacks of all threads (seconds).
INSTALL = """
import os, sys, faulthandler; faulthandler.dump_traceback_later(60, exit=True)
import cloudimport
env = cloudimport.install(lock={lock!r}, cache={cache!r})
ROOT = env.root
"""
PLAIN = """
import os, sys

ROOT = {plain!r}
sys.path.insert(1, ROOT)
"""


def _archive() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("inzip.py", "where = __file__\n")
        archive.writestr("text.txt", "zipped")
    return data.getvalue()


def _database(folder: Path) -> bytes:
    import sqlite3

    path = folder / "made.sqlite"
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    connection.execute("create table t (x)")
    connection.execute("insert into t values (42)")
    connection.commit()
    connection.close()
    return path.read_bytes()


DEMO = {
    "demo/__init__.py": '''
        """A demo."""

        import sys
        import warnings

        x = 1

        def fail():
            raise ValueError("no")  # the line of fail

        def warn():
            warnings.warn("careful")  # the line of warn

        class Thing:
            """A thing."""

            def method(self, a: int = 3) -> int:
                return a + x
        ''',
    "demo/__main__.py": "import sys\nimport demo\n"
    "print('main', sys.argv[1:], __file__ == sys.argv[0], demo.x)\n",
    "demo/sub/__init__.py": "",
    "demo/sub/late.py": "from demo import Thing\nprint_name = __name__\n",
    "demo/sub/text.txt": "sub text",
    "demo/script.py": "import sys\nprint('script', __name__, sys.argv[1:])\nvalue = 7\n",
    "demo/stub.pyi": "x: int\n",
    "demo/data/x.txt": "x\n",
    "demo/data/nested/y.txt": "y\n",
    "demo/data/table.csv": "a,b\n1,2\n",
    "demo/data/empty": "",
    "demo/large.bin": _LARGE,
    "demo/tests/__init__.py": "",
    "demo/tests/test_demo.py": """
        import unittest

        class T(unittest.TestCase):
            def test_x(self):
                self.assertEqual(__import__("demo").x, 1)
        """,
    "demo/broken.py": "def f(:\n",
    "demo/raises.py": "import os\n"
    "if os.environ.get('DEMO_RAISES'):\n    raise RuntimeError('once')\nfine = True\n",
    "single.py": "me = __file__\n",
    "demo-evil.pth": "import sys; sys.pth_ran = True\n",
    "bin/demo-tool": "#!python\nprint('tool')\n",
    "bin/demo-shell": '#!/bin/sh\ncat "${0%/*}/../demo/data/x.txt"\n',
}
ENTRY_POINTS = "[console_scripts]\ndemo-tool = demo:Thing\n\n[demo.plugins]\none = demo.sub.late:Thing\n"


def dedented(files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """Return files with their texts dedented."""
    return {
        path: textwrap.dedent(text).lstrip("\n") if isinstance(text, str) else text
        for path, text in files.items()
    }


@dataclass
class World:
    """A shelf, the same files as pip would leave them, and a folder to run in."""

    shelf: MadeShelf
    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> Path:
        """The folder with the files of all builds."""
        return self.shelf.work / "plain"

    @property
    def cache(self) -> Path:
        """This test's cache folder."""
        return self.folder / "cache"

    @property
    def handler(self) -> Path:
        """The folder that scripts run in."""
        return self.folder / "handler"

    def install(self, cache: str = "") -> str:
        """Return the lines with which a script begins."""
        return INSTALL.format(lock=str(self.shelf.lock), cache=cache or str(self.cache))

    def script(self, prelude: str, code: str) -> str:
        """Return a script: the prelude, then code."""
        return prelude + textwrap.dedent(code)

    def start(self, code: str, *arguments: str, prelude: str | None = None, **options: object) -> Ran:
        """Run code after ``install()``; returns how it ended."""
        text = self.script(self.install() if prelude is None else prelude, code)
        env = {**self.environ, **options.pop("env", {})}  # type: ignore[dict-item]
        return Runner(self.folder / "home").run(text, *arguments, env=env, cwd=self.handler, **options)  # type: ignore[arg-type]

    def run(self, code: str, *arguments: str, **options: object) -> str:
        """Run code after ``install()``; returns what it prints."""
        return self.start(code, *arguments, **options).ok()  # type: ignore[arg-type]

    def both(self, code: str, changes: bool = False) -> str:
        """Run code from the shelf and from plain files; returns what both print.

        Code that ``changes`` files gets plain ones of its own.
        """
        code = textwrap.dedent(code) + "\nprint('ROOT', ROOT)"
        plain = self.plain
        if changes:
            plain = Path(shutil.copytree(plain, self.folder / "plain"))
        ours = self.run(code, name="ours.py")
        theirs = self.run(code, name="ours.py", prelude=PLAIN.format(plain=str(plain)))
        ours, theirs = _normal(ours), _normal(theirs)
        assert ours == theirs
        return ours


def _normal(text: str) -> str:
    body, _, root = text.rpartition("ROOT ")
    return body.replace(root, "<root>").strip()


def merge(shelf: MadeShelf) -> None:
    """Copy the trees of a shelf's builds into one folder, with bytecode, as pip does."""
    plain = shelf.work / "plain"
    for tree in sorted(shelf.work.glob("*/tree")):
        shutil.copytree(tree, plain, dirs_exist_ok=True)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(plain)], check=False, capture_output=True)


def native_files(folder: Path) -> dict[str, bytes]:
    """Compile an extension module and the library that it needs, laid out as auditwheel does."""
    write_tree(
        folder,
        {
            "sib.c": "int sibling(void) { return 42; }\n",
            "ext.c": """
                #include <Python.h>
                int sibling(void);
                static PyObject *answer(PyObject *self, PyObject *none) { return PyLong_FromLong(sibling()); }
                static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, "The answer."}, {NULL}};
                static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_ext", NULL, 0, methods};
                PyMODINIT_FUNC PyInit__ext(void) { return PyModuleDef_Init(&module); }
                """,
        },
    )
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    gcc = ["gcc", "-shared", "-fPIC", f"-I{sysconfig.get_paths()['include']}"]
    library = folder / "native.libs/libsib-1a2b.so"
    library.parent.mkdir()
    subprocess.run([*gcc, "sib.c", "-o", str(library)], cwd=folder, check=True)
    linked = [str(library), "-Wl,-rpath,$ORIGIN/../native.libs", "-Wl,--enable-new-dtags"]
    subprocess.run([*gcc, "ext.c", *linked, "-o", f"_ext{suffix}"], cwd=folder, check=True)
    return {
        f"native/_ext{suffix}": (folder / f"_ext{suffix}").read_bytes(),
        "native.libs/libsib-1a2b.so": library.read_bytes(),
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeShelf:
    """The shelf of all tests."""
    shelf = MadeShelf(tmp_path_factory.mktemp("shelf"))
    extra = {"demo/data/archive.zip": _archive(), "demo/data/db.sqlite": _database(shelf.work)}
    shelf.add(
        "demo",
        "1.2",
        dedented({**DEMO, **extra}),
        requires=["left>=1", 'right; extra == "r"'],
        entry_points=ENTRY_POINTS,
    )
    shelf.add(
        "left",
        "1.0",
        {
            "left/__init__.py": "import time\ntime.sleep(.05)\nimport right.part\nx = 1\n",
            "left/part.py": "y = 2\n",
        },
    )
    shelf.add(
        "right",
        "2.0",
        {
            "right/__init__.py": "import time\ntime.sleep(.05)\nimport left.part\nx = 1\n",
            "right/part.py": "y = 2\n",
        },
    )
    shelf.add(
        "nsp-a",
        "1",
        {"nsp/a.py": "a = 1\n", "nsp/data/a.txt": "a", "old/__init__.py": _OLD, "old/a.py": "a = 1\n"},
    )
    shelf.add("nsp-b", "1", {"nsp/b.py": "b = 2\n", "nsp/data/b.txt": "b", "nsp/deep/c.py": "c = 3\n"})
    shelf.add(
        "shadowed",
        "1",
        {
            "shadowed/__init__.py": "whose = 'shelf'\n",
            "colorsys.py": "whose = 'shelf'\n",
            "sitething.py": "whose = 'shelf'\n",
        },
    )
    bulk = {f"bulk/data/f{n}": f"data {n}\n" for n in range(40)}
    shelf.add("bulk", "1", {"bulk/__init__.py": "", "bulk/large.bin": _LARGE, **bulk})
    for name, module in (
        ("zstandard", "zstandard"),
        ("cachetools", "cachetools"),
        ("botocore", "botocore"),
        ("fsspec", "fsspec"),
    ):
        shelf.add(name, "0.0.1", {f"{module}/__init__.py": "__version__ = 'pinned'\n"})
    codec = {"backports/zstd/__init__.py": "__version__ = 'pinned'\n"}
    codec[f"backports/zstd/_zstd{sysconfig.get_config_var('EXT_SUFFIX')}"] = "no codec"
    shelf.add("backports.zstd", "0.0.1", codec)
    if shutil.which("gcc"):
        files = {"native/__init__.py": "from native._ext import answer\n", **native_files(shelf.work / "c")}
        shelf.add("native", "1", files)
    shelf.environment()
    merge(shelf)
    return shelf


_OLD = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"


@pytest.fixture
def world(made: MadeShelf, tmp_path: Path) -> World:
    """The shelf, and folders of this test's own."""
    return World(made, tmp_path)


@pytest.fixture
def native(made: MadeShelf) -> None:
    """Skips where no extension module can be compiled."""
    if not (made.work / "c").exists():
        pytest.skip("gcc is not installed")


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that opens files in every way that C code has (reader.c)."""
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    library = tmp_path_factory.mktemp("reader") / "libreader.so"
    source = Path(__file__).parent / "reader.c"
    search = ["-Wl,-rpath,$ORIGIN", "-Wl,--enable-new-dtags"]
    subprocess.run(
        ["gcc", "-shared", "-fPIC", str(source), "-o", str(library), *search, "-lpthread", "-ldl"], check=True
    )
    beside = library.with_name("libbeside-reader.so")
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "/dev/null", "-o", str(beside)], check=True)
    return library


@pytest.fixture
def as_root() -> None:
    """Skips for users who may not mount."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
