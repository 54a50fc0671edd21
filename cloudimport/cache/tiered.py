"""The cache as the fetcher sees it: memory over disk. Import budget: nothing of its own."""

from __future__ import annotations

from cloudimport.cache.disk import DiskBlocks
from cloudimport.cache.hot import HotBlocks
from cloudimport.events import Counters
from cloudimport.format.index import BlockRef

#: Bytes of blocks in memory that are on disk too: reading them from there costs little more.
_BESIDE_DISK = 4 << 20


class BlockCache:
    """Plain bytes of blocks, nearest tier first. Never raises for a fault of a tier."""

    def __init__(self, hot: HotBlocks, disk: DiskBlocks, counters: Counters) -> None:
        self._hot = hot
        self._disk = disk
        self._counters = counters

    def get(self, ref: BlockRef) -> bytes | None:
        """Return a block's plain bytes, or None."""
        data = self.look(ref)
        self._counters.add("cache_misses" if data is None else "cache_hits")
        return data

    def part(self, ref: BlockRef, at: int, length: int) -> bytes | memoryview | None:
        """Return ``length`` of a block's plain bytes from ``at``, or None.

        From disk no more is read than that takes: what a warm start needs of a block is often little of it.
        Only hits are counted.
        """
        data: bytes | memoryview | None = self._hot.get(ref.digest)
        if data is not None and len(data) == ref.size:
            data = memoryview(data)[at : at + length]
        else:
            data = self._disk.part(ref.digest, ref.size, at, length)
        if data is not None:
            self._counters.add("cache_hits")
        return data

    def look(self, ref: BlockRef) -> bytes | None:
        """Return a block's plain bytes, or None, without counting."""
        data = self._hot.get(ref.digest)
        # The digest is of the stored bytes: what they decode to depends on what the index says of them.
        if data is None or len(data) != ref.size:
            data = self._disk.get(ref.digest, ref.size)
            if data is not None and not ref.exclusive:
                self._hot.put(ref.digest, data, _BESIDE_DISK)
        return data

    def put(self, ref: BlockRef, data: bytes) -> None:
        """Keep a block that was fetched and checked."""
        kept = self._disk.put(ref.digest, data)
        if not (kept and ref.exclusive):
            self._hot.put(ref.digest, data, _BESIDE_DISK if kept else None)

    def drop(self, ref: BlockRef) -> None:
        """Forget a block, in every tier."""
        self._hot.drop(ref.digest)
        self._disk.drop(ref.digest)

    def __contains__(self, ref: BlockRef) -> bool:
        return ref.digest in self._hot or self._disk.has(ref.digest, ref.size)

    def room(self) -> int:
        """How many bytes of blocks can be kept for later; without a disk, what memory holds."""
        return self._disk.max_bytes if self._disk.usable else self._hot.max_bytes

    def free(self, wanted: int) -> bool:
        """Evict ``wanted`` bytes from disk for somebody else; returns whether anything was freed."""
        return self._disk.evict(wanted) > 0

    def forget_locks(self) -> None:
        """In a forked child: take fresh locks."""
        self._hot.forget_lock()
        self._disk.forget_lock()
