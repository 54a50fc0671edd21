"""Recently used blocks in memory, bounded in bytes.

A dict, not ``cachetools``: importing that costs more than these lines (docs/decisions/0003).
Import budget: ``_thread``.
"""

from __future__ import annotations

from _thread import allocate_lock


class HotBlocks:
    """Plain bytes of blocks by digest; the least recently used go first."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = allocate_lock()
        self._blocks: dict[str, bytes] = {}  # the least recently used first
        self._bytes = 0

    def get(self, digest: str) -> bytes | None:
        """Return a block's plain bytes, or None."""
        with self._lock:
            data = self._blocks.pop(digest, None)
            if data is not None:
                self._blocks[digest] = data
            return data

    def put(self, digest: str, data: bytes, bound: int | None = None) -> None:
        """Keep a block, dropping others to stay within the bound, or a lower one (bytes)."""
        bound = self.max_bytes if bound is None else min(bound, self.max_bytes)
        if len(data) > bound:
            return
        with self._lock:
            if digest in self._blocks:
                return
            self._blocks[digest] = data
            self._bytes += len(data)
            while self._bytes > bound:
                self._bytes -= len(self._blocks.pop(next(iter(self._blocks))))

    def drop(self, digest: str) -> None:
        """Forget a block."""
        with self._lock:
            data = self._blocks.pop(digest, None)
            self._bytes -= len(data) if data is not None else 0

    def __contains__(self, digest: str) -> bool:
        return digest in self._blocks

    def forget_lock(self) -> None:
        """In a forked child: take a fresh lock, since another thread may have held the old one."""
        self._lock = allocate_lock()
