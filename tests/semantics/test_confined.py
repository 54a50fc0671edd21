"""Small places: little room on the disk, and an initialisation that was broken off."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.semantics.conftest import World, native_files
from tests.semantics.test_native import SmallDisk
from tests.support.shelves import MadeShelf

MIB = 1 << 20


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> MadeShelf:
    """A package whose native file takes 8 MiB, and one whose modules take as many."""
    folder = tmp_path_factory.mktemp("heavy")
    shelf = MadeShelf(folder)
    files = native_files(folder / "c")
    padded = {path: data + os.urandom(8 * MIB - len(data)) for path, data in files.items() if "_ext" in path}
    shelf.add("native", "1", {"native/__init__.py": "from native._ext import answer\n", **padded})
    texts = {f"wordy/m{n}.py": f"text = {os.urandom(MIB).hex()!r}\n" for n in range(4)}
    shelf.add("wordy", "1", {"wordy/__init__.py": "", **texts})
    shelf.environment()
    return shelf


def _start(heavy: MadeShelf, disk: Path) -> str:
    return (
        "import os, sys, faulthandler; faulthandler.dump_traceback_later(60, exit=True)\nimport cloudimport\n"
        f"env = cloudimport.install(lock={str(heavy.lock)!r}, cache={str(disk)!r})\nROOT = env.root\n"
    )


def test_native_files_come_first(world: World, heavy: MadeShelf, as_root: None) -> None:
    """Cached blocks, which can be fetched again, make room for native files where the disk is full."""
    with SmallDisk(world.folder / "disk", "12m") as disk:
        out = world.run(
            """
            import wordy.m0, wordy.m1, wordy.m2, wordy.m3
            before = cloudimport.stats()["bytes_cached"]
            import native
            print(before > 6e6, native.answer(), native._ext.__file__.startswith(ROOT))
            """,
            prelude=_start(heavy, disk),
        )
    assert out == "True 42 True"


def test_no_room_for_a_native_file(world: World, heavy: MadeShelf, as_root: None) -> None:
    """Where there is no room for a native file the import is a `NoSpaceError`, an `ImportError` that names
    the file, the bytes that it needs, those that are free, and the setting; nothing half written stays, what
    needs no file is imported all the same, and the import succeeds when there is room.
    """
    with SmallDisk(world.folder / "disk", "12m") as disk:
        out = world.run(
            """
            with open("../disk/filler", "wb") as file:
                file.write(bytes(7 << 20))
            import wordy.m0
            for _ in 1, 2:
                try:
                    import native
                except ImportError as error:
                    found = error
                print(type(found).__name__, found.path.startswith(ROOT), found.needed, found.free < 8e6)
                print(all(text in str(found) for text in (found.path, str(found.needed), "native==1",
                    "ephemeral storage", "CLOUDIMPORT_CACHE")), len(str(found).splitlines()))
            import wordy.m1
            left = [(n, f) for n, _, files in os.walk("../disk") for f in files if f.endswith(".tmp")]
            print(left, sum(len(files) for n, _, files in os.walk("../disk") if "cloudimport-" in n))
            os.unlink("../disk/filler")
            import native
            print(native.answer(), native._ext.__file__.startswith(ROOT))
            """,
            prelude="import tempfile\ntempfile._candidate_tempdir_list = lambda: ['../disk']\n"
            + _start(heavy, disk),
        )
    said = f"NoSpaceError True {8 * MIB} True\nTrue 1\n"
    assert out == said * 2 + "[] 0\n42 True"


def test_an_initialisation_that_was_broken_off(world: World, heavy: MadeShelf) -> None:
    """A process that is killed in the midst of an import leaves a cache that the next one uses: it fetches
    only what was not there yet, and nothing half-written is left.
    """
    script = """
        import wordy.m0, wordy.m1
        if sys.argv[1] == "dies":
            from cloudimport.cache import disk
            disk.os.rename = lambda *names: os.kill(os.getpid(), 9)
        import native, wordy.m2
        print(cloudimport.stats()["blocks_fetched"], native.answer())
        """
    prelude = _start(heavy, world.cache)
    assert world.start(script, "dies", prelude=prelude).returncode == -9
    kept = len([path for path in (world.cache / "v1/blocks").rglob("*") if len(path.name) == 64])
    again, _ = map(float, world.run(script, "lives", prelude=prelude).split())
    whole, _ = map(float, world.run(script, "lives", prelude=_start(heavy, world.folder / "other")).split())
    assert kept > 0
    assert 0 < again <= whole - kept
    assert not list((world.cache / "v1/trees").rglob("*.tmp"))
