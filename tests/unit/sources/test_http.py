"""The HTTP client, over real sockets."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.sources import http
from cloudimport.sources.http import HttpClient, Limits
from cloudimport.sources.origin import Origin, parse_url
from cloudimport.sources.proxies import Proxies
from cloudimport.sources.wire import WHOLE, HttpError, Window
from tests.support.certificates import make_server_context
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.rawserver import RawServer

AWS_ROOTS = http._AWS_ROOTS
BODY = bytes(range(256)) * 4000
_MADE: list[HttpClient] = []


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    """Close the clients of each test."""
    yield
    while _MADE:
        _MADE.pop().close()


def _client(trusted: Path | None = None, proxies: dict[str, str] | None = None) -> HttpClient:
    client = HttpClient(Limits(2.0, 0.5, 3.0), Proxies(proxies or {}, {}), str(trusted) if trusted else None)
    _MADE.append(client)
    return client


def _get(client: HttpClient, url: str, window: Window = WHOLE) -> bytes:
    origin, path = parse_url(url)
    return client.request("GET", origin, path, {}, window).body


def _says(body: bytes, **more: object) -> Callable[[Request], Reply]:
    return lambda request: Reply(body=body, **more)  # type: ignore[arg-type]


def test_keeps_the_connection() -> None:
    """Requests one after the other use one connection."""
    with HttpServer(_says(BODY)) as server:
        client = _client()
        assert all(_get(client, server.endpoint) == BODY for _ in range(5))
        assert server.connections == 1


@pytest.mark.parametrize("chunked", [True, False])
def test_reads_bodies_of_all_sizes(chunked: bool) -> None:
    """Bodies of known and of unknown length come whole, and the connection stays in step."""
    sizes = [0, 1, 999, 1000, 16384, 16385, len(BODY)]

    def handle(request: Request) -> Reply:
        return Reply(body=BODY[: int(request.target[1:])], chunked=chunked)

    with HttpServer(handle) as server:
        client = _client()
        assert [len(_get(client, f"{server.endpoint}/{size}")) for size in sizes] == sizes
        assert server.connections == 1


def test_cuts_a_window_out_of_a_whole_answer() -> None:
    """Where a server ignores Range, only the window is kept, and the rest is not read."""
    with HttpServer(_says(BODY)) as server:
        client = _client()
        assert _get(client, server.endpoint, Window(1000, 5000)) == BODY[1000:6000]
        assert _get(client, server.endpoint, Window(1000)) == BODY[1000:]
        assert _get(client, server.endpoint, Window(len(BODY) - 3, 10)) == BODY[-3:]
        assert _get(client, server.endpoint, Window(len(BODY) + 3, 10)) == b""


def test_replaces_a_kept_connection_that_is_dead() -> None:
    """A kept connection that the server has closed is replaced without an error."""
    with HttpServer(_says(b"x", hang_up=True)) as server:
        client = _client()
        assert [_get(client, server.endpoint) for _ in range(4)] == [b"x"] * 4
        assert server.connections == 4


def test_a_new_connection_that_is_closed_is_an_error() -> None:
    """A server that closes without a word is asked once, not for ever."""
    with HttpServer(_says(b"", fault="close")) as server:
        with pytest.raises(HttpError, match="without an answer"):
            _get(_client(), server.endpoint)
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", ["reset", "close", "stall", "short"])
def test_faults_are_errors_that_may_pass(fault: str) -> None:
    """A reset, a close, a silence and a short body end in an HttpError, within the limits."""
    with HttpServer(_says(BODY, fault=fault)) as server:
        with pytest.raises(HttpError) as caught:
            _get(_client(), server.endpoint)
        assert caught.value.passing


@pytest.mark.parametrize("fault", ["stall", "short"])
def test_works_again_after_a_fault(fault: str) -> None:
    """After a fault on a kept connection the next request takes another one."""

    def handle(request: Request) -> Reply:
        return Reply(body=BODY, fault=fault if request.number == 2 else "")

    with HttpServer(handle) as server:
        client = _client()
        assert _get(client, server.endpoint) == BODY
        with pytest.raises(HttpError):
            _get(client, server.endpoint)
        assert _get(client, server.endpoint) == BODY


def test_a_chunked_body_that_is_cut_off_is_an_error() -> None:
    """A chunked body must end with its last chunk."""
    with HttpServer(_says(BODY, fault="short", chunked=True)) as server, pytest.raises(HttpError):
        _get(_client(), server.endpoint)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffff\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
    ],
)
def test_a_malformed_answer_is_an_error(answer: bytes) -> None:
    """What is not HTTP, or has no bound, is an HttpError, and little of it is read."""
    with RawServer(answer) as server, pytest.raises(HttpError):
        _get(_client(), server.endpoint)


def test_reads_a_body_without_a_length_to_the_end() -> None:
    """A body that ends with its connection comes whole (RFC 9112, section 6.3)."""
    with RawServer(b"HTTP/1.1 200 OK\r\n\r\n" + BODY) as server:
        assert _get(_client(), server.endpoint) == BODY
        assert _get(_client(), server.endpoint, Window(10, 20)) == BODY[10:30]


def test_skips_interim_answers() -> None:
    """A 1xx answer is not the answer."""
    answer = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    with RawServer(answer) as server:
        assert _get(_client(), server.endpoint) == b"x"


def test_a_server_that_drips_is_cut_off() -> None:
    """An answer that never pauses for long but never ends either meets the limit of the whole."""
    client = HttpClient(Limits(1.0, 0.5, 0.6), Proxies({}, {}))
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with RawServer(answer, drip=0.05) as server, pytest.raises(HttpError, match="broke off"):
        _get(client, server.endpoint)


def test_the_limit_of_the_whole_bounds_a_silence() -> None:
    """Where less time is left than a silence may last, the silence ends with the time."""
    client = HttpClient(Limits(1.0, 20.0, 0.3), Proxies({}, {}))
    began = time.monotonic()
    with HttpServer(_says(BODY, fault="stall")) as server, pytest.raises(HttpError, match=r"within 0\.3 s"):
        _get(client, server.endpoint)
    assert time.monotonic() - began < 10


def test_serves_threads_with_a_connection_each() -> None:
    """Threads that ask at once never share a connection, and keep them for later."""

    def handle(request: Request) -> Reply:
        return Reply(body=request.target.encode() * 1000)

    with HttpServer(handle) as server:
        client = _client()

        def ask(number: int) -> bool:
            return _get(client, f"{server.endpoint}/{number}") == f"/{number}".encode() * 1000

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))
        assert server.connections <= 8


def test_a_prepared_connection_is_used() -> None:
    """A connection that was opened in advance serves the next request, one each."""
    with HttpServer(_says(BODY)) as server:
        client = _client()
        origin, _ = parse_url(server.endpoint)
        for _ in range(2):
            client.prepare(origin)
        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(lambda _: _get(client, server.endpoint) == BODY, range(6)))
        assert server.connections == 2


def test_what_cannot_be_prepared_is_said_by_the_request(tmp_path: Path) -> None:
    """Preparing raises nothing, whatever is wrong; after close nothing that was prepared is left."""
    with HttpServer(_says(BODY)) as server:
        endpoint = server.endpoint
        client = _client()
        client.prepare(parse_url(endpoint)[0])
        client.close()
        assert _get(client, endpoint) == BODY
        assert server.connections == 2
    origin, _ = parse_url(endpoint)
    _client().prepare(origin)
    _client(tmp_path / "none.pem").prepare(parse_url("https://localhost:1")[0])
    with pytest.raises(HttpError, match="cannot connect to"):
        _get(client, endpoint)


def test_close_drops_idle_connections() -> None:
    """After close the client goes on with a new connection; one in use is dropped when it is done."""
    waiting, go_on = threading.Event(), threading.Event()

    def handle(request: Request) -> Reply:
        if request.target == "/slow":
            waiting.set()
            go_on.wait(5)
        return Reply(body=b"x")

    with HttpServer(handle) as server, ThreadPoolExecutor(1) as pool:
        client = HttpClient(Limits(2.0, 5.0, 5.0), Proxies({}, {}))
        slow = pool.submit(_get, client, f"{server.endpoint}/slow")
        waiting.wait(5)
        client.close()
        go_on.set()
        assert slow.result() == b"x"
        assert _get(client, server.endpoint) == b"x"
        assert server.connections == 2
        client.close()


def test_speaks_tls(tmp_path: Path) -> None:
    """With the root of the server's certificate, an https:// origin is read."""
    context, root = make_server_context(tmp_path)
    with HttpServer(_says(BODY), tls=context) as server:
        client = _client(root)
        assert _get(client, server.endpoint) == BODY
        assert _get(client, server.endpoint.replace("127.0.0.1", "localhost")) == BODY


