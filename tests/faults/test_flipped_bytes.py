"""One flipped byte, anywhere: the cache heals itself, a bad store object is named, content is never wrong."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudimport.errors import CloudImportError, CorruptError
from cloudimport.format.records import EnvironmentPointer, Ref, sha256
from cloudimport.ids import Pin
from shelf_tools.builds import verify_build
from shelf_tools.environments import verify_environments
from tests.support.shelves import MadeShelf
from tests.support.stacks import Stack, opened

NATIVE = b"\x7fELF" + bytes(range(256)) * 400
FILES: dict[str, dict[str, str | bytes]] = {
    "alpha": {
        "alpha/__init__.py": "from alpha import b\n" * 40,
        "alpha/b.py": "def f():\n    return 'b'\n" * 200,
        "alpha/_x.so": NATIVE,
        "alpha/data.bin": random.Random(1).randbytes(300_000),
        "alpha/empty": "",
    },
    "beta": {"beta.py": "X = 1\n" * 30, "beta-data/text.txt": "text\n" * 500},
}
#: Offsets that are tried in each object, besides the first and the last byte.
SAMPLES = 6


class Made:
    """A shelf, its environment, and what a sound one reads."""

    def __init__(self, folder: Path) -> None:
        self.shelf = MadeShelf(folder)
        for name, files in FILES.items():
            opened_ = [(path, True) for path in files if path.endswith(".py")]
            self.shelf.add(name, "1.0", files, opened=opened_)
        self.ref = self.shelf.environment()
        self.root = Path(self.shelf.url)
        with opened(self.shelf.url, self.ref, folder / "sound") as stack:
            self.expected = stack.everything()
        for files in FILES.values():
            for path, data in files.items():
                digest = sha256(data if isinstance(data, bytes) else data.encode())
                assert self.expected[f"read {path}"] == self.expected[f"fill {path}"] == digest

    def verify(self) -> list[str]:
        """Return what ``shelf verify`` says."""
        problems = [line for pin in self.shelf.builds for line in self._build(pin)]
        return problems + verify_environments(self.shelf.store, self.shelf.source)

    def _build(self, pin: Pin) -> list[str]:
        return verify_build(self.shelf.source, pin, str(self.shelf.target))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A shelf of two packages."""
    return Made(tmp_path_factory.mktemp("flip"))


def offsets(path: Path) -> list[int]:
    """Return positions to flip in a file, the same ones on every run."""
    size, chosen = path.stat().st_size, random.Random(path.name)
    return sorted({0, size - 1, *(chosen.randrange(size) for _ in range(SAMPLES))}) if size else []


