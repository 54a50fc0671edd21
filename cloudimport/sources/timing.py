"""Timing reads, as a source. Import budget: ``time``."""

from __future__ import annotations

import time

from cloudimport.sources.base import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Timing:
    """Tells of each read when it begins and when it has ended (seconds, monotonic)."""

    def __init__(
        self, source: Source, tell: Callable[[str, int, float], Callable[[int, float], None]]
    ) -> None:
        """``tell`` gets key, first byte and begin; what it returns gets bytes (-1: it failed) and end."""
        self.url = source.url
        self._source = source
        self._tell = tell

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what the inner source returns; see ``Source.read``."""
        end, found = self._tell(key, start, time.monotonic()), -1
        try:
            data = self._source.read(key, start, length)
            found = len(data)
            return data
        finally:
            end(found, time.monotonic())

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Do what the inner source does; see ``Source.readv``."""
        end, found = self._tell(key, start, time.monotonic()), -1
        try:
            self._source.readv(key, start, length, buffers)
            found = length
        finally:
            end(found, time.monotonic())

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source."""
        self._source.forget()
