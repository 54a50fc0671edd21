"""A shelf in any other store that fsspec speaks (``gs://``, ``abfs://``, ``sftp://``, …)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.reading import join
from shelf_tools.stores.libraries import load

#: Kinds with real folders, which must be made. Object stores would create a bucket.
_WITH_FOLDERS = frozenset(
    ["file", "local", "memory", "dir", "sftp", "ssh", "ftp", "smb", "hdfs", "arrow_hdfs", "webhdfs", "webdav"]
)


class ForeignStore:
    """Objects below an fsspec URL. **Not atomic**: no promise for racing publishers."""

    atomic = False

    def __init__(self, url: str) -> None:
        self.url = url
        core = load("fsspec.core", f"writing to {url}")
        try:
            self._system, root = core.url_to_fs(url)
        except (ImportError, ValueError, TypeError) as error:
            raise ConfigurationError(f"{url}: fsspec cannot open it: {error}") from error
        self._root = root.rstrip("/")

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object; see ``Store.put``."""
        with self._errors(key):
            try:
                self._write(key, data)
            except FileNotFoundError:
                if not self._has_folders():
                    raise
                self._system.makedirs(self._name(key).rpartition("/")[0], exist_ok=True)
                self._write(key, data)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it seems to exist; see ``Store.create``."""
        return self.replace(key, data, None)

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Write an object if its SHA-256 seems to be ``version`` still; see ``Store.replace``."""
        found = self.read_versioned(key)
        if (found[1] if found else None) != version:
            return False
        self.put(key, data)
        return True

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and their SHA-256, or None; see ``Store.read_versioned``."""
        with self._errors(key):
            self._system.invalidate_cache()
            try:
                data = bytes(self._system.cat_file(self._name(key)))
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                return None
        return data, hashlib.sha256(data).hexdigest()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``; see ``Store.list``."""
        with self._errors(prefix):
            self._system.invalidate_cache()
            top = self._name(prefix).rpartition("/")[0]
            names: list[str] = []
            with suppress(FileNotFoundError):
                names = self._system.find(top)
        for name in names:
            key = name.removeprefix(self._root).lstrip("/")
            if key.startswith(prefix):
                yield key

    def delete(self, key: str) -> None:
        """Remove an object; see ``Store.delete``."""
        with self._errors(key), suppress(FileNotFoundError):
            self._system.rm_file(self._name(key))

    def _name(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _has_folders(self) -> bool:
        protocol = self._system.protocol
        names = {protocol} if isinstance(protocol, str) else set(protocol)
        return bool(names & _WITH_FOLDERS)

    def _write(self, key: str, data: bytes | Path) -> None:
        if isinstance(data, Path):
            self._system.put_file(str(data), self._name(key))
        else:
            self._system.pipe_file(self._name(key), data)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FetchError, ConfigurationError):
            raise
        # Plugins raise what their own libraries raise: there is no common root.
        except Exception as error:
            raise self._typed(error, key) from error

    def _typed(self, error: Any, key: str) -> FetchError:
        text = f"{join(self.url, key)}: {' '.join(str(error).split()) or type(error).__name__}"
        if isinstance(error, FileNotFoundError):
            return AbsentError(text, key=key)
        if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
            return DeniedError(text, key=key)
        return UnreachableError(text, key=key)