def test_an_untrusted_certificate_is_a_final_error(tmp_path: Path) -> None:
    """A certificate of an unknown root is refused; trying again is not suggested."""
    context, _ = make_server_context(tmp_path)
    with HttpServer(_says(BODY), tls=context) as server:
        with pytest.raises(HttpError, match="not trusted") as caught:
            _get(_client(), server.endpoint)
        assert not caught.value.passing
        assert server.requests == []


def test_few_roots_are_read_for_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an endpoint of AWS only the roots of AWS are read, unless the user says which to trust."""
    context, root = make_server_context(tmp_path)
    monkeypatch.setattr(http, "_AWS_DOMAIN", "localhost")
    monkeypatch.setattr(http, "_AWS_ROOTS", str(root))
    with HttpServer(_says(BODY), tls=context) as server:
        client, endpoint = _client(), server.endpoint.replace("127.0.0.1", "localhost")
        assert _get(client, endpoint) == BODY
        assert list(client._contexts) == [str(root)]
        with pytest.raises(HttpError, match="not trusted"):
            _get(_client(Path(AWS_ROOTS)), endpoint)


def test_where_few_roots_are_not_enough_the_systems_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An endpoint that others sign, as an intercepting proxy does, costs one handshake more, once."""
    context, root = make_server_context(tmp_path)
    monkeypatch.setattr(http, "_AWS_DOMAIN", "localhost")
    monkeypatch.setenv("SSL_CERT_FILE", str(root))  # what OpenSSL takes for the system's
    with HttpServer(_says(BODY), tls=context) as server:
        client, endpoint = _client(), server.endpoint.replace("127.0.0.1", "localhost")
        assert _get(client, endpoint) == BODY
        assert server.connections == 2
        server.hang_up()
        assert _get(client, endpoint) == BODY
        assert server.connections == 3
    with HttpServer(_says(BODY), tls=make_server_context(tmp_path)[0]) as server:
        monkeypatch.setenv("SSL_CERT_FILE", AWS_ROOTS)
        with pytest.raises(HttpError, match="not trusted") as caught:
            _get(_client(), server.endpoint.replace("127.0.0.1", "localhost"))
        assert not caught.value.passing


