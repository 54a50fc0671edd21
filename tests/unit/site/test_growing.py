"""Files that grow are whole in the end or not there, in whatever order and from however many threads."""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cloudimport.format.index import BlockRef
from cloudimport.format.records import sha256
from cloudimport.site.growing import Growing

SIZE = 1000


class Section:
    """A build with native files of ``counts`` blocks each; their ends share a block that is nobody's own."""

    build = 0

    def __init__(self, *counts: int) -> None:
        chance = random.Random(7)
        self.data = [chance.randbytes(count * SIZE + 10 * file) for file, count in enumerate(counts)]
        self.paths = [f"folder/{file}.so" for file in range(len(counts))]
        self.sizes = list(map(len, self.data))
        self.extents = list(range(len(counts)))
        self.executable = frozenset({0})
        self.blocks: dict[BlockRef, bytes] = {}
        self._pieces: list[list[tuple[BlockRef, int, int]]] = []
        ends = b"".join(data[-10 * file :] for file, data in enumerate(self.data) if file)
        for file, data in enumerate(self.data):
            pieces = [self._block(data[at : at + SIZE]) for at in range(0, counts[file] * SIZE, SIZE)]
            rows = [(ref, 0, SIZE) for ref in pieces]
            if file:
                start = sum(10 * other for other in range(1, file))
                rows.append((self._block(ends, exclusive=False), start, 10 * file))
            self._pieces.append(rows)

    def _block(self, data: bytes, exclusive: bool = True) -> BlockRef:
        ref = BlockRef(sha256(data), "key", len(self.blocks), 1, len(data), 0, exclusive)
        known = next((other for other in self.blocks if other.digest == ref.digest), None)
        self.blocks.setdefault(known or ref, data)
        return known or ref

    def pieces(self, file: int) -> list[tuple[BlockRef, int, int]]:
        """Return where a file's bytes are."""
        return self._pieces[file]

    def digest(self, file: int) -> str:
        """Return a file's digest."""
        return sha256(self.data[file])

    def stamp(self, file: int) -> int:
        """Return a file's time."""
        return 10**18 + file


class World:
    """A section, files that grow of it, and what was placed."""

    def __init__(self, folder: Path, *counts: int) -> None:
        self.section: Any = Section(*counts)
        self.root, self.state = folder / "site", folder / "state"
        self.state.mkdir()
        self.placed: list[int] = []
        self.may = True
        #: What is answered to who asks for room, one by one; then there is none.
        self.room: list[bool] = []
        self.growing = Growing(
            f"{self.root}/",
            str(self.state),
            lambda s, f: self.may,
            lambda s, f: self.placed.append(f),
            lambda wanted: self.room.pop() if self.room else False,
        )
        for file in range(len(counts)):
            self.growing.begin(self.section, file)

    def take(self, *refs: BlockRef) -> list[bool]:
        """Offer blocks as they come."""
        return [self.growing.take(ref, (self.section.blocks[ref],)) for ref in refs]

    def read(self, file: int) -> bytes | None:
        """Return what is in a file's place."""
        path = self.root / self.section.paths[file]
        return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("seed", range(5))
def test_any_order(tmp_path: Path, seed: int) -> None:
    """Blocks come in any order; a file is there when the last has come, with its mode and time."""
    world = World(tmp_path, 6)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    random.Random(seed).shuffle(refs)
    assert world.take(*refs[:-1]) == [True] * 5
    assert world.read(0) is None
    assert world.growing.lacking(world.section, 0) == refs[-1:]
    assert world.take(refs[-1]) == [True]
    assert world.read(0) == world.section.data[0]
    found = (world.root / "folder/0.so").stat()
    assert (found.st_mode & 0o777, found.st_mtime_ns) == (0o755, 10**18)
    assert all(map(world.growing.has, refs))
    assert world.growing.lacking(world.section, 0) == []
    assert world.placed == [0]
    assert os.listdir(world.state) == []
    world.growing.begin(world.section, 0)  # by whoever looked just before it was there
    assert all(map(world.growing.has, refs))


def test_nothing_stays_of_a_process_that_is_killed(tmp_path: Path) -> None:
    """What grows has no name until it is whole, where the file system can do that."""
    world = World(tmp_path, 2)
    world.take(world.section.pieces(0)[0][0])
    assert os.listdir(world.state) == []


