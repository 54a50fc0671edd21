"""Counting requests and bytes, as a source.

Import budget: ``_thread``.
"""

from __future__ import annotations

from _thread import allocate_lock

from cloudimport.sources.base import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Counting:
    """Counts what goes through it: wrap the innermost source, so that every retry counts.

    ``requests``: reads begun, failed ones too. ``bytes``: bytes returned, or in buffers that are full.
    """

    def __init__(self, source: Source) -> None:
        self.url = source.url
        self.requests = 0
        self.bytes = 0
        self._source = source
        self._lock = allocate_lock()

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what the inner source returns; see ``Source.read``."""
        with self._lock:
            self.requests += 1
        data = self._source.read(key, start, length)
        with self._lock:
            self.bytes += len(data)
        return data

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Do what the inner source does; see ``Source.readv``."""
        with self._lock:
            self.requests += 1
        self._source.readv(key, start, length, self._counted(buffers))

    def _counted(self, buffers: Iterable[memoryview]) -> Iterator[memoryview]:
        for buffer in buffers:
            yield buffer
            with self._lock:
                self.bytes += len(buffer)

    def close(self) -> None:
        """Close the inner source. The counters stay."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source; the counters go on from the parent's."""
        self._lock = allocate_lock()
        self._source.forget()
