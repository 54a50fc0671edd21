"""Source distributions for pins: found on the curator's indexes and downloaded, never unpacked here.

``pip download`` runs the code of a source distribution to learn its metadata, so it is not used for
them; unearth is what finds and downloads, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import ssl
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from packaging.utils import InvalidSdistFilename, parse_sdist_filename
from packaging.version import InvalidVersion

from cloudimport.errors import CloudImportError
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, normalise_name, normalise_version
from shelf_tools import pins
from shelf_tools.indexes import Indexes
from shelf_tools.limits import FETCH, FETCH_LIMITS, FetchLimits, passed
from shelf_tools.origins import Origin, named

if TYPE_CHECKING:
    from unearth import Link, PackageFinder

#: Seconds that an index may be silent.
_TIMEOUT = 60.0
#: Times that a download is begun.
_TRIES = 3
#: Formats that are read (PEP 625, and zip archives from before it).
_SUFFIXES = (".tar.gz", ".zip")


class Sdist(NamedTuple):
    """A downloaded source distribution: ``size`` in bytes; ``hashes`` by algorithm, hexadecimal."""

    path: Path
    filename: str
    hashes: Mapping[str, str]
    size: int
    origin: Origin


class SdistError(CloudImportError):
    """A source distribution could not be had; the text says why."""


def fetch_sdist(
    one: Requirement,
    indexes: Indexes,
    into: Path,
    limits: FetchLimits = FETCH_LIMITS,
    links: Sequence[pins.Link] = (),
) -> Sdist:
    """Download the source distribution of a pin into the folder ``into`` (made if need be).

    If a list names files of the pin (``links``), it is the one there, and no index is asked. Its hash has to
    be one of the requirement's, if that has any, and of the link's. Raises SdistError.
    """
    import httpx2

    given = next((link for link in links if not link.is_wheel), None)
    if links and given is None:
        raise SdistError("the list names no source distribution of it")
    into.mkdir(parents=True, exist_ok=True)
    allowed = [hashes for hashes in (one.hashes, given.hashes if given else ()) if hashes]
    try:
        with _finder(indexes, bool(given)) as finder:
            link, name, page = _given(given) if given else _found(finder, one.pin)
            path = into / os.path.basename(name)
            algorithms = {value.partition(":")[0] for hashes in allowed for value in hashes}
            hashes = _download(finder, link, path, algorithms, limits)
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:
        reason = _plain(str(error) or type(error).__name__)
        raise SdistError(f"its source distribution cannot be fetched: {reason}") from error
    for wanted in reversed(allowed):
        if not any(f"{name}:{digest}" in wanted for name, digest in hashes.items()):
            expected = " or ".join(value.partition(":")[2] for value in wanted)
            got = hashes[wanted[0].partition(":")[0]]
            raise SdistError(
                f"{path.name} does not have the hash in the list: expected {expected}, got {got}"
            )
    path.chmod(0o644)  # a sandbox of another uid reads it, whatever the curator's umask
    return Sdist(path, path.name, hashes, path.stat().st_size, named(link.url, page))


def _given(link: pins.Link) -> tuple[Link, str, str]:
    """Return a file that a list names, as unearth has it, its name, and its index' page."""
    from unearth import Link

    return Link(link.url), link.filename, link.page


def _found(finder: PackageFinder, pin: Pin) -> tuple[Link, str, str]:
    """Return a pin's source distribution on the indexes, its name, and the page. Raises SdistError."""
    with _warnings() as said:
        link = next(_links(finder, pin), None)
    if link is None and said:
        raise SdistError(f"its source distribution was looked for, and {said[0]}")
    if link is None:
        raise SdistError("there is no source distribution of this version")
    return link, link.filename, link.comes_from or ""


def _plain(text: str) -> str:
    """Return the first line of a message, without credentials of URLs in it."""
    return _CREDENTIALS.sub("//", text.splitlines()[0])[:300]


_CREDENTIALS = re.compile(r"//[^/@\s]*@")


