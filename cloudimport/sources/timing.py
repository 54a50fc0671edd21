"""Timing reads, as a source. Import budget: ``time``."""

from __future__ import annotations

import time

from cloudimport.sources.base import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Timing:
    """Tells of each read that ended: what was read, how many bytes came, when (seconds, monotonic)."""

    def __init__(self, source: Source, tell: Callable[[str, int, int, float, float], None]) -> None:
        """``tell`` gets key, start, bytes, begin and end; of a failed read -1 bytes."""
        self.url = source.url
        self._source = source
        self._tell = tell

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what the inner source returns; see ``Source.read``."""
        began, found = time.monotonic(), -1
        try:
            data = self._source.read(key, start, length)
            found = len(data)
            return data
        finally:
            self._tell(key, start, found, began, time.monotonic())

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Do what the inner source does; see ``Source.readv``."""
        began, found = time.monotonic(), -1
        try:
            self._source.readv(key, start, length, buffers)
            found = length
        finally:
            self._tell(key, start, found, began, time.monotonic())

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source."""
        self._source.forget()
