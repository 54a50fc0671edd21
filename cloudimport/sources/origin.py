"""Scheme, host and port of an HTTP server, parsed once.

Import budget: nothing (``urllib.parse`` costs 7 ms of CPU).
"""

from __future__ import annotations

from cloudimport.errors import ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where to connect. ``host`` is lower case, an IPv6 address without brackets."""

    scheme: str
    host: str
    port: int

    def netloc(self) -> str:
        """Return the value of the Host header: the port is left out when it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def authority(self) -> str:
        """Return ``host:port``, for CONNECT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.netloc()}"


def parse_url(url: str) -> tuple[Origin, str]:
    """Return the origin of an ``http(s)://`` URL and its path (with query), "/" by default.

    Raises ConfigurationError in one line for anything else.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    authority, slash, path = rest.partition("/")
    host, port = _split_port(authority)
    if not separator or scheme not in _PORTS or not host or "@" in host or not _is_port(port):
        raise ConfigurationError(f"{url!r} is not an http:// or https:// URL of a server")
    return Origin(scheme, host.lower(), int(port) if port else _PORTS[scheme]), slash + path or "/"


def _split_port(authority: str) -> tuple[str, str]:
    if authority.startswith("["):
        host, _, rest = authority[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = authority.partition(":")
    return host, port


def _is_port(port: str) -> bool:
    return not port or (port.isascii() and port.isdigit() and 0 < int(port) < 65536)
