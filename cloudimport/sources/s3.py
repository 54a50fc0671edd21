"""A shelf in an S3 bucket: one signed GET per read.

Import budget: ``socket``, ``hashlib``, ``hmac``, ``threading``, ``re``; ``ssl`` with the first
https:// request. boto3 takes 158 ms of CPU to its first GET, this about a tenth.
"""

from __future__ import annotations

import re
import threading
import time

from cloudimport.errors import AbsentError, FetchError, UnreachableError
from cloudimport.format.keys import package_of
from cloudimport.settings import LOCK_NAME
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.credentials import CredentialChain
from cloudimport.sources.http import HttpClient, Limits
from cloudimport.sources.origin import Origin
from cloudimport.sources.profiles import Profiles
from cloudimport.sources.proxies import Proxies
from cloudimport.sources.reading import final, is_empty, join, lacks, refused, too_short
from cloudimport.sources.s3_endpoint import (
    DEFAULT_REGION,
    S3Error,
    check_bucket,
    locate,
    object_arn,
    parse_error,
)
from cloudimport.sources.sigv4 import Credentials, quote, sign
from cloudimport.sources.wire import HttpError, Response, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_CONTENT_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)\Z")
#: Codes of S3's "Error responses" page, by what they mean whatever their status.
_MISDIRECTED = ("PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed")
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken")
_REFUSED = (*_EXPIRED, "AuthorizationHeaderMalformed")
#: Codes of keys that were replaced: where they came from may have the new ones.
_OUTDATED = (*_EXPIRED, "InvalidAccessKeyId", "SignatureDoesNotMatch")
_THROTTLED = ("SlowDown", "Throttling", "ThrottlingException")
_PASSING = ("RequestTimeout", "InternalError", *_THROTTLED)


