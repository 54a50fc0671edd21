"""Where a file came from, out of pip's log."""

from __future__ import annotations

import pytest

from shelf_tools.origins import Origin, clean, origins

FILE = "demo-1.0-py3-none-any.whl"
LOG = f"""\
2026-11-28T05:22:18,701   Skipping link: none of the wheel's tags match: https://files.example/demo-1.0-cp39-cp39-win32.whl
2026-11-28T05:22:18,701   Found link https://files.example/a/demo-0.9-py3-none-any.whl (from https://one.example/simple/demo/), version: 0.9
2026-11-28T05:22:18,701   Found link https://files.example/a/{FILE}#sha256=00 (from https://me:****@one.example/simple/demo/) (requires-python:!=3.0.*,>=2.7), version: 1.0
2026-11-28T05:22:18,701   Found link https://user:secret@two.example/b/{FILE}?sig=abc#sha256=00 (from https://two.example/simple/demo/), version: 1.0
2026-11-28T05:22:18,701   Found link file:///srv/wheels/{FILE}, version: 1.0
"""  # noqa: E501
ONE = Origin(f"https://files.example/a/{FILE}", "https://one.example/simple/demo/")
TWO = Origin(f"https://two.example/b/{FILE}", "https://two.example/simple/demo/")
LOCAL = Origin(f"file:///srv/wheels/{FILE}", "file:///srv/wheels/")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f'  Looking up "https://files.example/a/{FILE}" in the cache', ONE),
        (f'  Looking up "https://two.example/b/{FILE}?sig=abc" in the cache', TWO),
        (f'  https://two.example:443 "GET /b/{FILE}?sig=abc HTTP/1.1" 200 4661', TWO),
        (f'  https://two.example:443 "GET /b/{FILE} HTTP/1.1" 404 12', ONE),
        (f"Processing /srv/wheels/{FILE}", LOCAL),
        (f"Processing ./wheels/{FILE}", LOCAL),
        ("", ONE),
    ],
)
def test_the_place_that_pip_went_to(line: str, expected: Origin) -> None:
    """Of several places that list a file, the one that was fetched counts; what is a secret is cut off."""
    log = [*LOG.splitlines(True), f"2026-11-28T05:22:19,000 {line}\n"]
    assert origins(log, [FILE, "other.whl"]) == {FILE: expected}


def test_names_are_decoded() -> None:
    """A local version's plus sign is quoted in links."""
    quoted, name = "demo-1.0%2Bcpu-py3-none-any.whl", "demo-1.0+cpu-py3-none-any.whl"
    line = f"2026 Found link file:///w/a%2Bb/{quoted} (from file:///i/demo/), version: 1.0+cpu"
    found = origins([line], [name])
    assert found[name].page == "file:///i/demo/"


@pytest.mark.parametrize("log", [[], ["junk\n"], ["Found link\n"], ["x Found link a (from b), version: 1\n"]])
def test_a_log_that_is_not_understood(log: list[str]) -> None:
    """What pip says in another way is not known, and no error."""
    assert origins(log, [FILE]) == {}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://u:p@h.example:8080/a/b?x=1#y", "https://h.example:8080/a/b"),
        ("https://u:p@q@h.example/", "https://h.example/"),
        ("file:///a/b.whl", "file:///a/b.whl"),
    ],
)
def test_clean(url: str, expected: str) -> None:
    """Neither credentials nor signed queries go into a record."""
    assert clean(url) == expected
