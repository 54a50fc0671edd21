"""Blocks on local disk, uncompressed, one file a block, shared by the processes of one user.

A block is up to 1 MiB, so that an environment is some hundred files (docs/decisions/0004).
Each file ends with a trailer of size and CRC-32 (docs/format.md, section 13) and appears by
rename only; it is checked each time that it is read. No fault of the disk fails a read: it
means slower. Import budget: ``os``, ``zlib``, ``struct``.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib

from cloudimport.events import Counters

_TRAILER = struct.Struct("<4sIQ")
_MAGIC = b"CIB1"
#: Eviction goes down to this share of the bound, so that it is rare.
_LOW_WATER = 0.9
#: A temporary file older than this (seconds) was left by a killed process.
_STALE_SECONDS = 3600.0


def frame(data: bytes) -> bytes:
    """Return the trailer that follows ``data`` in a file."""
    return _TRAILER.pack(_MAGIC, zlib.crc32(data), len(data))


def read_framed(path: str) -> bytes | None:
    """Return the plain bytes of a framed file; None if it is absent. Raises ValueError if it is damaged."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(fd).st_size
        data = _read_all(fd, size)
    finally:
        os.close(fd)
    if len(data) < _TRAILER.size:
        raise ValueError("truncated")
    magic, crc, length = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    plain = data[: -_TRAILER.size]
    if magic != _MAGIC or length != len(plain) or zlib.crc32(plain) != crc:
        raise ValueError("wrong size or CRC-32")
    return plain


def _read_all(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            break
        data += more
    return data


def write_atomically(path: str, *parts: bytes) -> None:
    """Write ``parts`` to ``path`` by way of a temporary file. Raises OSError, and leaves nothing then."""
    temporary = f"{path}.{os.getpid()}.{threading.get_ident():x}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
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


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass


class DiskBlocks:
    """A folder of blocks by digest, bounded in bytes, the least recently used evicted first.

    ``usable`` turns False when the folder cannot be written; reads go on.
    """

    def __init__(self, folder: str, max_bytes: int, counters: Counters) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.usable = True
        self._counters = counters
        self._bytes: int | None = None
        self._touched: set[str] = set()

    def _path(self, digest: str) -> str:
        return f"{self.folder}/{digest[:2]}/{digest}"

    def __contains__(self, digest: str) -> bool:
        try:
            os.stat(self._path(digest))
        except OSError:
            return False
        return True

    def get(self, digest: str, size: int) -> bytes | None:
        """Return a block's plain bytes, or None. A damaged file is removed and counts as absent."""
        path = self._path(digest)
        try:
            data = read_framed(path)
            if data is not None and len(data) != size:
                raise ValueError("wrong size")
        except ValueError:
            self._counters.add("cache_repairs")
            _remove(path)
            return None
        except OSError:
            return None
        if data is not None:
            self._touch(digest, path)
        return data

    def _touch(self, digest: str, path: str) -> None:
        """Mark as used, once a process: eviction goes by modification time."""
        if digest not in self._touched:
            self._touched.add(digest)
            try:
                os.utime(path)
            except OSError:
                pass

    def put(self, digest: str, data: bytes) -> bool:
        """Keep a block; returns whether it is kept. Evicts, and retries once, when the disk is full."""
        if not self.usable:
            return False
        for attempt in (0, 1):
            try:
                self._write(digest, data)
                return True
            except OSError:
                if attempt or not self.evict(len(data)):
                    break
        self.usable = False
        return False

    def _write(self, digest: str, data: bytes) -> None:
        path = self._path(digest)
        try:
            write_atomically(path, data, frame(data))
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            write_atomically(path, data, frame(data))
        self._account(len(data))

    def _account(self, added: int) -> None:
        if self._bytes is None:
            self._bytes = sum(size for _, size, _ in self._entries())
        else:
            self._bytes += added
        if self._bytes > self.max_bytes:
            self.evict(self._bytes - int(self.max_bytes * _LOW_WATER))

    def drop(self, digest: str) -> None:
        """Remove a block."""
        _remove(self._path(digest))

    def evict(self, wanted: int) -> int:
        """Remove the least recently used blocks until ``wanted`` bytes are free; returns the bytes freed."""
        freed = 0
        for _, size, path in sorted(self._entries()):
            if freed >= wanted:
                break
            _remove(path)
            freed += size
        self._bytes = None
        return freed

    def _entries(self) -> list[tuple[float, int, str]]:
        """Return (time of last use, size, path) of every file; stale temporary files come first."""
        entries: list[tuple[float, int, str]] = []
        try:
            folders = [entry.path for entry in os.scandir(self.folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return entries
        for folder in folders:
            entries += _scan(folder)
        newest = max((time for time, _, _ in entries), default=0.0)
        return [e for e in entries if not e[2].endswith(".tmp") or e[0] < newest - _STALE_SECONDS]


def _scan(folder: str) -> list[tuple[float, int, str]]:
    found: list[tuple[float, int, str]] = []
    try:
        for entry in os.scandir(folder):
            stat = entry.stat(follow_symlinks=False)
            found.append((stat.st_mtime, stat.st_size, entry.path))
    except OSError:
        pass  # another process evicts at the same time
    return found
