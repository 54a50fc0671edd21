"""Counters of what the runtime did (requests and their bytes are counted at the source).

Import budget: ``_thread``.
"""

from __future__ import annotations

from _thread import allocate_lock

#: What is counted; ``wait_seconds``, beside these, is the time that imports waited for the network. To disk
#: go ``bytes_written`` (files of the site tree) and ``bytes_cached`` (blocks, and the index).
NAMES = (
    "round_trips",
    "bytes_shared",
    "hedges",
    "blocks_fetched",
    "cache_hits",
    "cache_misses",
    "cache_repairs",
    "files_written",
    "bytes_written",
    "bytes_cached",
)


class Counters:
    """Thread-safe counters, by name."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._values: dict[str, float] = dict.fromkeys(NAMES, 0)
        self._values["wait_seconds"] = 0.0

    def add(self, name: str, amount: float = 1) -> None:
        """Add ``amount`` to a counter."""
        with self._lock:
            self._values[name] += amount

    def snapshot(self) -> dict[str, float]:
        """Return a copy of all counters."""
        with self._lock:
            return dict(self._values)

    def forget_lock(self) -> None:
        """In a forked child: take a fresh lock, since another thread may have held the old one."""
        self._lock = allocate_lock()
