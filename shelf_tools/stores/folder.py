"""A shelf in a folder: written under a temporary name, made durable, renamed or linked."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, FetchError, UnreachableError
from shelf_tools.stores.listing import Entry, Unfinished

#: How temporary files begin. They are no keys: ``list`` leaves them out, no record names them.
_TEMPORARY = ".tmp-"
#: The lock of ``replace``, in the root; no key either.
_LOCK = ".lock"
#: How often a folder is made anew that vanished before there was a file in it.
_TRIES = 20
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


class FolderStore:
    """Objects as files below ``path``, which is created with the first write."""

    atomic = True

    def __init__(self, path: str) -> None:
        self._root = os.path.abspath(path)
        self.url = f"file://{self._root}"

    def put(self, key: str, data: bytes | Path) -> None:
        """Write a file; see ``Store.put``."""
        with self._errors(key), self._temporary(key, data) as (temporary, target):
            os.replace(temporary, target)

    def create(self, key: str, data: bytes) -> bool:
        """Write a file unless it exists; see ``Store.create``."""
        with self._errors(key), self._temporary(key, data) as (temporary, target):
            try:
                os.link(temporary, target)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
            return self._create_locked(temporary, target)

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Write a file if it still has ``version``, the SHA-256 of its bytes; see ``Store.replace``."""
        if version is None:
            return self.create(key, data)
        with self._errors(key), self._locked():
            found = self.read_versioned(key)
            if found is None or found[1] != version:
                return False
            self.put(key, data)
            return True

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """Return a file's bytes and their SHA-256, or None; see ``Store.read_versioned``."""
        with self._errors(key):
            try:
                data = Path(self._path(key)).read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None
        return data, hashlib.sha256(data).hexdigest()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``; see ``Store.list``."""
        with self._errors(prefix):
            for key in self._walk(prefix):
                if not _is_temporary(key) and key != _LOCK:
                    yield key

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield them with sizes and times of modification; see ``Store.entries``."""
        for key in self.list(prefix):
            with self._errors(key), suppress(FileNotFoundError, NotADirectoryError):  # removed meanwhile
                status = os.stat(f"{self._root}/{key}")
                yield Entry(key, status.st_size, status.st_mtime)

    def delete(self, key: str) -> None:
        """Remove a file, and the folders that are empty then; see ``Store.delete``."""
        with self._errors(key):
            self._remove(self._path(key))

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield the temporary files; see ``Store.unfinished``."""
        for key in filter(_is_temporary, self._walk("")):
            with self._errors(key), suppress(FileNotFoundError, NotADirectoryError):
                status = os.stat(f"{self._root}/{key}")
                yield Unfinished(key, key, status.st_size, status.st_mtime)

    def discard(self, one: Unfinished) -> None:
        """Remove a temporary file; see ``Store.discard``."""
        with self._errors(one.key):
            self._remove(f"{self._root}/{one.handle}")

    def _walk(self, prefix: str) -> Iterator[str]:
        top = os.path.join(self._root, os.path.dirname(prefix)) if "/" in prefix else self._root
        for folder, _, names in os.walk(top):
            below = os.path.relpath(folder, self._root)
            for name in names:
                key = name if below == "." else f"{below}/{name}"
                if key.startswith(prefix):
                    yield key

    def _remove(self, path: str) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(path)
        folder = os.path.dirname(path)
        with suppress(OSError):  # it holds something, or somebody else was faster
            while folder != self._root:
                os.rmdir(folder)
                folder = os.path.dirname(folder)

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key or parts[-1].startswith(_TEMPORARY):
            raise ConfigurationError(f"{self.url}: {key!r} is not a key of a shelf")
        return f"{self._root}/{key}"

    @contextmanager
    def _temporary(self, key: str, data: bytes | Path) -> Iterator[tuple[str, str]]:
        """Give a durable temporary file with ``data`` beside the target, and the target's path."""
        target = self._path(key)
        folder = os.path.dirname(target)
        temporary = f"{folder}/{_TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            _write(_open_new(temporary), data)
            yield temporary, target
            _sync_folder(folder)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _create_locked(self, temporary: str, target: str) -> bool:
        # For file systems without hard links: those who create exclude each other by the lock.
        with self._locked():
            if os.path.lexists(target):
                return False
            os.replace(temporary, target)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        _make_folders(self._root)
        # Each call opens the file anew, so that threads exclude each other too.
        descriptor = os.open(f"{self._root}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except FetchError:
            raise
        except OSError as error:
            raise self._typed(error, key) from error

    def _typed(self, error: OSError, key: str) -> FetchError:
        text = f"{self.url}/{key}: {error.strerror or error}"
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            return DeniedError(text, key=key)
        if isinstance(error, FileNotFoundError):
            return AbsentError(text, key=key)
        return UnreachableError(text, key=key)


def _is_temporary(key: str) -> bool:
    return key.rpartition("/")[2].startswith(_TEMPORARY)


def _open_new(path: str) -> int:
    """Open a new file, and make its folders: what removes the last file of one removes the folder too."""
    for attempt in range(_TRIES):
        _make_folders(os.path.dirname(path))
        try:
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


def _write(descriptor: int, data: bytes | Path) -> None:
    with os.fdopen(descriptor, "wb") as file:
        if isinstance(data, Path):
            with data.open("rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _make_folders(folder: str) -> None:
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        # Not found: a folder above was empty and is gone again; whoever opens a file here sees that.
        with suppress(FileExistsError, FileNotFoundError):
            os.mkdir(path)
        with suppress(FileNotFoundError):
            _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
