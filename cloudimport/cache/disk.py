"""Blocks on local disk, uncompressed, one file a block, shared by the processes of one user.

A block is about 1 MiB, of a native file 4: an environment is some hundred files (docs/decisions/0004).
Each file ends with the CRC-32 of each of its chunks and a trailer (docs/format.md, section 13) and
appears by rename only; what is read of it is checked each time. No fault of the disk fails a read: it
means slower. Import budget: ``os``, ``errno``, ``zlib``, ``struct``, ``_thread``.
"""

from __future__ import annotations

import errno
import os
import struct
import time
import zlib
from _thread import allocate_lock

from cloudimport.events import Counters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NamedTuple, TypeVar

    _T = TypeVar("_T")
else:
    from cloudimport.tuples import NamedTuple

_TRAILER = struct.Struct("<4sIQ")
_MAGIC = b"CIB2"
#: Bytes with a CRC-32 of their own: one code object lies in a few of them.
CHUNK = 8 << 10
#: Bytes that are read at a time of a block that is read in its order; allocating more costs page faults.
_READ_ALONG = 96 << 10
#: Eviction goes down to this share of the bound, so that it is rare.
_LOW_WATER = 0.9
#: What other processes add is seen by looking again after this share of the bound was added here.
_LOOK_AGAIN = 0.05
#: A temporary file older than this (seconds) was left by a killed process.
_STALE_SECONDS = 3600.0
#: How long (seconds) nothing is written after the disk refused: a full disk is often full for a while only.
_PAUSE_SECONDS = 10.0
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: Not through a link, and without waiting for a writer should a pipe be there: neither is ours.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def frame(data: bytes, name: str = "") -> bytes:
    """Return what follows ``data`` in the file of ``name``: CRC-32 of each chunk, and the trailer."""
    view = memoryview(data)
    sums = [zlib.crc32(view[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
    table = struct.pack(f"<{len(sums)}I", *sums)
    return table + _TRAILER.pack(_MAGIC, _checksum(table, name), len(data))


def _checksum(table: bytes, name: str) -> int:
    """Return a CRC-32 that begins with the name: another block's file does not pass for this one's."""
    return zlib.crc32(table, zlib.crc32(name.encode()) if name else 0)


def _tail(size: int) -> int:
    """Return how many bytes follow ``size`` bytes of data."""
    return 4 * -(-size // CHUNK) + _TRAILER.size


def read_framed(path: str, name: str = "", size: int | None = None) -> bytes | None:
    """Return the plain bytes of a framed file; None if it is absent.

    Raises ValueError if it is damaged, is of another name or does not hold ``size`` bytes, and OSError.
    """
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        found = os.fstat(fd).st_size
        if size is None:
            size = _size_in(fd, found)
        if found != size + _tail(size):  # before it is read: it may be of any size
            raise ValueError("wrong size")
        return _chunks(fd, _table(fd, name, size), 0, size)
    finally:
        os.close(fd)


def _size_in(fd: int, found: int) -> int:
    """Return the number of plain bytes that a file of ``found`` bytes says it has. Raises ValueError."""
    trailer = os.pread(fd, _TRAILER.size, max(0, found - _TRAILER.size))
    if len(trailer) < _TRAILER.size:
        raise ValueError("truncated")
    size: int = _TRAILER.unpack(trailer)[2]
    return size


def _table(fd: int, name: str, size: int) -> bytes:
    """Return the CRC-32 of each chunk, as the file has them. Raises ValueError if that is not well-formed."""
    tail = _read_at(fd, _tail(size), size)
    table = tail[: -_TRAILER.size]
    if tail[len(table) :] != _TRAILER.pack(_MAGIC, _checksum(table, name), size):
        raise ValueError("wrong size or CRC-32")
    return table


def _chunks(fd: int, table: bytes, start: int, end: int) -> bytes:
    """Return the bytes from ``start``, where a chunk begins, to ``end``. Raises ValueError."""
    data = _read_at(fd, end - start, start)
    first, view, crc32 = start // CHUNK, memoryview(data), zlib.crc32
    found = [crc32(view[at : at + CHUNK]) for at in range(0, len(data), CHUNK)]
    if found != [*struct.unpack_from(f"<{len(found)}I", table, 4 * first)]:
        raise ValueError("wrong CRC-32")
    return data


def _read_at(fd: int, length: int, offset: int) -> bytes:
    """Return ``length`` bytes from ``offset``. Raises ValueError if there are fewer, and OSError."""
    data = os.pread(fd, length, offset)
    while len(data) < length:
        more = os.pread(fd, length - len(data), offset + len(data))
        if not more:
            raise ValueError("truncated")
        data += more
    return data


def write_atomically(path: str, *parts: bytes) -> None:
    """Write ``parts`` to ``path`` by way of a temporary file beside it.

    Raises OSError; leaves nothing behind.
    """
    # Not by process number: containers that share a folder have the same ones.
    temporary = f"{path}.{os.urandom(8).hex()}.tmp"
    fd = os.open(temporary, _WRITE, 0o600)
    try:
        try:
            for part in parts:
                _write_all(fd, part)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _remove(path: str) -> bool:
    """Remove a file; return whether it is gone by this."""
    try:
        os.unlink(path)
    except OSError:
        return False
    return True


class _Window(NamedTuple):
    """What was read last of a block, and where in it that begins."""

    block: tuple[str, int]
    start: int
    data: bytes


_NOTHING = _Window(("", 0), 0, b"")


class DiskBlocks:
    """A folder of blocks by digest, bounded in bytes, the least recently used evicted first.

    The bound is kept by each process for what it sees: several at once may exceed it by the share
    that they add between two looks. When the disk refuses a write, there is a pause; reads go on.
    """

    def __init__(
        self, folder: str, max_bytes: int, counters: Counters, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._counters = counters
        self._clock = clock
        self._resume = 0.0
        self._touched: set[str] = set()
        #: What was read last, and the CRC-32s of blocks that were read, by digest and size.
        self._window = _NOTHING
        self._tables: dict[tuple[str, int], bytes] = {}
        self._bytes = 0
        self.forget_lock()

    def forget_lock(self) -> None:
        """In a forked child: take a fresh lock, and look at the folder anew."""
        self._lock = allocate_lock()
        self._unseen = -1

    @property
    def usable(self) -> bool:
        """Whether blocks are kept now."""
        return self._clock() >= self._resume

    def _path(self, digest: str) -> str:
        return f"{self.folder}/{digest[:2]}/{digest}"

    def has(self, digest: str, size: int) -> bool:
        """Whether there is a file for a block of ``size`` plain bytes."""
        try:
            return os.stat(self._path(digest)).st_size == size + _tail(size)
        except OSError:
            return False

    def get(self, digest: str, size: int) -> bytes | None:
        """Return a block's plain bytes, or None. A damaged file is removed and counts as absent."""
        return self._kept(digest, lambda path: read_framed(path, digest, size))

    def part(self, digest: str, size: int, at: int, length: int) -> memoryview | None:
        """Return ``length`` of a block's plain bytes from ``at``, or None, as ``get`` does.

        The chunks that they lie in are read, and more if what comes after them is being read in its order.
        """
        window = self._window
        inside = at - window.start
        if window.block != (digest, size) or not 0 <= inside <= len(window.data) - length:
            found = self._kept(digest, lambda path: self._read_window(path, digest, size, at, length))
            if found is None:
                return None
            window, inside = found, at - found.start
        return memoryview(window.data)[inside : inside + length]

    def _read_window(self, path: str, digest: str, size: int, at: int, length: int) -> _Window | None:
        """Return what was read of a block, and keep it. Raises ValueError and OSError."""
        last = self._window
        block = digest, size
        goes_on = last.block == block and 0 <= at - last.start <= len(last.data) + CHUNK
        start = at - at % CHUNK
        end = min(size, -(-max(at + length, start + _READ_ALONG * goes_on) // CHUNK) * CHUNK)
        try:
            fd = os.open(path, _READ)
        except FileNotFoundError:
            return None
        try:
            table = self._tables.get(block) or _table(fd, digest, size)
            window = _Window(block, start, _chunks(fd, table, start, end))
        finally:
            os.close(fd)
        self._tables[block] = table
        self._window = window
        return window

    def _kept(self, digest: str, read: Callable[[str], _T | None]) -> _T | None:
        path = self._path(digest)
        try:
            data = read(path)
        except ValueError:
            self._counters.add("cache_repairs")
            _remove(path)
            return None
        except OSError:
            return None
        if data is not None and digest not in self._touched:
            self._touch(digest, path)
        return data

    def _touch(self, digest: str, path: str) -> None:
        """Mark as used, once a process: eviction goes by modification time."""
        self._touched.add(digest)
        try:
            os.utime(path)
        except OSError:
            pass

    def put(self, digest: str, data: bytes) -> bool:
        """Keep a block; returns whether it is kept. Evicts, and retries once, when the disk is full."""
        if len(data) > self.max_bytes or not self.usable:
            return False
        for attempt in (0, 1):
            try:
                self._write(self._path(digest), digest, data)
            except OSError as error:
                if attempt or error.errno not in _FULL or not self.evict(len(data)):
                    break
            else:
                self._account(len(data))
                return True
        self._resume = self._clock() + _PAUSE_SECONDS
        return False

    def _write(self, path: str, digest: str, data: bytes) -> None:
        trailer = frame(data, digest)
        try:
            write_atomically(path, data, trailer)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            _clear_way(path)
            write_atomically(path, data, trailer)
        self._counters.add("bytes_cached", len(data) + len(trailer))

    def _account(self, added: int) -> None:
        """Count what was added; look at the folder first, and again from time to time."""
        with self._lock:
            look = self._unseen < 0 or self._unseen + added > self.max_bytes * _LOOK_AGAIN
            self._unseen = 0 if look else self._unseen + added
            self._bytes += added
        if look:
            found = sum(size for _, size, _ in self._entries())
            with self._lock:
                self._bytes = found
        if self._bytes > self.max_bytes:
            self.evict(self._bytes - int(self.max_bytes * _LOW_WATER))

    def drop(self, digest: str) -> None:
        """Remove a block."""
        self._window = _NOTHING
        _remove(self._path(digest))

    def evict(self, wanted: int) -> int:
        """Remove the least recently used blocks until ``wanted`` bytes are free; returns the bytes freed."""
        freed = 0
        for _, size, path in sorted(self._entries()):
            if freed >= wanted:
                break
            if _remove(path):
                freed += size
        with self._lock:
            self._bytes -= freed
        return freed

    def _entries(self) -> list[tuple[float, int, str]]:
        """Return (time of last use, size, path) of every file but those that are being written."""
        entries: list[tuple[float, int, str]] = []
        try:
            folders = [entry.path for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return entries
        for folder in folders:
            entries += _scan(folder)
        oldest = time.time() - _STALE_SECONDS
        return [entry for entry in entries if not entry[2].endswith(".tmp") or entry[0] < oldest]


def _clear_way(path: str) -> None:
    """Make the folder of ``path``; remove what lies in its place, or in that of ``path``. Raises OSError."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        _remove(folder)
    os.makedirs(folder, 0o700, exist_ok=True)
    try:
        os.rmdir(path)
    except OSError:
        pass  # almost always: there is nothing


def _scan(folder: str) -> list[tuple[float, int, str]]:
    found: list[tuple[float, int, str]] = []
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return found
    for entry in entries:
        try:
            stat = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # another process evicts at the same time
        found.append((stat.st_mtime, stat.st_size, entry.path))
    return found
