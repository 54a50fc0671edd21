"""The signer, against botocore's."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from cloudimport.sources import sigv4
from cloudimport.sources.sigv4 import Credentials, quote, sign

NOW = 1_795_000_000.0
PATHS = [
    "/bucket/packages/a/1.0/cp312-manylinux_2_34_x86_64/pack-00ff",
    "/packages/a/1.0%21b%2B/x",
    "/with space/and+plus/é%/~tilde/!'()*",
    "/double//slash/",
]


def _botocore_signs(
    monkeypatch: pytest.MonkeyPatch, path: str, headers: dict[str, str], token: str | None, region: str
) -> dict[str, str]:
    class Frozen(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Frozen:
            return cls.fromtimestamp(NOW, tz)

        @classmethod
        def utcnow(cls) -> Frozen:
            return cls.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)

    moment = datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc)
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime", lambda **_: moment.replace(tzinfo=None), raising=False
    )
    monkeypatch.setattr("botocore.auth.datetime.datetime", Frozen, raising=False)
    request = AWSRequest("GET", f"https://host.example:9000{path}", headers=headers)
    request.context["payload_signing_enabled"] = True
    S3SigV4Auth(BotoCredentials("AKID", "SECRET/+", token), "s3", region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", [None, "a/session+token=="])
@pytest.mark.parametrize("headers", [{}, {"range": "bytes=5-  9", "user-agent": "x"}])
def test_signs_as_botocore_does(
    monkeypatch: pytest.MonkeyPatch, path: str, token: str | None, headers: dict[str, str]
) -> None:
    """For any path, range and session token the headers are those that botocore's signer makes."""
    encoded = quote(path)
    ours = sign(
        "GET", "host.example:9000", encoded, headers, Credentials("AKID", "SECRET/+", token), "eu-west-3", NOW
    )
    theirs = _botocore_signs(monkeypatch, encoded, headers, token, "eu-west-3")
    assert ours["authorization"] == theirs["authorization"]
    assert ours["x-amz-date"] == theirs["x-amz-date"]
    assert ours.get("x-amz-security-token") == theirs.get("x-amz-security-token")


def test_signs_the_example_of_the_amazon_s3_reference() -> None:
    """The GET object example of "Authenticating Requests" comes out to the letter."""
    when = datetime.datetime(2013, 5, 24, tzinfo=datetime.timezone.utc).timestamp()
    credentials = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    headers = {"range": "bytes=0-9"}
    signed = sign(
        "GET", "examplebucket.s3.amazonaws.com", "/test.txt", headers, credentials, "us-east-1", when
    )
    assert signed["authorization"].endswith(
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )


@pytest.mark.parametrize("text", ["a b", "a+b", "é", "%21", "a/b", "~-._", "(*)'!", "\x7f", "?&=#"])
def test_quotes_as_the_reference_says(text: str) -> None:
    """All but unreserved characters and slashes are encoded once, in upper case."""
    from urllib.parse import quote as reference

    assert quote(text) == reference(text, safe="/~")


def test_a_changed_secret_or_day_changes_the_key() -> None:
    """The cached signing key belongs to one secret, day and region."""
    keys = {
        sigv4._signing_key(secret, day, region, "s3")
        for secret in ("a", "b")
        for day in ("20260101", "20260102")
        for region in ("r1", "r2")
    }
    assert len(keys) == 8