class _Heard(logging.Handler):
    """Keeps the warnings of this thread: unearth says so, and goes on, when an index does not answer."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's text, one line."""
        if record.thread == self._thread:
            text = _plain(record.getMessage())
            self.said.append(text[:1].lower() + text[1:])


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yield the list that gets what unearth warns of, instead of standard error."""
    logger, heard = logging.getLogger("unearth"), _Heard()
    logger.addHandler(heard)
    try:
        yield heard.said
    finally:
        logger.removeHandler(heard)


@contextmanager
def _finder(indexes: Indexes, unasked: bool) -> Iterator[PackageFinder]:
    """Yield a finder with the indexes, credentials (netrc, keyring) and certificates that pip would use.

    ``unasked``: it is not to find anything, so that there may be no index.
    """
    from unearth import PackageFinder
    from unearth.auth import MultiDomainBasicAuth
    from unearth.fetchers import PyPIClient

    default = [source["url"] for source in PackageFinder().sources]
    urls = [] if indexes.no_index else [*([indexes.url] if indexes.url else default), *indexes.extra]
    if not urls and not indexes.find_links and not unasked:
        raise SdistError("no index is configured, and no folder of distributions")
    client: Any = PyPIClient(  # its methods take more than the protocol says
        trusted_hosts=indexes.trusted_hosts,
        verify=ssl.create_default_context(cafile=indexes.cert or None),
        proxy=indexes.proxy or None,
        auth=MultiDomainBasicAuth(prompting=False, index_urls=urls),
        timeout=_TIMEOUT,
        follow_redirects=True,
    )
    with client:
        yield PackageFinder(
            client, index_urls=urls, find_links=indexes.find_links, ignore_compatibility=True, verbosity=-1
        )


def _links(finder: PackageFinder, pin: Pin) -> Iterator[Link]:
    """Yield the pin's source distributions, in the order of the indexes."""
    found = finder.find_matches(f"{pin.name}=={pin.version}", allow_yanked=True, allow_prereleases=True)
    for package in found:
        link = package.link
        if link.is_vcs or not link.filename.endswith(_SUFFIXES):
            continue
        try:
            name, version = parse_sdist_filename(link.filename)
        except (InvalidSdistFilename, InvalidVersion):
            continue
        if Pin(normalise_name(name), normalise_version(str(version))) == pin:
            yield link


def _download(
    finder: PackageFinder, link: Link, path: Path, algorithms: set[str], limits: FetchLimits
) -> dict[str, str]:
    """Write what a link names to ``path``; return its digests by algorithm, checked against the index'."""
    told: dict[str, Sequence[str]] = {**(link.hash_option or {})}
    deadline = time.monotonic() + limits.wall_seconds
    for attempt in range(_TRIES):
        try:
            if link.is_file:
                shutil.copyfile(link.file_path, path)
            else:
                with finder.session.get_stream(link.normalized) as response, open(path, "wb") as out:
                    response.raise_for_status()
                    for chunk in response.iter_bytes(1 << 20):
                        _check(out.tell() + len(chunk), deadline, limits)
                        out.write(chunk)
            break
        except (OSError, SdistError):
            raise
        except Exception:
            if attempt == _TRIES - 1:
                raise
    hashes = {name: _digest(path, name) for name in {"sha256", *algorithms, *(told.keys() & _STRONG)}}
    for name, allowed in told.items():
        if name in hashes and hashes[name] not in allowed:
            raise SdistError(f"{path.name} does not have the {name} that its index says")
    return hashes


def _check(size: int, deadline: float, limits: FetchLimits) -> None:
    """Raise SdistError when a download passes a limit."""
    if size > limits.file_bytes:
        raise SdistError(passed("file_bytes", limits, FETCH))
    if time.monotonic() > deadline:
        raise SdistError(passed("wall_seconds", limits, FETCH))


_STRONG = {"sha256", "sha384", "sha512"}


def _digest(path: Path, algorithm: str) -> str:
    found = hashlib.new(algorithm)
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()
