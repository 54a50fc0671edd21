"""A shelf in a folder: a local disk, a host mount, EFS.

Import budget: ``os`` (in every interpreter).
"""

from __future__ import annotations

import os
from io import FileIO

from cloudimport.errors import AbsentError, FetchError, UnreachableError
from cloudimport.sources.reading import is_empty, join, lacks, refused, too_short

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


class FolderSource:
    """Reads objects as files below ``path``. It holds nothing open between reads."""

    def __init__(self, path: str) -> None:
        self._root = os.path.abspath(path)
        self.url = f"file://{self._root}"

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the file ``key``; see ``Source.read``."""
        if is_empty(start, length):
            return b""
        try:
            return self._read(self._path(key), key, start, length)
        except OSError as error:
            raise self._typed(error, key) from error

    def _path(self, key: str) -> str:
        if not key or key.startswith("/") or "\0" in key or ".." in key.split("/"):
            raise AbsentError(f"{self.url}: {key!r} is not a key of a shelf", key=key)
        return f"{self._root}/{key}"

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers with bytes of the file ``key``; see ``Source.readv``."""
        if is_empty(start, length):
            return
        try:
            file = self._open(self._path(key), key, start, length)[0]
        except OSError as error:
            raise self._typed(error, key) from error
        with file:
            for buffer in buffers:
                self._fill(file, buffer, key)

    def _fill(self, file: FileIO, buffer: memoryview, key: str) -> None:
        while buffer:
            try:
                got = file.readinto(buffer)
            except OSError as error:
                raise self._typed(error, key) from error
            if not got:
                raise self._shrunk(key)
            buffer = buffer[got:]

    def _read(self, path: str, key: str, start: int, length: int | None) -> bytes:
        file, size = self._open(path, key, start, length)
        with file:
            return self._exactly(file, size - start if length is None else length, key)

    def _open(self, path: str, key: str, start: int, length: int | None) -> tuple[FileIO, int]:
        """Return a file where a window of it begins, and its size in bytes."""
        file = FileIO(path, "rb")
        try:
            size = os.fstat(file.fileno()).st_size
            if lacks(start, length, size):
                raise too_short(join(self.url, key), key, start, length, size)
            file.seek(start)
        except BaseException:
            file.close()
            raise
        return file, size

    def _exactly(self, file: FileIO, want: int, key: str) -> bytes:
        pieces: list[bytes] = []
        while want > 0:
            # A system call reads at most 2 GiB.
            piece = file.read(want)
            if not piece:
                raise self._shrunk(key)
            pieces.append(piece)
            want -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _shrunk(self, key: str) -> UnreachableError:
        return UnreachableError(f"{join(self.url, key)}: the file shrank while it was read", key=key)

    def _typed(self, error: OSError, key: str) -> FetchError:
        text = f"{join(self.url, key)}: {error.strerror or error}"
        if isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError)):
            return AbsentError(f"{text}{self._missing_root()}", key=key)
        if isinstance(error, PermissionError):
            return refused(text, key)
        return UnreachableError(text, key=key)

    def _missing_root(self) -> str:
        return "" if os.path.isdir(self._root) else f" (there is no folder {self._root})"

    def close(self) -> None:
        """Do nothing: no file is kept open."""

    def forget(self) -> None:
        """Do nothing: nothing is shared with a parent."""
