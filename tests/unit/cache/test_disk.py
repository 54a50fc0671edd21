"""The disk tier: bounded, healing itself, shared by processes; no fault of it fails a read."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudimport.cache import disk as disk_module
from cloudimport.cache.disk import CHUNK, DiskBlocks, frame, read_framed, write_atomically
from cloudimport.cache.hot import HotBlocks
from cloudimport.cache.tiered import BlockCache
from cloudimport.events import Counters
from cloudimport.format.index import BlockRef
from cloudimport.format.records import sha256
from tests.support.children import REPOSITORY


def digest(number: int) -> str:
    """Return the digest of a made-up block."""
    return sha256(b"%d" % number)


def block(number: int, size: int = 1000) -> bytes:
    """Return the bytes of a made-up block."""
    return (b"%d," % number * size)[:size]


def make(folder: Path, max_bytes: int = 1 << 30, **more: Any) -> DiskBlocks:
    """Return a tier over a folder."""
    return DiskBlocks(str(folder), max_bytes, Counters(), **more)


def files(folder: Path) -> list[Path]:
    """Return every file below a folder."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def path_of(folder: Path, number: int) -> Path:
    """Return a block's file."""
    return folder / digest(number)[:2] / digest(number)


def test_a_block_is_kept_for_other_processes(tmp_path: Path) -> None:
    """What one process puts, another one gets; an absent one is None."""
    assert make(tmp_path).put(digest(1), block(1))
    assert make(tmp_path).get(digest(1), 1000) == block(1)
    assert make(tmp_path).get(digest(2), 1000) is None
    assert make(tmp_path).has(digest(1), 1000)
    assert not make(tmp_path).has(digest(1), 999)


def test_files_are_private(tmp_path: Path) -> None:
    """Nobody else can write, or read, what will be executed."""
    old = os.umask(0)
    try:
        make(tmp_path / "blocks").put(digest(1), block(1))
    finally:
        os.umask(old)
    assert path_of(tmp_path / "blocks", 1).stat().st_mode & 0o777 == 0o600
    assert path_of(tmp_path / "blocks", 1).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("at", [0, 1, 500, 999, 1000, 1003, 1004, 1007, 1008, 1015])
def test_a_flipped_byte_is_noticed(tmp_path: Path, at: int) -> None:
    """Any byte that changed, content or trailer, makes the block absent, its file removed, and it heals."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    path = path_of(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)
    assert tier.get(digest(1), 1000) is None
    assert not path.exists()
    assert tier._counters.snapshot()["cache_repairs"] == 1
    tier.put(digest(1), block(1))
    assert tier.get(digest(1), 1000) == block(1)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 500, 1015])
def test_a_truncated_file_is_noticed(tmp_path: Path, size: int) -> None:
    """A file that lost its end is absent, and is removed."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    os.truncate(path_of(tmp_path, 1), size)
    assert not tier.has(digest(1), 1000)
    assert tier.get(digest(1), 1000) is None
    assert not path_of(tmp_path, 1).exists()


