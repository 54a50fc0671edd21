"""Generated sequences of publish, read, evict, corrupt, kill, refill and fork, against a dict.

The promise: whatever happened before, a read gives the bytes that were published or a typed error,
and an error only while an object of the store is damaged.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloudimport.errors import CloudImportError, FetchError
from cloudimport.format.records import Ref
from cloudimport.ids import Pin
from shelf_tools.builds import verify_build
from tests.support.shelves import MadeShelf
from tests.support.stacks import Stack, opened

NAMES = ("alpha", "beta", "gamma")
#: Bytes of the block cache: less than everything, so that eviction is part of every longer sequence.
CACHE_BYTES = 200_000

Step = tuple[str, int, int]


def files_of(name: str, version: int) -> dict[str, str | bytes]:
    """Return a package's files; versions share some and differ in others."""
    seed = f"{name}{version}"
    return {
        f"{name}/__init__.py": f"VERSION = {version}\n" * 30,
        f"{name}/same.py": f"NAME = '{name}'\n" * 50,
        f"{name}/_x.so": b"\x7fELF" + seed.encode() * 9000,
        f"{name}/noise.bin": random.Random(seed).randbytes(60_000 + 1000 * version),
        f"{name}/empty.txt": "",
    }


class World:
    """A shelf, a cache, a process that reads, and what must be read."""

    def __init__(self, folder: Path) -> None:
        self.shelf = MadeShelf(folder, level=1)
        self.cache = folder / "cache"
        self.expected: dict[str, dict[str, bytes]] = {}
        self.published: set[str] = set()
        self.chosen: dict[str, int] = {}
        self.refs: list[tuple[Ref, dict[str, bytes]]] = []
        #: Objects that are damaged now, with their sound bytes.
        self.damaged: dict[Path, bytes] = {}
        self.errors = self.reads = 0

    # Steps: each takes two small numbers, whose meaning is its own.

    def publish(self, which: int, version: int) -> None:
        """Publish a version of a package, and an environment of the versions published last."""
        self.repair(0, 0)
        name, number = NAMES[which % 3], version % 3 + 1
        pin = Pin.of(name, str(number))
        if str(pin) not in self.published:
            traced = [(f"{name}/same.py", True)] if version % 2 else []
            self.shelf.add(name, str(number), files_of(name, number), opened=traced)
            self.published.add(str(pin))
        self.chosen[name] = number
        ref = self.shelf.environment(*(str(Pin.of(n, str(v))) for n, v in sorted(self.chosen.items())))
        plain = {
            path: data if isinstance(data, bytes) else data.encode()
            for n, v in self.chosen.items()
            for path, data in files_of(n, v).items()
        }
        self.refs.append((ref, plain))

    def read(self, which: int, seed: int) -> None:
        """In a fresh process: read some files and modules of an environment that was ever published."""
        if not self.refs:
            return
        ref, plain = self.refs[which % len(self.refs)]
        chosen = random.Random(seed).sample(sorted(plain), min(4, len(plain)))
        try:
            with opened(
                self.shelf.url, ref, self.cache, cache_bytes=CACHE_BYTES, memory_bytes=50_000
            ) as stack:
                for path in chosen:
                    self._compare(stack, path, plain[path])
        except CloudImportError as error:
            self._excuse(error)

    def _compare(self, stack: Stack, path: str, data: bytes) -> None:
        ways: list[Callable[[str], bytes]] = [stack.read, stack.fill]
        for way in ways:
            self.reads += 1
            try:
                assert way(path) == data, path
            except CloudImportError as error:
                self._excuse(error)
        if path.endswith(".py"):
            try:
                assert b"VERSION" in stack.code(path[: -len("/__init__.py")]) if "__init__" in path else True
            except CloudImportError as error:
                self._excuse(error)

    def _excuse(self, error: CloudImportError) -> None:
        """An error is right only while the store is damaged, and then it names the object."""
        self.errors += 1
        assert isinstance(error, FetchError), error
        bad = {path.relative_to(self.shelf.url).as_posix() for path in self.damaged}
        assert error.key in bad, (error, bad)

    def evict(self, amount: int, _: int) -> None:
        """Evict from the block cache."""
        if not self.refs:
            return
        ref, _plain = self.refs[-1]
        try:
            with opened(self.shelf.url, ref, self.cache, cache_bytes=CACHE_BYTES) as stack:
                stack.parts.cache.free((amount % 5) * 50_000)
        except CloudImportError as error:
            self._excuse(error)

    def corrupt_cache(self, which: int, at: int) -> None:
        """Flip, cut or empty a file of the cache, whichever it is."""
        files = (
            [path for path in sorted(self.cache.rglob("*")) if path.is_file()] if self.cache.is_dir() else []
        )
        if not files:
            return
        path = files[which % len(files)]
        data = bytearray(path.read_bytes())
        if data and at % 3:
            data[at * 7919 % len(data)] ^= 0x55
            path.write_bytes(data)
        else:
            os.truncate(path, len(data) // 2)

    def corrupt_store(self, which: int, at: int) -> None:
        """Flip a byte of, cut or remove an object that is named by its digest."""
        objects = [p for p in sorted(Path(self.shelf.url).rglob("*")) if p.is_file() and p.suffix != ".json"]
        objects = [path for path in objects if not path.name.startswith(".")]
        if which % 3:  # packs are what most reads come to, once the cache does not have it
            objects = [path for path in objects if path.name.startswith("pack-")]
            self.refill(0, 0)
        if not objects:
            return
        path = objects[which % len(objects)]
        data = bytearray(path.read_bytes())
        self.damaged.setdefault(path, bytes(data))
        if at % 4 == 0:
            path.unlink()
        elif at % 4 == 1:
            path.write_bytes(data[: len(data) // 2])
        else:
            data[at * 7919 % len(data)] ^= 0x10
            path.write_bytes(data)
        if path.exists() and path.read_bytes() == self.damaged[path]:
            del self.damaged[path]  # the same bit twice

    def repair(self, _: int, __: int) -> None:
        """Put every damaged object back."""
        for path, data in self.damaged.items():
            path.write_bytes(data)
        self.damaged.clear()

    def kill(self, which: int, at: int) -> None:
        """Leave what a killed reader leaves: temporary files, and marks without what they mark."""
        if not self.cache.is_dir():
            return
        folders = [path for path in sorted(self.cache.rglob("*")) if path.is_dir()]
        folder = folders[which % len(folders)] if folders else self.cache
        (folder / f"x{at}.tmp").write_bytes(b"half" * at)
        trees = sorted((self.cache / "v1/trees").glob("*/site"))
        if trees and at % 3 == 0:
            shutil.rmtree(trees[which % len(trees)])
            (trees[which % len(trees)]).mkdir()

    def refill(self, _: int, __: int) -> None:
        """Remove the whole cache."""
        shutil.rmtree(self.cache, ignore_errors=True)

    def fork(self, which: int, seed: int) -> None:
        """Read in a forked child that inherits an open stack in the middle of a prefetch."""
        if not self.refs:
            return
        ref, plain = self.refs[which % len(self.refs)]
        try:
            with opened(self.shelf.url, ref, self.cache, cache_bytes=CACHE_BYTES) as stack:
                stack.tree.activate(0)
                self._fork(stack, plain, seed)
        except CloudImportError as error:
            self._excuse(error)

    def _fork(self, stack: Stack, plain: dict[str, bytes], seed: int) -> None:
        path = sorted(plain)[seed % len(plain)]
        child = os.fork()
        if child == 0:
            status = 3
            try:
                stack.parts.forget()
                status = 0 if stack.read(path) == plain[path] else 1
            except FetchError:
                status = 0 if self.damaged else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def check(self) -> None:
        """In the end, with the store repaired, everything reads as published, and the shelf is clean."""
        self.repair(0, 0)
        for ref, plain in self.refs[-2:]:
            with opened(self.shelf.url, ref, self.cache, cache_bytes=CACHE_BYTES) as stack:
                for path, data in plain.items():
                    assert stack.read(path) == data, path
                    assert stack.fill(path) == data, path
        for pin in self.shelf.builds:
            assert verify_build(self.shelf.source, pin, str(self.shelf.target)) == []


STEPS = (
    *("publish", "publish", "read", "read", "read", "read", "evict", "corrupt_cache", "corrupt_cache"),
    *("corrupt_store", "corrupt_store", "repair", "kill", "refill", "fork"),
)
SEQUENCES = st.lists(
    st.tuples(st.sampled_from(STEPS), st.integers(0, 60), st.integers(0, 60)), min_size=5, max_size=16
)


def play(folder: Path, sequence: list[Step]) -> World:
    """Go through a sequence from an empty shelf with one package."""
    world = World(folder)
    world.publish(0, 0)
    for name, first, second in sequence:
        getattr(world, name)(first, second)
    world.check()
    return world


_SETTINGS = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


def _run(tmp_path: Path, count: int) -> None:
    number = [0]

    @settings(_SETTINGS, max_examples=count, derandomize=count < 100)
    @given(sequence=SEQUENCES)
    def run(sequence: list[Step]) -> None:
        number[0] += 1
        folder = tmp_path / str(number[0])
        folder.mkdir()
        try:
            play(folder, sequence)
        finally:
            shutil.rmtree(folder)

    run()
    assert number[0] >= count


def test_sequences(tmp_path: Path) -> None:
    """Sixty generated sequences keep the promise."""
    _run(tmp_path, 60)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_thousand_sequences(tmp_path: Path) -> None:
    """A thousand generated sequences keep the promise."""
    _run(tmp_path, 1000)


#: Sequences that once broke the promise, by what they found.
FOUND: dict[str, list[Step]] = {
    "every step once": [(name, at, at) for at, name in enumerate(dict.fromkeys(STEPS))],
    "a damaged index is not cached": [
        ("corrupt_store", 0, 2),
        ("read", 0, 1),
        ("repair", 0, 0),
        ("read", 0, 1),
    ],
    "a tree emptied under its marks": [("read", 0, 3), ("kill", 0, 3), ("read", 0, 3), ("fork", 0, 3)],
}


@pytest.mark.parametrize("name", FOUND)
def test_found(tmp_path: Path, name: str) -> None:
    """What a generated sequence found stays mended."""
    play(tmp_path, FOUND[name])
