"""A source that is made with the first read: a process whose cache is warm needs none.

Import budget: ``_thread``.
"""

from __future__ import annotations

from _thread import allocate_lock

from cloudimport.sources.base import Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Deferred:
    """Stands for the source that ``make`` returns; what that raises, the first read does.

    ``url`` is what that source's will be.
    """

    def __init__(self, url: str, make: Callable[[], Source]) -> None:
        self.url = url
        self._make = make
        self._source: Source | None = None
        self._lock = allocate_lock()

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what the source returns; see ``Source.read``."""
        return self._made().read(key, start, length)

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Do what the source does; see ``Source.readv``."""
        self._made().readv(key, start, length, buffers)

    def prepare(self) -> None:
        """Open a connection for a later read, where the source has such. Raises nothing: that read will."""
        try:
            prepare = getattr(self._made(), "prepare", None)
            if prepare is not None:
                prepare()
        except Exception:  # noqa: BLE001
            pass  # whatever it is: in a thread of its own there is nobody to hear it

    def _made(self) -> Source:
        source = self._source
        if source is None:
            with self._lock:
                source = self._source = self._source or self._make()
        return source

    def close(self) -> None:
        """Close the source, if there is one."""
        if self._source is not None:
            self._source.close()

    def forget(self) -> None:
        """Forget in the source, if there is one."""
        self._lock = allocate_lock()
        if self._source is not None:
            self._source.forget()