def test_the_roots_of_aws() -> None:
    """They are the five of Amazon Trust Services, and good for years."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(AWS_ROOTS)
    found = {dict(pair[0] for pair in root["subject"])["commonName"]: root for root in context.get_ca_certs()}
    assert sorted(found) == [
        *(f"Amazon Root CA {number}" for number in range(1, 5)),
        "Starfield Services Root Certificate Authority - G2",
    ]
    for root in found.values():
        assert ssl.cert_time_to_seconds(str(root["notAfter"])) > time.time() + 4 * 365 * 86400


def test_trusted_roots_that_are_not_there_are_a_configuration_error(tmp_path: Path) -> None:
    """A bundle that cannot be read is named."""
    with pytest.raises(ConfigurationError, match=r"none\.pem"), HttpServer(_says(b"")) as server:
        _get(_client(tmp_path / "none.pem"), server.endpoint.replace("http:", "https:"))


def test_a_host_that_does_not_listen_is_an_error_that_may_pass() -> None:
    """A refused connection is an HttpError that names the server."""
    with HttpServer(_says(b"")) as server:
        endpoint = server.endpoint
    with pytest.raises(HttpError, match="cannot connect to") as caught:
        _get(_client(), endpoint)
    assert caught.value.passing


def test_a_line_break_never_gets_into_a_head() -> None:
    """A header with a line break is refused before anything is sent."""
    with HttpServer(_says(b"")) as server:
        origin, _ = parse_url(server.endpoint)
        with pytest.raises(HttpError, match="line break"):
            _client().request("GET", origin, "/", {"a": "b\r\nc: d"})
        assert server.requests == []


def test_asks_a_proxy_for_http() -> None:
    """An http:// request through a proxy has the whole URL and the proxy's credentials."""
    with HttpServer(_says(b"by proxy")) as proxy:
        client = _client(proxies={"http": proxy.endpoint.replace("//", "//user:p%40ss@")})
        assert _get(client, "http://bucket.example/key") == b"by proxy"
    request = proxy.requests[0]
    assert request.target == "http://bucket.example/key"
    assert request.headers["host"] == "bucket.example"
    assert request.headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


