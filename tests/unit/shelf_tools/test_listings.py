"""Asking an index: with whose credentials, how long, and what when it does not answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shelf_tools import listings
from shelf_tools.listings import Listings, NoJsonError, UnknownError
from shelf_tools.origins import Origin
from tests.support.httpserver import HttpServer, Reply, Request

FILE, SHA = "demo-1.0-py3-none-any.whl", "ab" * 32
JSON = "application/vnd.pypi.simple.v1+json"
CLEAN = {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "", "PIP_EXTRA_INDEX_URL": ""}


def page(**row: object) -> Reply:
    """Return a page that lists the file."""
    found = {"filename": FILE, "hashes": {"sha256": SHA}, **row}
    data = json.dumps({"meta": {"api-version": "1.3"}, "files": [found]}).encode()
    return Reply(body=data, headers={"Content-Type": f"{JSON}; charset=utf-8"})


def ask(
    server: HttpServer, env: dict[str, str] | None = None, options: tuple[str, ...] = ()
) -> listings.Listed:
    """Ask a server for the file."""
    origin = Origin(f"{server.endpoint}/files/{FILE}", f"{server.endpoint}/simple/demo/")
    return Listings({**CLEAN, **(env or {})}, options).listed(origin, FILE, SHA)


def basic(user: str, password: str) -> str:
    """Return the header of HTTP's basic authentication."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_what_is_listed() -> None:
    """Upload time, size and the attestations' place, which may be relative, as the page has them."""
    listed = page(size=7, **{"upload-time": "2026-01-02T03:04:05Z"}, provenance="../../p/x")
    with HttpServer(lambda request: listed) as server:
        assert ask(server) == ("2026-01-02T03:04:05Z", 7, f"{server.endpoint}/p/x")
    with HttpServer(lambda request: page(provenance=None)) as server:
        assert ask(server) == ("", -1, "")


@pytest.mark.parametrize(
    "row",
    [{"hashes": 1}, {"hashes": {"sha256": "00" * 32}}, {"filename": "other"}, {"hashes": None}],
    ids=["hashes", "sha", "name", "none"],
)
def test_a_row_that_is_not_it(row: dict[str, object]) -> None:
    """A row of another file, or in another form, says nothing."""
    with HttpServer(lambda request: page(**row)) as server, pytest.raises(UnknownError):
        ask(server)


@pytest.mark.parametrize("body", [b"[]", b'{"files":1}', b'{"files":[1]}', b"{", b"[" * 100_000, b"\xff"])
def test_a_page_that_is_none(body: bytes) -> None:
    """What an index sends may be anything."""
    with HttpServer(lambda request: Reply(body=body, headers={"Content-Type": JSON})) as server:
        with pytest.raises(UnknownError) as caught:
            ask(server)
        assert not isinstance(caught.value, NoJsonError)


@pytest.mark.parametrize(
    "reply", [Reply(406), Reply(body=b"<html>", headers={"Content-Type": "text/html"})], ids=["406", "html"]
)
def test_an_index_without_json(reply: Reply) -> None:
    """That is no fault, and told from one."""
    with HttpServer(lambda request: reply) as server, pytest.raises(NoJsonError):
        ask(server)


def test_an_index_that_is_away(tmp_path: Path) -> None:
    """It is waited for once, and what is said is the same for every file."""
    with HttpServer(lambda request: page()) as server:
        endpoint = server.endpoint
    asked = Listings(CLEAN, ())
    origin = Origin("", f"{endpoint}/simple/demo/")
    said = set()
    for _ in range(2):
        with pytest.raises(UnknownError) as caught:
            asked.listed(origin, FILE, SHA)
        said.add(str(caught.value))
    assert said == {f"{endpoint.partition('//')[2]} cannot be reached: ConnectionError"}


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer is read up to a bound."""
    monkeypatch.setattr(listings, "_MOST", 1000)
    long = page(filler="x" * 2000)
    with HttpServer(lambda request: long) as server, pytest.raises(UnknownError, match="longer than 1000"):
        ask(server)


@pytest.mark.parametrize(
    ("variable", "form"),
    [
        ("PIP_INDEX_URL", "{url}"),
        ("PIP_EXTRA_INDEX_URL", "https://elsewhere.example/simple {url}"),
        ("", "--extra-index-url {url}"),
        ("", "--index-url={url}"),
    ],
)
def test_credentials_of_pip(variable: str, form: str) -> None:
    """The user and password of an index URL, wherever pip has it from, go to that index."""
    with HttpServer(lambda request: page()) as server:
        url = server.endpoint.replace("//", "//me:p%40ss@") + "/simple/"
        text = form.format(url=url)
        ask(server, {variable: text} if variable else None, () if variable else (text,))
        assert server.requests[-1].headers["authorization"] == basic("me", "p@ss")


def test_credentials_of_a_pip_conf(tmp_path: Path) -> None:
    """What a configuration file of pip's says counts as well."""
    with HttpServer(lambda request: page()) as server:
        config = tmp_path / "pip.conf"
        config.write_text(f"[global]\nindex-url = {server.endpoint.replace('//', '//me:s@')}/simple\n")
        ask(server, {"PIP_CONFIG_FILE": str(config), "PIP_INDEX_URL": ""})
        sent = [request.headers.get("authorization") for request in server.requests]
        assert sent == [basic("me", "s")]


def test_credentials_stay_where_they_belong() -> None:
    """No other port, and nobody whom an index redirects to, gets them."""
    with HttpServer(lambda request: page()) as other:
        redirect: Callable[[Request], Reply] = lambda request: Reply(  # noqa: E731
            302, headers={"Location": f"{other.endpoint}/simple/demo/"}
        )
        with HttpServer(redirect) as server:
            env = {"PIP_INDEX_URL": server.endpoint.replace("//", "//me:secret@") + "/simple/"}
            ask(server, env)
            assert "authorization" in server.requests[-1].headers
            assert "authorization" not in other.requests[-1].headers
            ask(other, env)
            assert "authorization" not in other.requests[-1].headers


@pytest.mark.parametrize("status", [401, 403])
def test_access_is_refused(status: int) -> None:
    """The error says what to give."""
    with HttpServer(lambda request: Reply(status)) as server, pytest.raises(UnknownError, match="netrc"):
        ask(server)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://h.example/x", "x"])
def test_only_http(url: str) -> None:
    """An index cannot have a file of the curator's machine read."""
    with pytest.raises(UnknownError):
        Listings(CLEAN, ()).provenance(url)