def test_another_blocks_file_is_noticed(tmp_path: Path) -> None:
    """A sound file of the same size under another block's name is not taken for that block."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    tier.put(digest(2), block(2))
    os.replace(path_of(tmp_path, 1), path_of(tmp_path, 2))
    assert tier.get(digest(2), 1000) is None


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A file of a terabyte in a block's place costs no memory, and is removed."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    os.truncate(path_of(tmp_path, 1), 1 << 40)
    assert tier.get(digest(1), 1000) is None
    assert not path_of(tmp_path, 1).exists()


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "file for a folder"])
def test_what_is_no_file_of_ours_is_replaced(tmp_path: Path, what: str) -> None:
    """A link, a pipe or a folder in a block's place, or a file in a folder's, neither harms nor hangs."""
    tier, path = make(tmp_path), path_of(tmp_path, 1)
    path.parent.mkdir()
    if what == "link":
        target = tmp_path / "else"
        target.write_bytes(block(1) + frame(block(1), digest(1)))
        path.symlink_to(target)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.parent.rmdir()
        path.parent.write_text("")
    assert tier.get(digest(1), 1000) is None
    assert tier.put(digest(1), block(1))
    assert tier.get(digest(1), 1000) == block(1)
    assert path.is_file()
    assert not path.is_symlink()


def test_the_bound_holds_and_the_recently_used_stay(tmp_path: Path) -> None:
    """Beyond the bound the least recently used go, some more than must, and those in use stay."""
    tier = make(tmp_path, 20_000)
    for number in range(15):
        tier.put(digest(number), block(number))
        os.utime(path_of(tmp_path, number), (1000 + number, 1000 + number))
    make(tmp_path).get(digest(0), 1000)  # another process uses it: that marks it
    for number in range(15, 25):
        tier.put(digest(number), block(number))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 20_000
    assert tier.get(digest(0), 1000) == block(0)
    assert tier.get(digest(1), 1000) is None
    assert tier.get(digest(24), 1000) == block(24)


def test_what_other_processes_add_counts(tmp_path: Path) -> None:
    """Several processes together exceed the bound by no more than they add between two looks."""
    tiers = [make(tmp_path, 100_000) for _ in range(4)]
    for number in range(400):
        tiers[number % 4].put(digest(number), block(number))
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 100_000 * (1 + 4 * 0.05) + 4000


def test_a_block_larger_than_the_bound_is_refused(tmp_path: Path) -> None:
    """It would push out everything, itself included."""
    tier = make(tmp_path, 5000)
    tier.put(digest(1), block(1))
    assert not tier.put(digest(2), block(2, 6000))
    assert tier.get(digest(1), 1000) == block(1)
    assert not make(tmp_path, 0).put(digest(3), block(3))


def test_temporary_files_of_killed_processes_go_first(tmp_path: Path) -> None:
    """Eviction removes what was left half-written an hour ago, and leaves what is being written."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    folder = path_of(tmp_path, 1).parent
    stale, fresh = folder / "x.1.tmp", folder / "y.2.tmp"
    stale.write_bytes(b"x" * 100)
    fresh.write_bytes(b"y" * 100)
    os.utime(stale, (time.time() - 4000, time.time() - 4000))
    assert tier.evict(50) == 100
    assert not stale.exists()
    tier.evict(1 << 30)
    assert files(tmp_path) == [fresh]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary file is removed, whatever ends the write."""
    monkeypatch.setattr(disk_module, "_write_all", _raise(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_atomically(str(tmp_path / "x"), b"data")
    assert files(tmp_path) == []


def _raise(error: BaseException) -> Any:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_full_disk_evicts_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC makes room and tries once more."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    write, faults = disk_module._write_all, [OSError(errno.ENOSPC, "full")]

    def once(fd: int, data: bytes) -> None:
        if faults:
            raise faults.pop()
        write(fd, data)

    monkeypatch.setattr(disk_module, "_write_all", once)
    assert tier.put(digest(2), block(2))
    assert tier.get(digest(1), 1000) is None
    assert tier.get(digest(2), 1000) == block(2)


def test_a_disk_that_stays_full_is_left_alone_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a write that failed for good nothing is written; reads go on; later it is tried again."""
    now = [100.0]
    tier = make(tmp_path, clock=lambda: now[0])
    tier.put(digest(1), block(1))
    with monkeypatch.context() as patch:
        patch.setattr(disk_module, "_write_all", _raise(OSError(errno.EROFS, "read-only")))
        assert not tier.put(digest(2), block(2))
    assert not tier.usable
    assert not tier.put(digest(2), block(2))
    assert tier.get(digest(1), 1000) == block(1)
    now[0] += 60
    assert tier.put(digest(2), block(2))


