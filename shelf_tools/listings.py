"""What an index says of a file besides its bytes: when it was uploaded, its size, who attests it.

The simple API's JSON (PEP 691, 700 and 740), by ``requests``, which is there with ``pypi-attestations``:
proxies, ``.netrc``, retries. Credentials and certificates are those that pip is configured with, by its own
word (``pip config list``); its session, which has them all, is no interface, and its keyrings are not asked.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from cloudimport.errors import CloudImportError, ConfigurationError
from shelf_tools import indexes
from shelf_tools.origins import Origin, clean

#: Seconds to connect, and for a pause within an answer.
_TIMEOUT = 20.0
#: Bytes of an answer, at the most. The longest pages have some 10 MB.
_MOST = 64 << 20
_PIECE = 1 << 18
_SIMPLE = "application/vnd.pypi.simple.v1+json"
_INTEGRITY = "application/vnd.pypi.integrity.v1+json"
_RETRIES = Retry(total=2, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504), raise_on_status=False)


class UnknownError(CloudImportError):
    """An index did not say what it was asked: the text says why, in one line."""


class NoJsonError(UnknownError):
    """An index has no JSON (PEP 691): many have not."""


class Listed(NamedTuple):
    """What an index lists of a file: upload time (RFC 3339) and size in bytes, "" and -1 if it does not say.

    ``provenance`` is the URL of its attestations, "" if it has none.
    """

    uploaded: str
    size: int
    provenance: str


class Listings:
    """Asks indexes about files; each page once. May be used by several threads."""

    def __init__(self, environ: Mapping[str, str], options: Sequence[str]) -> None:
        """``options``: lines of a requirements file that name indexes (``Listed.options``)."""
        self._environ, self._options = environ, options
        self._lock = threading.Lock()
        self._settings: _Settings | None = None
        self._unreachable: dict[str, str] = {}

    def listed(self, origin: Origin, filename: str, sha256: str) -> Listed:
        """Return what the page that a file was found on says of it. Raises UnknownError."""
        page = self._json(origin.page, _SIMPLE)
        try:
            rows = [row for row in page["files"] if row["filename"] == filename]
            row = next((row for row in rows if row.get("hashes", {}).get("sha256", sha256) == sha256), None)
            if row is None:
                raise UnknownError(f"{origin.page} lists no {filename} with sha256 {sha256}")
            size, uploaded, provenance = row.get("size"), row.get("upload-time"), row.get("provenance")
            return Listed(
                uploaded[:40] if isinstance(uploaded, str) else "",
                size if type(size) is int and size >= 0 else -1,
                urljoin(origin.page, provenance) if isinstance(provenance, str) else "",
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise UnknownError(f"{origin.page} is not a page of the simple API: {error!r}") from None

    def provenance(self, url: str) -> bytes:
        """Return a file's attestations (PEP 740), as they were sent. Raises UnknownError."""
        return self._get(url, _INTEGRITY)[0]

    def _json(self, url: str, accept: str) -> Any:
        data, kind = self._get(url, accept)
        if kind != accept:
            raise NoJsonError(f"{url} is not to be had as JSON (PEP 691): it is {kind or 'of no type'}")
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise UnknownError(f"{url} is not JSON: {error}") from None

    def _get(self, url: str, accept: str) -> tuple[bytes, str]:
        """Return an answer's bytes and media type. Raises UnknownError."""
        host = urlsplit(url).netloc
        if urlsplit(url).scheme not in ("http", "https"):
            raise UnknownError(f"{clean(url)} is not at an index")
        if host in self._unreachable:  # said once, not waited for a hundred times
            raise UnknownError(self._unreachable[host])
        settings = self._configured()
        try:
            with requests.Session() as session:
                session.mount(f"{urlsplit(url).scheme}://", HTTPAdapter(max_retries=_RETRIES))
                session.verify, session.cert = settings.verify, settings.cert
                session.proxies.update(settings.proxies)
                with session.get(
                    url, headers={"Accept": accept}, auth=settings.auth(url), timeout=_TIMEOUT, stream=True
                ) as answer:
                    return _read(answer, clean(url)), answer.headers.get("Content-Type", "").partition(";")[0]
        except (requests.RequestException, OSError, ValueError) as error:
            text = f"{host.rpartition('@')[2]} cannot be reached: {type(error).__name__}"
            if isinstance(error, (requests.ConnectionError, requests.Timeout)):
                self._unreachable[host] = text
            raise UnknownError(text) from None

    def _configured(self) -> _Settings:
        with self._lock:
            if self._settings is None:
                self._settings = _Settings(self._environ, self._options)
            return self._settings


def _read(answer: requests.Response, url: str) -> bytes:
    if answer.status_code in (401, 403):
        raise UnknownError(
            f"{url} refuses access (HTTP {answer.status_code}): what pip has in a keyring is not used here, "
            "give the credentials in the index URL or in .netrc"
        )
    if answer.status_code == 406:
        raise NoJsonError(f"{url} is not to be had as JSON (PEP 691)")
    if answer.status_code != 200:
        raise UnknownError(f"{url} answers HTTP {answer.status_code}")
    found = bytearray()
    for piece in answer.iter_content(_PIECE):
        found += piece
        if len(found) > _MOST:
            raise UnknownError(f"{url} is longer than {_MOST} bytes")
    return bytes(found)


class _Settings:
    """Of pip's configuration, what matters here."""

    def __init__(self, environ: Mapping[str, str], options: Sequence[str]) -> None:
        try:
            found = indexes.read_indexes(environ, options)
        except ConfigurationError:
            found = indexes.Indexes()
        self.verify: bool | str = found.cert or environ.get("REQUESTS_CA_BUNDLE") or True
        self.cert: str | None = found.client_cert or None
        self.proxies: dict[str, str] = {"http": found.proxy, "https": found.proxy} if found.proxy else {}
        urls = (found.url, *found.extra)
        self._known = {_place(url): url for url in urls if "@" in urlsplit(url).netloc}

    def auth(self, url: str) -> tuple[str, str] | None:
        """Return user and password for a URL; None: ``requests`` looks into ``.netrc``."""
        known = self._known.get(_place(url))
        if known is None:
            return None
        parts = urlsplit(known)
        return unquote(parts.username or ""), unquote(parts.password or "")


def _place(url: str) -> tuple[str, str]:
    """Return what credentials are for: never another host, port or scheme."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.rpartition("@")[2].lower()
