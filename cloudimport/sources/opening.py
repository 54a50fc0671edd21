"""From a shelf's URL to a source. Each implementation is imported only when its scheme is used.

Import budget: ``sys``.
"""

from __future__ import annotations

import sys

from cloudimport.errors import ConfigurationError
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.deferred import Deferred
from cloudimport.sources.retrying import Retrying

_SCHEME_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-"
#: Names that other tools have for S3.
_S3 = ("s3", "s3a", "s3n")


def open_source(url: str, config: SourceConfig) -> Source:
    """Return the source for ``url``, with retries as ``config`` says.

    ``url``: a folder's path, ``file://``, ``s3://bucket/prefix``, or any URL that fsspec knows.
    Nothing is connected yet. Raises ConfigurationError in one line for a URL that cannot be one.
    """
    return Retrying(open_bare(url, config), config.attempts, config.deadline, config.patience)


def open_bare(url: str, config: SourceConfig) -> Source:
    """Return the source for ``url`` without retries: for those who wrap it themselves."""
    scheme, separator, rest = _split(url)
    if not config.helper_path:
        config = config._replace(helper_path=tuple(sys.path))
    if not separator:
        return _folder(url, url)
    if separator == "://" and scheme == "file":
        return _folder(_local_path(url, rest), url)
    if separator == "://" and scheme in _S3:
        return _s3(url, rest, config)
    if not rest.strip("/"):
        raise ConfigurationError(f"{url!r} names no place after its scheme")
    return _fsspec(scheme if separator == "://" else "", url, config)


def open_deferred(url: str, config: SourceConfig) -> Source:
    """Return the same, but a source that costs something to make is made with its first read.

    What is wrong with its settings, but for the URL's form, is said then.
    """
    scheme, separator, rest = _split(url)
    if not separator or (scheme, separator) == ("file", "://"):
        return open_bare(url, config)
    config = config._replace(helper_path=config.helper_path or tuple(sys.path))
    is_s3 = separator == "://" and scheme in _S3
    plain = "s3://" + rest.rstrip("/") if is_s3 else url
    return Deferred(plain, lambda: open_bare(url, config))


def _split(url: str) -> tuple[str, str, str]:
    """Return a URL's scheme, what follows it (``://``, or ``::`` in fsspec's chained form), and the rest.

    A path has neither. Raises ConfigurationError for what is no URL and no path.
    """
    if not url or "\0" in url or url != url.strip():
        raise ConfigurationError(f"{url!r} is not the URL or folder of a shelf")
    scheme, _, rest = url.partition(":")
    if scheme[:1].isalpha() and not scheme.strip(_SCHEME_CHARACTERS):
        for mark in ("//", ":"):
            if rest.startswith(mark):
                return scheme.lower(), ":" + mark, rest[len(mark) :]
    return "", "", url


def _folder(path: str, url: str) -> Source:
    from cloudimport.sources.folder import FolderSource

    if ":" in path.split("/", maxsplit=1)[0] and "//" in path:
        raise ConfigurationError(f"{url!r} is neither a folder nor a URL")
    return FolderSource(path)


def _local_path(url: str, rest: str) -> str:
    host, _, path = rest.partition("/")
    if host not in ("", "localhost") or not path:
        raise ConfigurationError(f"{url!r}: a file URL has three slashes and a path, as in file:///srv/shelf")
    if "%" not in path:
        return f"/{path}"
    from urllib.parse import unquote

    return f"/{unquote(path)}"


def _s3(url: str, rest: str, config: SourceConfig) -> Source:
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise ConfigurationError(f"{url!r} names no bucket, as in s3://bucket/prefix")
    from cloudimport.sources.s3 import S3Source

    return S3Source(bucket, prefix, config)


def _fsspec(scheme: str, url: str, config: SourceConfig) -> Source:
    if scheme == "memory":
        from cloudimport.sources.memory import MemorySource

        return MemorySource(url)
    from cloudimport.sources.foreign import ForeignSource

    return ForeignSource(url, config)
