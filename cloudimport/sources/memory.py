"""A shelf in fsspec's ``memory://``, whose content lives in this process.

The one source that imports fsspec here, since another process would see an empty store: for
tests and notebooks. Import budget: nothing; fsspec with the first read.
"""

from __future__ import annotations

import importlib

from cloudimport.errors import AbsentError, ConfigurationError
from cloudimport.sources.reading import hand_out, is_empty, join, lacks, too_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


class MemorySource:
    """Reads objects below a ``memory://`` URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._system: Any = None

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the object ``key``; see ``Source.read``."""
        if is_empty(start, length):
            return b""
        try:
            data = bytes(self._open().cat_file(join(self.url, key)))
        except (FileNotFoundError, IsADirectoryError) as error:
            raise AbsentError(f"{join(self.url, key)}: there is no such object", key=key) from error
        if lacks(start, length, len(data)):
            raise too_short(join(self.url, key), key, start, length, len(data))
        return data[start:] if length is None else data[start : start + length]

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers with bytes of the object ``key``; see ``Source.readv``."""
        hand_out(self.read(key, start, length), buffers)

    def _open(self) -> Any:
        if self._system is None:
            try:
                fsspec = importlib.import_module("fsspec")
            except ImportError as error:
                text = f"{self.url}: reading it needs fsspec: pip install fsspec"
                raise ConfigurationError(text) from error
            self._system = fsspec.filesystem("memory")
        return self._system

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def forget(self) -> None:
        """Do nothing: a forked child has its own copy."""
