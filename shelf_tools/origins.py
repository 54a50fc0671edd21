"""Whence pip took each file: read from the log that it writes (``--log``). Pure.

pip says it nowhere else for a download. A log that cannot be understood is no error: the origin is then not
known. Nothing that is returned has credentials in it: they are cut off, and so are queries, which sign URLs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

_FOUND = re.compile(r" Found link (?P<url>\S+)(?: \(from (?P<page>\S+)\))?.*?, version: ")
_LOCAL = re.compile(r" Processing (?P<path>.*\.whl)$")
_LOOKED_UP = re.compile(r' Looking up "(?P<url>[^"]+)" in the cache')
_GOT = re.compile(r'"GET (?P<path>\S+) HTTP/[0-9.]+" 20[06] ')


class Origin(NamedTuple):
    """A file's own URL, and that of the index page, or the folder, that listed it; "" if no page is known."""

    url: str
    page: str

    @property
    def is_remote(self) -> bool:
        """Whether an index listed it that can be asked more."""
        return self.page.startswith(("http://", "https://"))


def origins(log: Iterable[str], filenames: Iterable[str]) -> Mapping[str, Origin]:
    """Return the origin of each file that a log of pip tells of.

    Where several places list a file, the one that pip went to counts.
    """
    wanted = set(filenames)
    listed: dict[str, list[Origin]] = {}
    local: set[str] = set()
    fetched: set[str] = set()
    for line in log:
        if found := _FOUND.search(line):
            origin = _origin(found["url"], found["page"] or "")
            name = _name(origin.url)
            if name in wanted:
                listed.setdefault(name, []).append(origin)
        elif found := _LOCAL.search(line.rstrip()):
            local.add(found["path"].rpartition("/")[2])
        elif found := _LOOKED_UP.search(line):
            fetched.add(urlsplit(found["url"]).path)
        elif found := _GOT.search(line):
            fetched.add(urlsplit(found["path"]).path)
    return {name: _taken(places, name in local, fetched) for name, places in listed.items()}


def named(url: str, page: str) -> Origin:
    """Return the origin of a file that a list of pins names; ``page`` is "" if it names no index."""
    return _origin(url, page) if page or urlsplit(url).scheme == "file" else Origin(clean(url), "")


def _taken(places: list[Origin], is_local: bool, fetched: set[str]) -> Origin:
    """Return the place that pip went to, of those that list a file; the first of them if it does not say."""
    for place in places:
        parts = urlsplit(place.url)
        if is_local if parts.scheme == "file" else parts.path in fetched and not is_local:
            return place
    return places[0]


def _origin(url: str, page: str) -> Origin:
    url = clean(url)
    return Origin(url, clean(page) if "://" in page else url.rpartition("/")[0] + "/")


def _name(url: str) -> str:
    return unquote(urlsplit(url).path.rpartition("/")[2])


def clean(url: str) -> str:
    """Return a URL without credentials, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
