"""Source distributions come from the indexes that pip is configured for; absent and unreachable differ."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cloudimport.format.requirements import parse_lines
from shelf_tools.indexes import Indexes, read_indexes
from shelf_tools.limits import FETCH_LIMITS
from shelf_tools.origins import Origin
from shelf_tools.sdists import Sdist, SdistError, fetch_sdist
from tests.integration.test_fetch import _environment, _served
from tests.support.sdists import build_sdist


def get(line: str, indexes: Indexes, into: Path) -> Sdist:
    """Fetch one pin's source distribution."""
    return fetch_sdist(parse_lines([line])[0], indexes, into)


def test_fetched_over_http_with_its_digest(tmp_path: Path) -> None:
    """Names and versions are found however they are spelt; other files of the index are left alone."""
    path = build_sdist(tmp_path / "index" / "foo-bar", "foo_bar", "1.0", {"setup.py": "raise SystemExit"})
    build_sdist(tmp_path / "index" / "foo-bar", "foo_bar", "1.1", {})
    (path.parent / "foo_bar-1.0-py3-none-any.whl").write_bytes(b"")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with _served(tmp_path / "index") as url:
        found = get("Foo.Bar==1", Indexes(url), tmp_path / "into")
    origin = Origin(f"{url}foo-bar/{path.name}", f"{url}foo-bar/")
    assert found == Sdist(
        tmp_path / "into" / path.name, path.name, {"sha256": digest}, path.stat().st_size, origin
    )
    assert found.path.read_bytes() == path.read_bytes()


def test_downloads_are_limited(tmp_path: Path) -> None:
    """A file that does not end, or takes too long to come, is given up, with the flag."""
    build_sdist(tmp_path / "foo", "foo", "1.0", {"data": os.urandom(3 << 20)})
    (one,) = parse_lines(["foo==1"])
    size, late = replace(FETCH_LIMITS, file_bytes=2 << 20), replace(FETCH_LIMITS, wall_seconds=0)
    with _served(tmp_path) as url:
        for limits, flag in ((size, "--fetch-largest-file"), (late, "--fetch-wall-time")):
            with pytest.raises(SdistError, match=f"while it was fetched \\({flag}\\)"):
                fetch_sdist(one, Indexes(url), tmp_path / "into", limits)


def test_absent_unreachable_and_refusing_indexes_are_told_apart(tmp_path: Path) -> None:
    """An index that has no such file, one that does not answer, and one that says no."""
    build_sdist(tmp_path / "foo", "foo", "1.0", {})
    with (
        _served(tmp_path) as url,
        pytest.raises(SdistError, match="there is no source distribution of this version"),
    ):
        get("foo==2", Indexes(url), tmp_path / "into")
    with pytest.raises(SdistError, match=r"cannot be fetched: .*[Cc]onnection refused"):
        get("foo==1", Indexes(url), tmp_path / "into")
    with _served(tmp_path, 500) as url, pytest.raises(SdistError, match=r"looked for, and .*500"):
        get("foo==1", Indexes(url), tmp_path / "into")
    with pytest.raises(SdistError, match="no index is configured"):
        get("foo==1", Indexes(no_index=True), tmp_path / "into")


def test_the_hash_that_the_index_says_is_checked(tmp_path: Path) -> None:
    """A file that is not what its index says is refused, though the list has no hash."""
    path = build_sdist(tmp_path / "files", "foo", "1.0", {})
    (tmp_path / "simple" / "foo").mkdir(parents=True)
    page = tmp_path / "simple" / "foo" / "index.html"
    with _served(tmp_path) as url:
        page.write_text(f'<a href="/files/{path.name}#sha256={"0" * 64}">{path.name}</a>')
        with pytest.raises(SdistError, match="does not have the sha256 that its index says"):
            get("foo==1", Indexes(f"{url}simple/"), tmp_path / "into")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        page.write_text(f'<a href="/files/{path.name}#sha256={digest}">{path.name}</a>')
        assert get("foo==1", Indexes(f"{url}simple/"), tmp_path / "into").hashes == {"sha256": digest}


def test_credentials_in_a_url_are_used_and_not_said(tmp_path: Path) -> None:
    """What an error says of an index has no password in it."""
    with _served(tmp_path, 403) as url:
        secret = url.replace("http://", "http://me:hush@")
        with pytest.raises(SdistError, match="403") as caught:
            get("foo==1", Indexes(secret), tmp_path / "into")
    assert "hush" not in str(caught.value)
    (tmp_path / "foo").mkdir()
    (tmp_path / "foo" / "index.html").write_text('<a href="foo-1.0.tar.gz">foo-1.0.tar.gz</a>')
    with _served(tmp_path) as url:
        secret = url.replace("http://", "http://me:hush@")
        with pytest.raises(SdistError, match="404") as caught:
            get("foo==1", Indexes(secret), tmp_path / "into")
    assert "hush" not in str(caught.value)


def test_indexes_are_those_of_pip_and_of_the_list(tmp_path: Path) -> None:
    """pip's file, then its variables, then the list's options; lists add up, what is single is replaced."""
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = http://a/\nextra-index-url =\n    http://b/\n    http://c/\n"
        "cert = /a.pem\n[download]\ntrusted-host = a\n"
    )
    env = _environment(tmp_path, PIP_CONFIG_FILE=str(config), PIP_FIND_LINKS="/x /y")
    found = read_indexes(env, ())
    assert found == Indexes(
        "http://a/", ("http://b/", "http://c/"), ("/x", "/y"), False, ("a",), "/a.pem", ""
    )
    found = read_indexes({**env, "PIP_INDEX_URL": "http://e/"}, ())
    assert found.url == "http://e/"
    options = ("--index-url http://f/", "-f '/with space'", "--extra-index-url=http://g/?x=1", "--no-index")
    found = read_indexes(env, options)
    assert (found.url, found.find_links, found.no_index) == ("http://f/", ("/x", "/y", "/with space"), True)
    assert found.extra[-1] == "http://g/?x=1"


@pytest.mark.network
def test_a_real_one_comes_from_the_configured_index(tmp_path: Path) -> None:
    """What the user's pip is configured for is used."""
    found = get("six==1.16.0", read_indexes(os.environ, ()), tmp_path)
    assert found.hashes["sha256"] == "1e61c37477a1626458e36f7b1d82aa5c9b094fa4802892072e49de9c60c4c926"
