"""The curator's side of a shelf: writing, comparing and listing objects."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cloudimport.errors import ConfigurationError
from shelf_tools.stores.listing import Entry, Unfinished

__all__ = ["Entry", "Store", "Unfinished", "open_store"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(::|://)(.*)\Z", re.DOTALL)


class Store(Protocol):
    """Objects by key below a shelf's root, for those who publish.

    Obligations of an implementation: every method may be called from several threads; an object
    appears whole or not at all; errors are ``AbsentError`` (no such bucket), ``DeniedError`` and
    ``UnreachableError``, in one line that names the URL. Retries are the implementation's.

    ``atomic``: whether ``create`` and ``replace`` decide between racing writers. It is True for
    folders and S3. Other stores check first and write then: with them there is **no promise for
    racing publishers**.
    """

    url: str
    atomic: bool

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, whether or not it exists. For keys whose bytes never change."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists; return whether it was written."""
        ...

    def replace(self, key: str, data: bytes, version: str | None) -> bool:
        """Write an object if it still has ``version`` (None: if it is still absent).

        Returns False, and changes nothing, if it has another or is gone.
        """
        ...

    def read_versioned(self, key: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and version (opaque, for ``replace``), or None if it is absent."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with ``prefix``, in no particular order."""
        ...

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Yield the same, with sizes and times."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; harmless if it is absent."""
        ...

    def unfinished(self) -> Iterator[Unfinished]:
        """Yield what writers, alive or not, have not finished: temporary files, uploads in parts."""
        ...

    def discard(self, one: Unfinished) -> None:
        """Remove such a thing; harmless if it is gone, or has been finished. Its writer fails."""
        ...


def open_store(url: str, environ: Mapping[str, str]) -> Store:
    """Return the store for ``url``: a folder, ``file://``, ``s3://bucket/prefix``, or fsspec's.

    ``environ``: the process's environment. Nothing is connected yet. Raises ConfigurationError
    for a URL that cannot be one, or whose library is not installed.
    """
    match = _SCHEME.match(url)
    if not url or "\0" in url:
        raise ConfigurationError(f"{url!r} is not the URL or folder of a shelf")
    if match is None:
        return _folder(url)
    scheme, separator, rest = match[1].lower(), match[2], match[3]
    if separator == "://" and scheme == "file":
        return _folder(_local_path(url, rest))
    if separator == "://" and scheme in ("s3", "s3a", "s3n"):
        return _s3(url, rest, environ)
    if not rest.strip("/"):
        raise ConfigurationError(f"{url!r} names no place after its scheme")
    from shelf_tools.stores.foreign import ForeignStore

    return ForeignStore(url)


def _folder(path: str) -> Store:
    from shelf_tools.stores.folder import FolderStore

    return FolderStore(path)


def _local_path(url: str, rest: str) -> str:
    from urllib.parse import unquote

    host, _, path = rest.partition("/")
    if host not in ("", "localhost") or not path:
        raise ConfigurationError(f"{url!r}: a file URL has three slashes and a path, as in file:///srv/shelf")
    return "/" + unquote(path)


def _s3(url: str, rest: str, environ: Mapping[str, str]) -> Store:
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ConfigurationError(f"{url!r} names no bucket, as in s3://bucket/prefix")
    from shelf_tools.stores.s3 import S3Store

    return S3Store(bucket, prefix, environ)
