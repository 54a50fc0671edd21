"""A small keep-alive HTTP/1.1 client for GETs on plain sockets and TLS.

RFC 9112, the part that object stores speak. ``http.client`` costs 13 ms of CPU at import and
copies each body; here the body is received into the bytes object that is returned. Import
budget: ``socket``, ``threading``, ``io``; ``ssl`` with the first https:// request.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from cloudimport.errors import ConfigurationError
from cloudimport.sources.origin import Origin
from cloudimport.sources.proxies import Proxies
from cloudimport.sources.wire import WHOLE, Connection, HttpError, Response, StaleError, Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from typing import Any, NamedTuple
else:
    from cloudimport.tuples import NamedTuple

#: Seconds after which an idle connection is not trusted: S3 closes them after about 5 to 20,
#: and a thawed sandbox may hold one that a NAT has long forgotten. Wall clock, since a frozen
#: sandbox's monotonic clock may stand still.
_MAX_IDLE = 10.0
#: The few roots that sign the endpoints of AWS: to read all that a system trusts costs 15 ms of CPU. Where
#: they are not enough (an intercepting proxy), the system's are asked.
_AWS_ROOTS = os.path.join(os.path.dirname(__file__), "aws_roots.pem")
_AWS_DOMAIN = ".amazonaws.com"


class UntrustedError(HttpError):
    """The server's certificate is not signed by any of the roots that were asked."""


class Limits(NamedTuple):
    """Limits of one request in seconds: for connecting, for a silence, for all of it."""

    connect: float
    silence: float
    total: float


