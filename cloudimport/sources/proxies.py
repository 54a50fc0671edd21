"""Which proxy a request goes through: HTTP_PROXY, HTTPS_PROXY, NO_PROXY and their kin.

Rules: those that curl, pip and botocore share (lower case first; NO_PROXY entries are hosts,
domain suffixes, optionally with a port, or ``*``). Import budget: nothing.
"""

from __future__ import annotations

from cloudimport.errors import ConfigurationError
from cloudimport.sources.origin import Origin, parse_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class Proxies:
    """The proxies in force: ``explicit`` (keys ``http``, ``https``, ``no``), else ``environ``'s."""

    def __init__(self, explicit: Mapping[str, str] | None, environ: Mapping[str, str]) -> None:
        self._by_scheme = dict(explicit) if explicit is not None else _from_environ(environ)
        exempt = self._by_scheme.get("no", "").lower().split(",")
        self._exempt = [part.strip() for part in exempt if part.strip()]

    def find(self, origin: Origin) -> tuple[Origin, dict[str, str]] | None:
        """Return the proxy for ``origin`` with the headers that it wants, or None for direct.

        Raises ConfigurationError for a proxy URL that is none, or is not plain HTTP.
        """
        value = self._by_scheme.get(origin.scheme)
        if not value or self._is_exempt(origin):
            return None
        proxy, userinfo = _parse(value)
        return proxy, _authorization(userinfo)

    def _is_exempt(self, origin: Origin) -> bool:
        return any(_matches(part, origin) for part in self._exempt)


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name in ("http", "https", "no"):
        value = environ.get(f"{name}_proxy") or environ.get(f"{name.upper()}_PROXY")
        if value:
            found[name] = value
    return found


def _matches(part: str, origin: Origin) -> bool:
    if part == "*":
        return True
    host, colon, port = part.rpartition(":")
    if colon and port.isdigit() and not host.endswith(":"):
        if int(port) != origin.port:
            return False
        part = host
    part = part.removeprefix("*").lstrip(".").strip("[]")
    return origin.host == part or origin.host.endswith("." + part)


def _parse(value: str) -> tuple[Origin, str]:
    scheme, separator, rest = value.rpartition("://")
    if separator and scheme.lower() != "http":
        raise ConfigurationError(f"proxy scheme {scheme!r} is not supported: use http://host:port")
    userinfo, _, host = rest.rpartition("@")
    origin, _ = parse_url(f"http://{host}")
    return origin, userinfo


def _authorization(userinfo: str) -> dict[str, str]:
    if not userinfo:
        return {}
    from binascii import b2a_base64
    from urllib.parse import unquote_to_bytes

    token = b2a_base64(unquote_to_bytes(userinfo), newline=False).decode()
    return {"proxy-authorization": f"Basic {token}"}
