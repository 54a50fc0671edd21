"""Objects from one shelf to another: read, checked by their digest, written, read back."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cloudimport.errors import CorruptError
from cloudimport.format import keys
from cloudimport.sources.base import Source
from shelf_tools.objects import read_checked
from shelf_tools.store import Store

#: Bytes that are read at a time of an object whose size is known.
_PIECE = 16 << 20


class Copier:
    """Copies objects with a digest in their key. Safe to be used by threads.

    They are put again, not copied by the server: a bucket that enforces conditional writes refuses
    CopyObject, and what is copied unseen is not checked.
    """

    def __init__(self, source: Source, store: Store, written: Source) -> None:
        """From ``source`` to ``store``; ``written`` reads what lies there."""
        self._source, self._store, self._written = source, store, written

    def copy(self, key: str, size: int = -1) -> int:
        """Copy an object and return its bytes; ``size`` in bytes, -1 if it is not known.

        Raises CorruptError, if it is not what its key says, and other FetchErrors.
        """
        if size <= _PIECE:
            data = read_checked(self._source, key)
            self._store.put(key, data)
            read_checked(self._written, key)
            return len(data)
        with tempfile.NamedTemporaryFile(prefix="cloudimport-copy-") as file:
            _check(key, _each(_pieces(self._source, key, size), file.write))
            file.flush()
            self._store.put(key, Path(file.name))
        _check(key, _pieces(self._written, key, size))
        return size


def _pieces(source: Source, key: str, size: int) -> Iterator[bytes]:
    for at in range(0, size, _PIECE):
        yield source.read(key, at, min(_PIECE, size - at))


def _each(pieces: Iterator[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def _check(key: str, pieces: Iterator[bytes]) -> None:
    """Check that the bytes of a pack are those of its key. Raises CorruptError."""
    digest, wanted = hashlib.sha256(), key.rpartition("-")[2]
    for piece in pieces:
        digest.update(piece)
    if digest.hexdigest() != wanted:
        raise CorruptError(
            f"{key} is damaged: expected sha256 {wanted}, got {digest.hexdigest()}",
            key=key,
            package=keys.package_of(key),
            expected=wanted,
            actual=digest.hexdigest(),
        )