class HttpClient:
    """A thread-safe pool of connections. One connection serves one request at a time."""

    def __init__(self, limits: Limits, proxies: Proxies, trusted_roots: str | None = None) -> None:
        self._limits = limits
        self._proxies = proxies
        self._trusted_roots = trusted_roots
        self._few_suffice = trusted_roots is None
        self._contexts: dict[str | None, ssl.SSLContext] = {}
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[tuple[float, Connection]]] = {}
        self._generation = 0

    def request(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        window: Window = WHOLE,
    ) -> Response:
        """Return the answer to one request; any status is an answer.

        ``target``: percent-encoded path and query. ``window``: the part of a 200 body
        that is wanted, for servers that ignore Range, and where it is to go. A kept connection that
        proves dead before its first byte of answer is replaced, once. Raises HttpError, and
        ConfigurationError for a proxy or trusted roots that cannot be used.
        """
        connection = self._take(origin)
        if connection is not None:
            try:
                return self._exchange(connection, method, origin, target, headers, window)
            except StaleError:
                self._drop(origin)
            except HttpError:
                self._drop(origin)
                raise
        try:
            return self._exchange(self._connect(origin), method, origin, target, headers, window)
        except StaleError as error:
            raise HttpError(f"{origin} closed the connection without an answer ({error})") from error

    def prepare(self, origin: Origin) -> None:
        """Open a connection that a later request will use. Raises nothing: that request will say it."""
        generation = self._generation
        try:
            connection = self._connect(origin)
        except (HttpError, ConfigurationError):
            return
        self._give_back(origin, connection, generation)

    def close(self) -> None:
        """Close the idle connections; those in use are closed when they come back."""
        with self._lock:
            idle, self._idle = self._idle, {}
            self._generation += 1
        for entries in idle.values():
            for _, connection in entries:
                connection.close()

    def forget(self) -> None:
        """In a forked child: close this process's copies of the sockets, say nothing on them."""
        self._lock = threading.Lock()
        self.close()

    def _exchange(
        self,
        connection: Connection,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        window: Window,
    ) -> Response:
        generation = self._generation
        via = self._proxies.find(origin)
        extra: dict[str, str] = {}
        if via is not None and origin.scheme == "http":
            target, extra = f"{origin}{target}", via[1]
        try:
            response = connection.exchange(method, origin.netloc(), target, {**headers, **extra}, window)
        except BaseException:
            connection.close()
            raise
        self._give_back(origin, connection, generation)
        return response

    def _take(self, origin: Origin) -> Connection | None:
        now = time.time()
        dead: list[Connection] = []
        found = None
        with self._lock:
            entries = self._idle.get(origin, [])
            while entries and found is None:
                since, connection = entries.pop()
                if now - since <= _MAX_IDLE:
                    found = connection
                else:
                    dead.append(connection)
        for connection in dead:
            connection.close()
        return found

    def _give_back(self, origin: Origin, connection: Connection, generation: int) -> None:
        if connection.reusable:
            with self._lock:
                if generation == self._generation:
                    self._idle.setdefault(origin, []).append((time.time(), connection))
                    return
        connection.close()

    def _drop(self, origin: Origin) -> None:
        # Where one kept connection is dead, its siblings of the same age are too.
        with self._lock:
            entries = self._idle.pop(origin, [])
        for _, connection in entries:
            connection.close()

    def _connect(self, origin: Origin) -> Connection:
        if self._few_suffice and origin.host.endswith(_AWS_DOMAIN):
            try:
                return self._open(origin, _AWS_ROOTS)
            except (UntrustedError, ConfigurationError):
                self._few_suffice = False
        return self._open(origin, self._trusted_roots)

    def _open(self, origin: Origin, roots: str | None) -> Connection:
        via = self._proxies.find(origin)
        peer = origin if via is None else via[0]
        sock = self._dial(peer, f"proxy {peer} for {origin}" if via else str(origin))
        try:
            if origin.scheme == "https":
                if via is not None:
                    self._tunnel(sock, origin, peer, via[1])
                sock = self._secure(sock, origin, roots)
        except BaseException:
            sock.close()
            raise
        return Connection(sock, self._limits.silence, self._limits.total)

    def _dial(self, peer: Origin, name: str) -> socket.socket:
        try:
            # As bytes: a str would go through the idna codec, 1 ms at its first use.
            address: Any = (peer.host.encode(), peer.port)
            sock = socket.create_connection(address, timeout=self._limits.connect)
        except (OSError, UnicodeError) as error:
            raise HttpError(f"cannot connect to {name}: {error}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def _tunnel(self, sock: socket.socket, origin: Origin, proxy: Origin, headers: Mapping[str, str]) -> None:
        # On a duplicate, so that the reader's buffer goes away with it: RFC 9110, section 9.3.6.
        connection = Connection(sock.dup(), self._limits.connect, self._limits.connect)
        authority = origin.authority()
        try:
            status, reason, _ = connection.head("CONNECT", authority, authority, headers)
        except StaleError as error:
            raise HttpError(f"proxy {proxy} closed the connection") from error
        finally:
            connection.close()
        if status != 200:
            raise HttpError(f"proxy {proxy} refused to connect to {authority}: {status} {reason}")

    def _secure(self, sock: socket.socket, origin: Origin, roots: str | None) -> socket.socket:
        import ssl

        sock.settimeout(self._limits.connect)
        try:
            return self._tls(roots).wrap_socket(sock, server_hostname=origin.host.encode())
        except ssl.SSLCertVerificationError as error:
            reason = error.verify_message
            text = f"the TLS certificate of {origin} is not trusted: {reason} (see AWS_CA_BUNDLE)"
            raise UntrustedError(text, passing=False) from error
        except (OSError, ValueError) as error:
            raise HttpError(f"TLS with {origin} failed: {error}") from error

    def _tls(self, roots: str | None) -> ssl.SSLContext:
        with self._lock:
            if roots not in self._contexts:
                self._contexts[roots] = _make_context(roots)
            return self._contexts[roots]


def _make_context(trusted_roots: str | None) -> ssl.SSLContext:
    import ssl

    try:
        context = ssl.create_default_context(cafile=trusted_roots)
    except OSError as error:
        raise ConfigurationError(f"cannot read trusted roots from {trusted_roots}: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context
