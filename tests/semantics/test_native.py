"""Extension modules and the libraries that they need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.semantics.conftest import World

pytestmark = pytest.mark.usefixtures("native")


def test_extension(world: World) -> None:
    """An extension module is loaded from a real file at its place, with the libraries beside it that it is
    linked to; nothing else need be there.
    """
    world.both("""
        import native, importlib.machinery as m
        ext = sys.modules["native._ext"]
        print(native.answer(), ext.__file__, os.path.isfile(ext.__file__), isinstance(ext.__loader__,
            m.ExtensionFileLoader))
        print(ext.__spec__.origin, ext.__spec__.cached, ext.__loader__.path,
            ext.__loader__.get_source("native._ext"))
        print(any("libsib" in line for line in open("/proc/self/maps")))
    """)


def test_ctypes(world: World) -> None:
    """`ctypes.CDLL` (and `PyDLL`, `cdll.LoadLibrary`) with the path of a library of the environment loads
    it, as nobody has touched it before.
    """
    for load in ("ctypes.CDLL", "ctypes.PyDLL", "ctypes.cdll.LoadLibrary"):
        world.both(f"""
            import ctypes
            print({load}(os.path.join(ROOT, "native.libs", "libsib-1a2b.so")).sibling())
        """)


def test_ctypes_before(world: World) -> None:
    """`ctypes` that was imported before `install()` does the same, and a library brings those that it
    needs.
    """
    out = world.run(
        """
        import importlib.util, sysconfig
        path = os.path.join(ROOT, "native", "_ext" + sysconfig.get_config_var("EXT_SUFFIX"))
        library = ctypes.PyDLL(path)
        print(bool(library.PyInit__ext))
        """,
        prelude="import ctypes\n" + world.install(),
    )
    assert out == "True"


def test_ctypes_taken_apart(world: World) -> None:
    """Whoever took `dlopen` out of `_ctypes` before `ctypes` was imported has one that fills, too."""
    out = world.run("""
        import _ctypes
        from _ctypes import dlopen
        import ctypes
        path = os.path.join(ROOT, "native.libs", "libsib-1a2b.so")
        print(dlopen is ctypes._dlopen is _ctypes.dlopen, bool(dlopen(path, 0)))
    """)
    assert out == "True True"


def test_extension_by_path(world: World) -> None:
    """An extension module that is loaded by path (`spec_from_file_location`) brings the libraries that it
    needs.
    """
    world.both("""
        import importlib.util, sysconfig
        path = os.path.join(ROOT, "native", "_ext" + sysconfig.get_config_var("EXT_SUFFIX"))
        spec = importlib.util.spec_from_file_location("_ext", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        print(module.answer())
    """)


def test_full_disk(world: World, as_root: None) -> None:
    """When the cache's disk is full, pure Python still runs from memory, and native code and data files
    come from a temporary folder.
    """
    with SmallDisk(world.folder / "disk") as disk:
        out = world.run(
            """
            import single, nsp.a
            print(os.path.basename(single.me), nsp.a.a, os.statvfs("../disk").f_bavail)
            import demo, native
            print(demo.x, native.answer(), native.__spec__.origin.startswith(ROOT))
            print(open(os.path.dirname(demo.__file__) + "/data/x.txt").read(),
                sorted(set(os.listdir(demo.__path__[0] + "/sub"))))
            """,
            prelude=world.install(cache=str(disk)).replace(
                "import cloudimport", f"{_FILL.format(str(disk))}\nimport cloudimport"
            ),
        )
    assert out == "single.py 1 0\n1 42 True\nx\n ['__init__.py', 'late.py', 'text.txt']"


_FILL = """
file = open({!r} + "/filler", "wb", buffering=0)
try:
    for size in (1 << 16, 512, 1):
        try:
            while True:
                file.write(bytes(size))
        except OSError:
            pass
finally:
    file.close()
"""


def test_read_only_cache(world: World, as_root: None) -> None:
    """A cache folder that is read-only, filled by another, serves what it has; what it has not is fetched,
    and kept in a temporary folder.
    """
    with SmallDisk(world.folder / "disk", "16m") as disk:
        prelude = world.install(cache=str(disk))
        world.run("import single", prelude=prelude)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        out = world.run(
            """
            import single, demo, native, nsp.b, importlib.metadata
            print(ROOT.startswith(os.path.realpath("../disk")), native.answer(), nsp.b.b,
                importlib.metadata.version("demo"))
            print(open(os.path.dirname(demo.__file__) + "/data/x.txt").read())
            """,
            prelude=prelude,
        )
    assert out == "True 42 2 2 1.2\nx".replace("42 2 2", "42 2")


def test_missing_cache(world: World) -> None:
    """A cache folder that cannot be made is replaced by a temporary one, which is gone when the process
    ends.
    """
    code = "import native, demo; print(native.answer(), demo.x, ROOT);"
    code += "print(open(demo.__path__[0] + '/data/x.txt').read())"
    out = world.run(code, prelude=world.install(cache="/dev/null/cache")).splitlines()
    assert out[0].startswith("42 1 ")
    assert not Path(out[0].split(" ", 2)[2]).exists()


def test_nowhere_to_write(world: World) -> None:
    """With no folder that can be written at all pure Python runs from memory; native code is an
    `ImportError` that says what to set.
    """
    out = world.run(
        """
        import demo, single, nsp.a
        print(demo.x, nsp.a.a)
        try:
            import native
        except ImportError as error:
            print(type(error).__name__, "TMPDIR" in str(error), "native==1" in str(error))
        """,
        prelude="import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/dev/null/x']\n"
        + world.install(cache="/dev/null/cache"),
    )
    assert out == "1 1\nImportError True True"


class SmallDisk:
    """A small file system of its own while the block runs."""

    def __init__(self, folder: Path, size: str = "1m") -> None:
        self._folder, self._size = folder, size

    def __enter__(self) -> Path:
        self._folder.mkdir(mode=0o700)
        options = f"size={self._size},mode=700"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "small-disk", str(self._folder)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"cannot mount: {os.fsdecode(done.stderr)}")
        return self._folder

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self._folder)], check=True)