def test_an_error_that_eviction_does_not_mend_evicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that refuses writes keeps what it has."""
    tier = make(tmp_path)
    tier.put(digest(1), block(1))
    monkeypatch.setattr(disk_module, "_write_all", _raise(OSError(errno.EACCES, "no")))
    assert not tier.put(digest(2), block(2))
    assert tier.get(digest(1), 1000) == block(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, where root may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "small-disk", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_really_full_disk(small_disk: Path) -> None:
    """On a file system of a megabyte, ten megabytes of blocks go through and the last ones are there."""
    tier = make(small_disk)
    kept = [tier.put(digest(number), block(number, 100_000)) for number in range(100)]
    assert all(kept)
    assert tier.get(digest(99), 100_000) == block(99, 100_000)
    assert all(path.suffix != ".tmp" for path in files(small_disk))


def test_a_full_disk_of_others(small_disk: Path) -> None:
    """Where others fill the disk, blocks are not kept, and nothing fails."""
    (small_disk / "other").write_bytes(bytes(900_000))
    tier = make(small_disk / "blocks")
    assert not tier.put(digest(1), block(1, 500_000))
    assert tier.get(digest(1), 500_000) is None


def test_a_read_only_disk(small_disk: Path) -> None:
    """A read-only file system is read, and refuses quietly."""
    tier = make(small_disk)
    tier.put(digest(1), block(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert not tier.put(digest(2), block(2))
    assert tier.get(digest(1), 1000) == block(1)


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """Under RLIMIT_FSIZE (EFBIG, SIGXFSZ ignored by Python) blocks are not kept, and nothing fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    tier = make(tmp_path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    try:
        assert not tier.put(digest(1), block(1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []


def test_a_folder_that_vanishes_comes_back(tmp_path: Path) -> None:
    """A cache that somebody removes under a running process is made again."""
    tier = make(tmp_path / "blocks")
    tier.put(digest(1), block(1))
    path_of(tmp_path / "blocks", 1).unlink()
    path_of(tmp_path / "blocks", 1).parent.rmdir()
    (tmp_path / "blocks").rmdir()
    assert tier.get(digest(1), 1000) is None
    assert tier.put(digest(1), block(1))


def test_threads_share_a_tier(tmp_path: Path) -> None:
    """Eight threads that put, get and evict at a tight bound end without an error or a wrong byte."""
    tier, errors = make(tmp_path, 30_000), []

    def work(seed: int) -> None:
        try:
            for step in range(150):
                number = (seed * 31 + step) % 60
                tier.put(digest(number), block(number))
                got = tier.get(digest(number), 1000)
                assert got in (None, block(number))
        except BaseException as error:  # noqa: BLE001 it is what the test is about
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


_PROCESS = """
import sys
from cloudimport.cache.disk import DiskBlocks
from cloudimport.events import Counters
from cloudimport.format.records import sha256
tier = DiskBlocks(sys.argv[1], 60_000, Counters())
for step in range(300):
    number = (int(sys.argv[2]) * 37 + step) % 100
    name, data = sha256(b"%d" % number), (b"%d," % number * 1000)[:1000]
    tier.put(name, data)
    got = tier.get(name, 1000)
    assert got is None or got == data, number
"""


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Four processes over one folder at a tight bound see no wrong byte and leave no temporary file."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    running = [
        subprocess.Popen([sys.executable, "-c", _PROCESS, str(tmp_path), str(seed)], env=environment)
        for seed in range(4)
    ]
    assert [process.wait(60) for process in running] == [0] * 4
    assert all(path.suffix != ".tmp" for path in files(tmp_path))
    for number in range(100):
        assert make(tmp_path).get(digest(number), 1000) in (None, block(number))


def test_a_killed_writer_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    """A process killed while it writes leaves temporary files, which no reader takes for blocks."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    code = _PROCESS
    for small, large in (("60_000", "10**8"), ("300", "10**9"), ("* 1000)[:1000]", "* 10**6)[:10**6]")):
        code = code.replace(small, large)
    code = code.replace("tier.get(name, 1000)", "None")
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), "0"], env=environment)
    until = time.monotonic() + 20
    while len(files(tmp_path)) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    blocks = [path for path in files(tmp_path) if path.suffix != ".tmp"]
    assert blocks
    assert all(read_framed(str(path), path.name, 10**6) is not None for path in blocks)


def _ref(data: bytes, stored: bytes, codec: int, exclusive: bool = False) -> BlockRef:
    return BlockRef(sha256(stored), "packages/a/1/t/pack-x", 0, len(stored), len(data), codec, exclusive)


def test_one_digest_with_two_meanings(tmp_path: Path) -> None:
    """A block cached as another index describes it (the frame as plain bytes) is not what this one gets."""
    import zstandard

    plain = b"plain " * 100
    stored = zstandard.compress(plain)
    cache = BlockCache(HotBlocks(1 << 20), make(tmp_path), Counters())
    cache.put(_ref(stored, stored, 0), stored)
    assert cache.get(_ref(plain, stored, 1)) is None
    cache.put(_ref(plain, stored, 1), plain)
    assert cache.get(_ref(plain, stored, 1)) == plain


def test_exclusive_blocks_stay_out_of_memory(tmp_path: Path) -> None:
    """Blocks of one native file are kept on disk only, and in memory where there is no disk."""
    data = block(1)
    ref = _ref(data, data, 0, exclusive=True)
    hot = HotBlocks(1 << 20)
    cache = BlockCache(hot, make(tmp_path), Counters())
    cache.put(ref, data)
    assert cache.get(ref) == data
    assert ref.digest not in hot
    without = BlockCache(hot, make(tmp_path, 0), Counters())
    without.put(ref, data)
    assert ref.digest in hot


def test_without_a_disk_memory_is_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much can be fetched ahead is what the tier that works can hold."""
    tier = make(tmp_path, 5000)
    cache = BlockCache(HotBlocks(77), tier, Counters())
    assert cache.room() == 5000
    monkeypatch.setattr(disk_module, "_write_all", _raise(OSError(errno.EROFS, "read-only")))
    tier.put(digest(1), block(1))
    assert cache.room() == 77


def _large(folder: Path) -> tuple[DiskBlocks, bytes]:
    """Return a tier that has a block of many chunks, whose bytes differ everywhere, and the block."""
    data = b"".join(at.to_bytes(4, "big") for at in range(100_000))
    made = make(folder)
    assert made.put(digest(1), data)
    return made, data


@pytest.mark.parametrize("order", ["up", "down", "anyhow"])
def test_parts_of_a_block(tmp_path: Path, order: str) -> None:
    """Any part is what the block has there, in whichever order parts are read."""
    tier, data = _large(tmp_path)
    places = [(at, 1 + at % 30_011) for at in range(0, len(data) - 1, 7_919)]
    places += [(0, len(data)), (0, 1), (len(data) - 1, 1), (CHUNK - 1, 2), (CHUNK, CHUNK), (5, 0)]
    places.sort(reverse=order == "down")
    if order == "anyhow":
        places.sort(key=lambda place: digest(sum(place)))
    for at, length in places:
        wanted = data[at : at + length]
        assert tier.part(digest(1), len(data), at, len(wanted)) == wanted


def test_a_part_of_what_is_not_there(tmp_path: Path) -> None:
    """An absent block has no parts, and neither has one that is described as of another size."""
    tier, data = _large(tmp_path)
    assert tier.part(digest(2), len(data), 0, 1) is None
    assert tier.part(digest(1), len(data), 0, 1) == data[:1]
    assert tier.part(digest(1), len(data) - 1, 0, 1) is None
    assert not path_of(tmp_path, 1).exists()  # what lay there is not what was asked for


def test_a_part_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a part reads its chunks; parts one after the other are read several at a time."""
    tier, data = _large(tmp_path)
    reads: list[int] = []
    pread = os.pread

    def counting(fd: int, length: int, offset: int) -> bytes:
        reads.append(length)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counting)
    assert tier.part(digest(1), len(data), 100_000, 10) == data[100_000:100_010]
    assert max(reads) == CHUNK
    reads.clear()
    for at in range(100_010, 300_010, 1_000):
        assert tier.part(digest(1), len(data), at, 1_000) == data[at : at + 1_000]
    assert len(reads) <= 4
    assert sum(reads) < 320_000


@pytest.mark.parametrize("at", [0, CHUNK - 1, CHUNK, 199_999, 399_999])
def test_a_damaged_part_is_seen(tmp_path: Path, at: int) -> None:
    """A flipped bit is seen by whoever reads its chunk, and the file is gone; other chunks are sound."""
    tier, data = _large(tmp_path)
    _flip(path_of(tmp_path, 1), at)
    other = 300_000 if at < 100_000 else 0
    assert tier.part(digest(1), len(data), other, 10) == data[other : other + 10]
    assert tier.part(digest(1), len(data), at, 1) is None
    assert not path_of(tmp_path, 1).exists()


@pytest.mark.parametrize("at", [-1, -9, -13, -16, -17, -200])
def test_damage_behind_the_bytes_is_seen(tmp_path: Path, at: int) -> None:
    """A flipped bit in the CRC-32s or in the trailer makes every part absent."""
    tier, data = _large(tmp_path)
    _flip(path_of(tmp_path, 1), at)
    assert tier.part(digest(1), len(data), 0, 10) is None
    assert not path_of(tmp_path, 1).exists()


def _flip(path: Path, at: int) -> None:
    stored = bytearray(path.read_bytes())
    stored[at] ^= 1
    path.write_bytes(stored)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    """What is truncated behind a process that has read some of it is absent, not short."""
    tier, data = _large(tmp_path)
    assert tier.part(digest(1), len(data), 0, 10) == data[:10]
    os.truncate(path_of(tmp_path, 1), 200_005)
    assert tier.part(digest(1), len(data), 200_000, 10) is None