def test_without_files_without_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere it grows under a temporary one."""
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)  # a folder cannot be opened for writing
    world = World(tmp_path, 2)
    assert len(os.listdir(world.state)) == 1
    world.take(*(ref for ref, _, _ in world.section.pieces(0)))
    assert world.read(0) == world.section.data[0]
    assert os.listdir(world.state) == []


def test_many_threads(tmp_path: Path) -> None:
    """Several files, whose blocks come twice and from many threads, are each placed once."""
    world = World(tmp_path, 8, 8, 8, 8)
    work = [(file, ref) for file in range(4) for ref, _, _ in world.section.pieces(file)] * 2
    random.Random(1).shuffle(work)

    def put(row: tuple[int, BlockRef]) -> None:
        file, ref = row
        if ref.exclusive:
            world.growing.take(ref, (world.section.blocks[ref],))
        else:
            world.growing.put(world.section, file, ref, world.section.blocks[ref])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, work))
    assert [world.read(file) for file in range(4)] == world.section.data
    assert sorted(world.placed) == [0, 1, 2, 3]
    assert os.listdir(world.state) == []


def test_what_is_not_its_own_is_not_taken(tmp_path: Path) -> None:
    """A block that others have a part of is kept by the cache; the file's reader puts it there."""
    world = World(tmp_path, 1, 1)
    [(own, _, _), (shared, _, _)] = world.section.pieces(1)
    assert world.take(own, shared) == [True, False]
    assert world.growing.lacking(world.section, 1) == [shared]
    world.growing.put(world.section, 1, shared, world.section.blocks[shared])
    assert world.read(1) == world.section.data[1]


def test_wrong_bytes(tmp_path: Path) -> None:
    """A file that is not what it should be is not placed, and nothing of it stays."""
    world = World(tmp_path, 3)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    assert world.take(*refs[:2]) == [True, True]
    assert not world.growing.take(refs[2], (bytes(SIZE),))
    assert world.read(0) is None
    assert not any(map(world.growing.has, refs))
    assert os.listdir(world.state) == []
    assert world.take(*refs) == [False] * 3  # it no longer grows


def test_given_up(tmp_path: Path) -> None:
    """What lacks a block when it is needed is given up: the tree writes it in one piece."""
    world = World(tmp_path, 3)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    world.take(refs[0])
    world.growing.end(world.section, 0)
    assert not world.growing.has(refs[0])
    assert world.take(refs[1]) == [False]
    assert (world.read(0), os.listdir(world.state)) == (None, [])


def test_not_over_what_is_there(tmp_path: Path) -> None:
    """If the place is taken meanwhile, the file goes."""
    world = World(tmp_path, 2)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    world.take(refs[0])
    world.may = False
    assert world.take(refs[1]) == [False]
    assert (world.read(0), world.placed, os.listdir(world.state)) == (None, [], [])


def test_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up, or a folder that cannot be written, is no error here."""
    world = World(tmp_path, 2)
    refs = [ref for ref, _, _ in world.section.pieces(0)]

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    assert world.take(refs[0]) == [False]
    assert os.listdir(world.state) == []
    other = Growing(
        f"{tmp_path}/", "/dev/null/nowhere", lambda s, f: True, lambda s, f: None, lambda n: False
    )
    other.begin(world.section, 0)
    assert other.lacking(world.section, 0) == []


def test_room_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk somebody else makes room, as often as there is any, and the file grows on."""
    world = World(tmp_path, 2)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    write, faults = os.pwrite, [1, 1]

    def full_twice(*arguments: object) -> int:
        if faults:
            raise OSError(28, "No space left on device", faults.pop())
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "pwrite", full_twice)
    world.room += [True, True]
    assert world.take(refs[0]) == [True]
    assert world.take(refs[1]) == [True]
    assert world.read(0) == world.section.data[0]


def test_give_up(tmp_path: Path) -> None:
    """Files that nobody is writing to can be given up for another one."""
    world = World(tmp_path, 2, 2)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    world.take(refs[0])
    assert world.growing.give_up()
    assert not world.growing.give_up()
    assert world.take(refs[1]) == [False]
    assert os.listdir(world.state) == []


def test_fork(tmp_path: Path) -> None:
    """A forked child leaves its parent's files alone."""
    world = World(tmp_path, 2)
    refs = [ref for ref, _, _ in world.section.pieces(0)]
    world.take(refs[0])
    pid = os.fork()
    if not pid:
        world.growing.forget()
        taken = world.take(refs[1])
        world.growing.begin(world.section, 0)
        world.growing.end(world.section, 0)
        os._exit(int(taken != [False]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert world.take(refs[1]) == [True]
    assert world.read(0) == world.section.data[0]
