"""AWS Signature Version 4 in headers, for requests without a body.

Pure: no clock, no I/O. Rules: "Authenticating Requests: Using the Authorization Header (AWS
Signature Version 4)", Amazon S3 API reference. Import budget: ``hashlib``, ``hmac``, ``re``, ``time``.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from functools import lru_cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
#: RFC 3986 unreserved characters and the slash: S3 encodes everything else, once.
_PLAIN = re.compile(r"[A-Za-z0-9\-._~/]*\Z")

#: Headers that proxies change: botocore leaves them out too.
_UNSIGNED = ("accept-encoding", "connection", "user-agent")


class Credentials(NamedTuple):
    """An access key. ``expires``: seconds since the epoch, or None if it does not expire."""

    access_key: str
    secret_key: str
    token: str | None = None
    expires: float | None = None


def quote(path: str) -> str:
    """Return ``path`` percent-encoded as S3 wants it (UriEncode, slashes kept)."""
    if _PLAIN.match(path):
        return path
    octets = path.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if _PLAIN.match(chr(byte)) else f"%{byte:02X}" for byte in octets)


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def sign(
    method: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    credentials: Credentials,
    region: str,
    now: float,
    service: str = "s3",
) -> dict[str, str]:
    """Return ``headers`` and those that sign the request.

    ``path``: percent-encoded, as sent; no query. ``host``: as in the Host header. ``now``:
    seconds since the epoch. ``headers`` have lower-case names; all are signed but those that a
    proxy may change.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    signed = {**headers, "x-amz-content-sha256": _EMPTY_SHA256, "x-amz-date": stamp}
    if credentials.token:
        signed["x-amz-security-token"] = credentials.token
    covered = sorted((k, v) for k, v in {**signed, "host": host}.items() if k not in _UNSIGNED)
    names = ";".join(name for name, _ in covered)
    lines = (f"{name}:{' '.join(value.split())}" for name, value in covered)
    canonical = "\n".join((method, path, "", *lines, "", names, _EMPTY_SHA256))
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_key, stamp[:8], region, service)
    signature = hmac.digest(key, text.encode(), "sha256").hex()
    signed["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return signed
