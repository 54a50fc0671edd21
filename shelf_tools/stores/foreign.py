"""A shelf in any other store that fsspec speaks (``gs://``, ``abfs://``, ``sftp://``, …)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, FetchError, UnreachableError
from cloudimport.sources.reading import join
from shelf_tools.stores.libraries import load
from shelf_tools.stores.listing import Entry, Unfinished

#: Kinds with real folders, which must be made. Object stores would create a bucket.
_WITH_FOLDERS = frozenset(
    ["file", "local", "memory", "dir", "sftp", "ssh", "ftp", "smb", "hdfs", "arrow_hdfs", "webhdfs", "webdav"]
)
#: What plugins call the time of an object's last write. Not ``created``: of files that is another thing.
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "modified")


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
        for key, _ in self._find(prefix):
            yield key

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield them with sizes and, where the plugin tells them, times; see ``Store.entries``."""
        for key, details in self._find(prefix):
            yield Entry(key, int(details.get("size") or 0), self._modified(key, details))

    def delete(self, key: str) -> None:
        """Remove an object; see ``Store.delete``."""
        with self._errors(key), suppress(FileNotFoundError):
            self._system.rm_file(self._name(key))

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield nothing: fsspec has no word for it; see ``Store.unfinished``."""
        return iter(())

    def discard(self, one: Unfinished) -> None:
        """Do nothing: nothing of this kind was found; see ``Store.discard``."""

    def _find(self, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield keys and what the plugin says of them."""
        found: dict[str, Mapping[str, Any]] = {}
        with self._errors(prefix):
            self._system.invalidate_cache()
            top = self._name(prefix).rpartition("/")[0]
            with suppress(FileNotFoundError):
                found = self._system.find(top, detail=True)
        for name, details in found.items():
            key = name.removeprefix(self._root).lstrip("/")
            if key.startswith(prefix):
                yield key, details

    def _modified(self, key: str, details: Mapping[str, Any]) -> float | None:
        for field in _TIMES:
            found = _seconds(details.get(field))
            if found is not None:
                return found
        try:
            return _seconds(self._system.modified(self._name(key)))
        # Plugins that have no such thing, and those whose object is gone: either way it is not known.
        except Exception:  # noqa: BLE001
            return None

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


def _seconds(value: object) -> float | None:
    """Return a plugin's time as seconds since 1970, None if it is none. Without a zone it is UTC."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=timezone.utc)).timestamp()
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