def flip(path: Path, at: int) -> None:
    """Flip a bit of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << (at % 8)
    path.write_bytes(data)


def objects(made: Made) -> list[Path]:
    """Return every object of the shelf."""
    return [path for path in sorted(made.root.rglob("*")) if path.is_file() and not path.name.startswith(".")]


def read_all(made: Made, stack: Stack) -> Iterator[CorruptError]:
    """Read everything; yield what could not be read; what could is right."""
    for what, digest in made.expected.items():
        kind, _, path = what.partition(" ")
        try:
            got = getattr(stack, kind)(path)
        except CorruptError as error:
            yield error
        else:
            assert sha256(got) == digest, what


def test_every_object_of_the_shelf(made: Made, tmp_path: Path) -> None:
    """A flipped byte in any object is an error that says which, or does not matter; bytes are never wrong."""
    tried = 0
    for path in objects(made):
        key = path.relative_to(made.root).as_posix()
        sound = path.read_bytes()
        for at in offsets(path):
            tried += 1
            flip(path, at)
            try:
                _check_bad_object(made, tmp_path / f"{tried}", key)
            finally:
                path.write_bytes(sound)
    assert tried > 60
    assert made.verify() == []


def _check_bad_object(made: Made, cache: Path, key: str) -> None:
    name = key.rpartition("/")[2]
    digest = name.rpartition("-")[2]
    problems = made.verify()
    if "-" in name or len(name) == 64:  # a pointer may say something else that is true: another stored size
        assert any(digest in line for line in problems), (key, problems)
    try:
        with opened(made.shelf.url, made.ref, cache) as stack:
            errors = list(read_all(made, stack))
    except CorruptError as error:
        assert len(name) == 64, key
        assert key in str(error)
        assert digest in str(error)
        assert error.expected == digest
        assert error.actual
        return
    assert bool(errors) == name.startswith("pack-"), key
    for error in errors:
        package = "==".join(key.split("/")[1:3])
        assert (error.key, error.package) == (key, package)
        assert len(error.expected) == len(error.actual) == 64
        assert error.expected != error.actual
        assert all(part in str(error) for part in (package, key, error.expected, error.actual))
        assert "\n" not in str(error)
    if errors:  # nothing of it stays: once the object is sound again, so is what is read
        shutil.rmtree(cache)


def test_a_pointer_that_lies_changes_nothing_that_runs(made: Made) -> None:
    """A flipped byte in an environment pointer is an error, or the same index."""
    path = next(path for path in objects(made) if path.parent.name == "envs" and path.suffix == ".json")
    sound = path.read_bytes()
    for at in range(len(sound)):
        data = bytearray(sound)
        data[at] ^= 1
        try:
            pointer = EnvironmentPointer.decode(bytes(data), "it")
        except CloudImportError:
            continue
        for ref in pointer.targets.values():
            changed = pointer.requirements != EnvironmentPointer.decode(sound, "it").requirements
            stored = Ref(made.ref.digest, ref.stored, made.ref.size)
            assert changed or ref != made.ref or ref == stored


def cache_files(folder: Path) -> list[Path]:
    """Return every file of a cache: index, blocks, the tree's files and marks."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]


def test_every_file_of_the_cache(made: Made, tmp_path: Path) -> None:
    """A flipped byte in any cache file is noticed by the next process and healed from the store."""
    cache = tmp_path / "cache"
    with opened(made.shelf.url, made.ref, cache) as stack:
        stack.everything()
    files, tried = cache_files(cache), 0
    assert len(files) > 12
    for path in files:
        for at in offsets(path):
            tried += 1
            if path.exists():
                flip(path, at)
            with opened(made.shelf.url, made.ref, cache) as stack:
                assert stack.everything() == made.expected, f"{path} at {at}"
    assert tried > 60
    with opened(made.shelf.url, made.ref, cache) as stack:
        assert stack.everything() == made.expected
        assert stack.stats()["requests"] == 0, "not healed"


@pytest.mark.parametrize("how", ["truncate", "empty", "remove", "swap"])
def test_every_file_of_the_cache_cut_removed_or_exchanged(made: Made, tmp_path: Path, how: str) -> None:
    """A cut, empty, removed or exchanged cache file is healed too."""
    cache = tmp_path / "cache"
    with opened(made.shelf.url, made.ref, cache) as stack:
        stack.everything()
    for path in cache_files(cache):
        if how == "remove":
            path.unlink()
        elif how == "swap":
            other = tmp_path / "other"
            other.write_bytes(random.Random(5).randbytes(path.stat().st_size))
            os.replace(other, path)
        else:
            os.truncate(path, path.stat().st_size // 2 if how == "truncate" else 0)
        with opened(made.shelf.url, made.ref, cache) as stack:
            assert stack.everything() == made.expected, f"{how} {path}"


def test_with_a_warm_cache_the_store_may_be_gone(made: Made, tmp_path: Path) -> None:
    """A second process with the same cache and a lock's reference makes no request at all."""
    with opened(made.shelf.url, made.ref, tmp_path / "cache") as stack:
        stack.everything()
    with opened(str(tmp_path / "no-shelf"), made.ref, tmp_path / "cache") as stack:
        assert stack.everything() == made.expected
        assert stack.stats()["requests"] == 0
