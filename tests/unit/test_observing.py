"""What the line about a cold start does not tell."""

from __future__ import annotations

import pytest

from cloudimport.observing import _public


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://bucket/shelf", "s3://bucket/shelf"),
        ("sftp://user:secret@host/a@b", "sftp://host/a@b"),
        ("/home/user@host/shelf", "/home/user@host/shelf"),
        ("file:///home/user@host/shelf", "file:///home/user@host/shelf"),
    ],
)
def test_no_password_goes_to_the_log(url: str, told: str) -> None:
    """User and password of a URL are left out, and nothing else is."""
    assert _public(url) == told