class S3Source:
    """Reads objects of ``bucket`` below ``prefix``. Needs s3:GetObject and nothing else.

    A wrong region, a skewed clock and expired credentials are mended once each, with one more
    request; other retries are ``Retrying``'s. ``clock``: seconds since the epoch.
    """

    def __init__(
        self, bucket: str, prefix: str, config: SourceConfig, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._bucket = check_bucket(bucket)
        self._prefix = prefix.strip("/")
        self.url = join(f"s3://{bucket}", self._prefix) if self._prefix else f"s3://{bucket}"
        self._config = config
        self._clock = clock
        self._skew = 0.0
        profiles = Profiles(config)
        limits = Limits(config.connect_timeout, config.read_timeout, config.deadline)
        self._http = HttpClient(limits, Proxies(config.proxies, config.environ), config.trusted_roots())
        self._credentials = None if config.no_sign else CredentialChain(config, profiles, clock=clock)
        self._lock = threading.Lock()
        self._region = _region(config, profiles)
        self._origin, self._base = locate(bucket, self._region, config)

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of the object ``key``; see ``Source.read``."""
        return b"" if is_empty(start, length) else self._fetch(key, Window(start, length))

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill buffers with bytes of the object ``key``; see ``Source.readv``."""
        if not is_empty(start, length):
            self._fetch(key, Window(start, length, buffers))

    def _fetch(self, key: str, window: Window) -> bytes:
        start, length, _ = window
        mended: set[str] = set()
        while True:
            used, response = self._get(key, window)
            if response.status in (200, 206):
                return self._checked(response, key, start, length)
            problem = parse_error(response.status, response.headers, response.body)
            remedy = self._mend(problem, response, used, mended)
            if not remedy:
                raise self._typed(problem, key, start, length)
            mended.add(remedy)

    def prepare(self) -> None:
        """Open a connection that a later read will use, where that takes long (TLS). Raises nothing."""
        if self._origin.scheme == "https":
            self._http.prepare(self._origin)

    def close(self) -> None:
        """Close idle connections."""
        self._http.close()

    def forget(self) -> None:
        """Close this process's copies of the parent's connections, silently."""
        self._lock = threading.Lock()
        self._http.forget()
        if self._credentials is not None:
            self._credentials.forget()

    def _get(self, key: str, window: Window) -> tuple[Credentials | None, Response]:
        start, length, _ = window
        headers = {"accept-encoding": "identity", "user-agent": "cloudimport/1"}
        if start or length is not None:
            headers["range"] = f"bytes={start}-" if length is None else f"bytes={start}-{start + length - 1}"
        with self._lock:
            origin, base, region, skew = self._origin, self._base, self._region, self._skew
        path = base + quote(join(self._prefix, key))
        credentials = self._identify(key)
        if credentials is not None:
            headers = sign("GET", origin.netloc(), path, headers, credentials, region, self._clock() + skew)
        return credentials, self._send(origin, path, headers, key, window)

    def _identify(self, key: str) -> Credentials | None:
        if self._credentials is None:
            return None
        try:
            return self._credentials.get()
        except FetchError as error:
            error.key = key
            raise

    def _send(self, origin: Origin, path: str, headers: dict[str, str], key: str, window: Window) -> Response:
        try:
            return self._http.request("GET", origin, path, headers, window)
        except HttpError as error:
            unreachable = UnreachableError(f"{join(self.url, key)}: {error}", key=key)
            raise (unreachable if error.passing else final(unreachable)) from error

    def _checked(self, response: Response, key: str, start: int, length: int | None) -> bytes:
        size = self._check_range(response, key, start) if response.status == 206 else None
        if lacks(start, length, start + response.received):
            raise too_short(join(self.url, key), key, start, length, size)
        return response.body

    def _check_range(self, response: Response, key: str, start: int) -> int | None:
        """Return the object's size. Raises UnreachableError if the body is not what it says it is."""
        text = response.headers.get("content-range", "")
        match = _CONTENT_RANGE.match(text)
        if not match or int(match[1]) != start or int(match[2]) - start + 1 != response.received:
            got = f"asked from byte {start}, got {response.received} bytes as {text!r}"
            raise UnreachableError(f"{join(self.url, key)}: {got}", key=key)
        return None if match[3] == "*" else int(match[3])

    def _mend(self, problem: S3Error, response: Response, used: Credentials | None, mended: set[str]) -> str:
        """Mend what one more request may mend; return the remedy's name, or "" if there is none."""
        if problem.code == "RequestTimeTooSkewed" and "clock" not in mended:
            return "clock" if self._set_clock(response) else ""
        if problem.code in _OUTDATED and "credentials" not in mended and self._credentials is not None:
            return "credentials" if self._credentials.renew(used) else ""
        if problem.region and "region" not in mended and _is_misdirected(problem):
            return "region" if self._set_region(problem.region) else ""
        return ""

    def _set_clock(self, response: Response) -> bool:
        there = _parse_date(response.headers.get("date", ""))
        if there is None:
            return False
        with self._lock:
            self._skew = there - self._clock()
        return True

    def _set_region(self, region: str) -> bool:
        with self._lock:
            # Another thread may have mended it meanwhile: then asking again is the remedy.
            self._region = region
            self._origin, self._base = locate(self._bucket, region, self._config)
        return True

    def _grant(self, key: str) -> str:
        """Return what to grant to whoever may not read ``key``."""
        pin = package_of(key)
        below = f"packages/{pin.partition('==')[0]}/*" if pin else key
        command = f"shelf policy {pin.partition('==')[0]}" if pin else f"shelf policy --lock {LOCK_NAME}"
        with self._lock:
            region = self._region
        arn = object_arn(region, self._bucket, join(self._prefix, below))
        return f": grant s3:GetObject on {arn} ('{command}' writes the policy)"

    def _typed(self, problem: S3Error, key: str, start: int, length: int | None) -> FetchError:
        status, code, message, region = problem
        if status == 416:
            return too_short(join(self.url, key), key, start, length, None)
        text = f"{join(self.url, key)}: {status} {code}".rstrip() + (f": {message}" if message else "")
        if code == "NoSuchBucket":
            return AbsentError(f"{text} (the bucket {self._bucket} does not exist)", key=key)
        if status == 404:
            return AbsentError(text, key=key)
        if status in (401, 403) or code in _REFUSED:
            advice = self._grant(key) if code == "AccessDenied" or not code else ""
            return refused(f"{text}{_advice(code)}{advice}", key)
        if status in (301, 307):
            text += f"; the bucket is in region {region}" if region else "; set the bucket's region"
        error = UnreachableError(text, key=key)
        error.throttled = code in _THROTTLED or status == 429
        return error if status >= 500 or status == 429 or code in _PASSING else final(error)


def _region(config: SourceConfig, profiles: Profiles) -> str:
    environ = config.environ
    return (
        config.region
        or environ.get("AWS_REGION")
        or environ.get("AWS_DEFAULT_REGION")
        or profiles.settings().get("region")
        or DEFAULT_REGION
    )


def _is_misdirected(problem: S3Error) -> bool:
    return problem.status in (301, 307) or problem.code in _MISDIRECTED


def _advice(code: str) -> str:
    if code == "AccessDenied" or not code:
        return " (S3 says so for a missing object too, where the caller may not list the bucket)"
    if code in ("SignatureDoesNotMatch", "InvalidAccessKeyId"):
        return " (check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
    return ""


def _parse_date(text: str) -> float | None:
    """Return an HTTP date (RFC 9110, section 5.6.7) in seconds since the epoch, or None."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError):
        return None