def test_tunnels_through_a_proxy_for_https(tmp_path: Path) -> None:
    """An https:// request goes through CONNECT, and the certificate is the origin's."""
    context, root = make_server_context(tmp_path)
    with HttpServer(_says(BODY), tls=context) as server, RawServer(tunnel=server.port) as proxy:
        client = _client(root, {"https": proxy.endpoint})
        assert _get(client, server.endpoint) == BODY
        assert proxy.heads[0].startswith(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\n" % server.port)


def test_a_proxy_that_refuses_is_an_error() -> None:
    """A CONNECT that is not answered with 200 is an HttpError that says so."""
    refused = pytest.raises(HttpError, match=r"refused to connect to bucket\.example:443: 407")
    with HttpServer(lambda request: Reply(407)) as proxy, refused:
        _get(_client(proxies={"https": proxy.endpoint}), "https://bucket.example/key")


@pytest.mark.parametrize(
    ("no", "url", "is_direct"),
    [
        ("*", "http://a.example", True),
        ("a.example", "http://a.example", True),
        ("a.example", "http://b.a.example", True),
        (".a.example", "http://b.a.example", True),
        ("*.a.example", "http://b.a.example", True),
        ("a.example", "http://ba.example", False),
        ("x, a.example:80", "http://a.example", True),
        ("a.example:8080", "http://a.example", False),
        ("169.254.169.254", "http://169.254.169.254", True),
        ("", "http://a.example", False),
    ],
)
def test_no_proxy_exempts_hosts(no: str, url: str, is_direct: bool) -> None:
    """NO_PROXY takes hosts, suffixes, ports and the star."""
    proxies = Proxies(None, {"HTTP_PROXY": "proxy:3128", "no_proxy": no})
    assert (proxies.find(parse_url(url)[0]) is None) == is_direct


def test_a_proxy_of_another_scheme_is_a_configuration_error() -> None:
    """A SOCKS proxy is refused in one line."""
    with pytest.raises(ConfigurationError, match="socks5"):
        Proxies({"http": "socks5://x:1"}, {}).find(Origin("http", "a", 80))


@pytest.mark.parametrize(
    ("url", "origin", "path"),
    [
        ("http://A.example", Origin("http", "a.example", 80), "/"),
        ("https://a:8443/x?y", Origin("https", "a", 8443), "/x?y"),
        ("http://[::1]:9000/", Origin("http", "::1", 9000), "/"),
        ("http://[fd00::1]", Origin("http", "fd00::1", 80), "/"),
    ],
)
def test_parses_urls(url: str, origin: Origin, path: str) -> None:
    """Scheme, host, port and path come out of a URL."""
    assert parse_url(url) == (origin, path)


@pytest.mark.parametrize(
    "url", ["", "a.example", "ftp://a", "http://", "http://a:b/", "http://a:99999", "http://u@a"]
)
def test_refuses_urls(url: str) -> None:
    """What is not the URL of an HTTP server is a ConfigurationError."""
    with pytest.raises(ConfigurationError):
        parse_url(url)


def test_an_ipv6_host_is_bracketed() -> None:
    """The Host header and CONNECT have an IPv6 address in brackets."""
    assert Origin("http", "::1", 9000).netloc() == "[::1]:9000"
    assert Origin("https", "::1", 443).netloc() == "[::1]"
    assert Origin("https", "::1", 443).authority() == "[::1]:443"
