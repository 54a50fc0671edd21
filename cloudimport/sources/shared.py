"""A folder that several users of a host share, before the store: read, and never trusted.

It has objects of the shelf under their own keys (``shelf mirror`` fills it), of those whose names are
their digests: whoever reads them checks the bytes, as if they came from the store. Pointers never come from
it. What it does not have, and what a thread asks for a second time, since the first answer was no good, comes
from the store. Import budget: ``os``, ``stat``, ``itertools``.
"""

from __future__ import annotations

import os
import stat
from _thread import get_ident
from itertools import chain

from cloudimport.events import Counters
from cloudimport.format.keys import is_immutable
from cloudimport.sources.base import Source
from cloudimport.sources.reading import is_empty, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

#: Bytes of one read, at the most: an index has a few, a range 4 MiB. What claims more is not believed.
_MOST = 32 << 20
#: Not through a link, and without waiting for a writer should a pipe be there.
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class Shared:
    """Reads from ``folder`` what that has, the rest from ``source``."""

    def __init__(self, source: Source, folder: str, counters: Counters) -> None:
        self.url = source.url
        self._source = source
        self._folder = folder
        self._counters = counters
        #: Which thread was given what: who asks again had no good answer. Another one may only be impatient.
        self._given: dict[tuple[str, int, int | None], int] = {}

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the folder's object, or what the inner source returns; see ``Source.read``."""
        data = self._once(key, start, length)
        return self._source.read(key, start, length) if data is None else data

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers from the folder's object, from where that ends as the inner source does."""
        left = iter(buffers)
        for buffer in left:
            data = self._once(key, start, len(buffer))
            if data is None:
                self._source.readv(key, start, length, chain((buffer,), left))
                return
            buffer[:] = data
            start += len(buffer)
            length -= len(buffer)

    def _once(self, key: str, start: int, length: int | None) -> bytes | None:
        """Return bytes of the folder's object, None where it has none, or has given them before."""
        place = key, start, length
        me = get_ident()
        if self._given.get(place) == me or not is_immutable(key) or is_empty(start, length):
            return None
        self._given[place] = me
        data = self._look(key, start, length)
        if data is not None:
            self._counters.add("bytes_shared", len(data))
        return data

    def _look(self, key: str, start: int, length: int | None) -> bytes | None:
        """Return exactly the bytes that were asked for, or None, for whatever reason."""
        try:
            fd = os.open(join(self._folder, key), _READ)
        except (OSError, ValueError):
            return None
        try:
            found = os.fstat(fd)
            want = found.st_size - start if length is None else length
            if not stat.S_ISREG(found.st_mode) or not 0 < want <= _MOST:
                return None
            data = os.pread(fd, want, start)
            return data if len(data) == want else None
        except (OSError, MemoryError):
            return None
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source."""
        self._source.forget()
