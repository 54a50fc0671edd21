"""Credentials: which source is configured, and how they are kept fresh."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudimport.errors import DeniedError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.credentials import CredentialChain
from cloudimport.sources.metadata import parse_instant
from cloudimport.sources.profiles import Profiles
from cloudimport.sources.sigv4 import Credentials
from tests.support.httpserver import HttpServer, Reply, Request

OFF = {"AWS_EC2_METADATA_DISABLED": "true"}


def _get(environ: dict[str, str], **settings: Any) -> Credentials:
    return _chain(environ, **settings).get()


def _chain(environ: dict[str, str], **settings: Any) -> CredentialChain:
    clock = settings.pop("clock", time.time)
    config = SourceConfig(environ=environ, **settings)
    return CredentialChain(config, Profiles(config), clock=clock)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """An environment whose home has a credentials and a config file."""
    folder = tmp_path / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[default]\naws_access_key_id = D\naws_secret_access_key = DS\n"
        "[other]\naws_access_key_id = O\naws_secret_access_key = OS%1\naws_session_token = OT\n"
        "[half]\naws_access_key_id = H\n"
    )
    (folder / "config").write_text(
        "[default]\nregion = r\n[profile conf]\naws_access_key_id = C\naws_secret_access_key = CS\n"
        "[profile none]\nregion = x\n"
    )
    return {"HOME": str(tmp_path), **OFF}


def test_the_environment_comes_first(files: dict[str, str]) -> None:
    """Keys in the environment win over files, and over AWS_PROFILE."""
    keys = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_SESSION_TOKEN": "c",
        "AWS_PROFILE": "other",
    }
    assert _get({**files, **keys}) == Credentials("a", "b", "c")


def test_a_profile_that_is_set_wins_over_the_environment(files: dict[str, str]) -> None:
    """A profile that was chosen in the settings is the one."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    assert _get({**files, **keys}, profile="other") == Credentials("O", "OS%1", "OT")


@pytest.mark.parametrize(("name", "expected"), [("", "D"), ("default", "D"), ("other", "O"), ("conf", "C")])
def test_profiles_come_from_the_files(files: dict[str, str], name: str, expected: str) -> None:
    """AWS_PROFILE picks a section of the credentials or the config file."""
    assert _get({**files, "AWS_PROFILE": name}).access_key == expected


def test_files_may_lie_elsewhere(files: dict[str, str], tmp_path: Path) -> None:
    """AWS_SHARED_CREDENTIALS_FILE names another file."""
    path = tmp_path / "elsewhere"
    path.write_text("[default]\naws_access_key_id = E\naws_secret_access_key = ES\n")
    assert _get({**files, "AWS_SHARED_CREDENTIALS_FILE": str(path)}).access_key == "E"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"AWS_PROFILE": "nobody"}, "no AWS profile 'nobody'"),
        ({"AWS_PROFILE": "half"}, "'half' has no aws_secret_access_key"),
        ({"AWS_ACCESS_KEY_ID": "a"}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"AWS_PROFILE": "none"}, "no AWS credentials"),
    ],
)
def test_what_is_missing_is_named(files: dict[str, str], environ: dict[str, str], words: str) -> None:
    """Half a configuration is a DeniedError that says which half is missing."""
    with pytest.raises(DeniedError, match=words):
        _get({**files, **environ})


def test_a_file_that_is_no_configuration_is_named(tmp_path: Path) -> None:
    """A malformed file is a DeniedError with its path, in one line."""
    path = tmp_path / "bad"
    path.write_text("nonsense\nmore\n")
    with pytest.raises(DeniedError, match="bad") as caught:
        _get({"AWS_CONFIG_FILE": str(path), **OFF})
    assert "\n" not in str(caught.value)


def _document(number: int, seconds: float) -> bytes:
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
    return json.dumps(
        {"AccessKeyId": f"K{number}", "SecretAccessKey": "S", "Token": "T", "Expiration": expires}
    ).encode()


@pytest.fixture
def container() -> Iterator[HttpServer]:
    """A container endpoint that gives other credentials each time, which hold for an hour."""
    with HttpServer(lambda request: Reply(body=_document(request.number, 3600))) as server:
        yield server


def test_the_container_endpoint_is_asked_with_its_token(container: HttpServer, tmp_path: Path) -> None:
    """AWS_CONTAINER_CREDENTIALS_FULL_URI is asked with the token of the environment or of a file."""
    environ = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{container.endpoint}/v2/x?y",
        "HTTP_PROXY": "http://127.0.0.1:1",
    }
    assert _get({**environ, "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret"}).access_key == "K1"
    (tmp_path / "token").write_text("from file\n")
    assert _get({**environ, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}).token == "T"
    assert [request.headers["authorization"] for request in container.requests] == ["secret", "from file"]
    assert container.requests[0].target == "/v2/x?y"


def test_a_container_endpoint_elsewhere_is_refused() -> None:
    """The token is not sent in the clear to another host."""
    with pytest.raises(DeniedError, match="neither https nor on this host"):
        _get({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example/x"})


def test_credentials_are_kept_until_shortly_before_they_expire(container: HttpServer) -> None:
    """They are fetched once, and again five minutes before expiry."""
    now = [time.time()]
    environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": container.endpoint}
    chain = _chain(environ, clock=lambda: now[0])
    assert [chain.get().access_key for _ in range(3)] == ["K1"] * 3
    now[0] += 3600 - 290
    assert chain.get().access_key == "K2"


def test_credentials_that_still_hold_outlive_a_failed_renewal() -> None:
    """Where renewal fails before expiry the old ones are used; after expiry it is an error."""
    now = [time.time()]

    def handle(request: Request) -> Reply:
        return Reply(body=_document(1, 3600)) if request.number == 1 else Reply(403)

    with HttpServer(handle) as server:
        chain = _chain({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.endpoint}, clock=lambda: now[0])
        assert chain.get().access_key == "K1"
        now[0] += 3400
        assert [chain.get().access_key for _ in range(3)] == ["K1"] * 3
        assert len(server.requests) == 2
        now[0] += 300
        with pytest.raises(DeniedError, match="403"):
            chain.get()


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"AccessKeyId": "x"}', b"<html>"])
def test_an_answer_that_is_none_is_a_denied_error(body: bytes) -> None:
    """What is not a credentials document is a DeniedError, in one line."""
    with HttpServer(lambda _: Reply(body=body)) as server, pytest.raises(DeniedError, match="did not answer"):
        _get({"AWS_CONTAINER_CREDENTIALS_FULL_URI": server.endpoint})


def test_the_instance_metadata_service_is_asked_in_version_2() -> None:
    """A session token is fetched by PUT and sent with each GET; the role's name is looked up."""

    def handle(request: Request) -> Reply:
        if request.method == "PUT":
            return Reply(body=b"session")
        if request.headers.get("x-aws-ec2-metadata-token") != "session":
            return Reply(401)
        if request.target.endswith("/security-credentials/"):
            return Reply(body=b"my-role\n")
        return Reply(body=_document(9, 3600)) if request.target.endswith("/my-role") else Reply(404)

    with HttpServer(handle) as server:
        assert _get({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.endpoint}).access_key == "K9"
        assert [request.method for request in server.requests] == ["PUT", "GET", "GET"]


def test_without_any_source_the_error_says_what_to_set() -> None:
    """Where nothing is configured and there is no metadata service, the error names them all."""
    with HttpServer(lambda _: Reply()) as server:
        endpoint = server.endpoint
    with pytest.raises(DeniedError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        _get({"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint})


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00+00:00", 60.0),
        ("1970-01-01T02:01:00+02:00", 60.0),
        ("1970-01-01T00:01:00", 60.0),
    ],
)
def test_parses_instants(text: str, seconds: float) -> None:
    """ISO 8601 instants, with Z, an offset or neither (UTC)."""
    assert parse_instant(text) == seconds


def _process_profile(tmp_path: Path, answer: dict[str, Any]) -> dict[str, str]:
    script = tmp_path / "process.sh"
    script.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "config").write_text(f"[default]\ncredential_process = {script}\n")
    return {"AWS_CONFIG_FILE": str(tmp_path / "config"), "PATH": os.environ["PATH"], **OFF}


def test_botocore_resolves_the_rest_in_a_process_of_its_own(tmp_path: Path) -> None:
    """credential_process works, with its expiry, and botocore does not come into this process."""
    answer = {
        "Version": 1,
        "AccessKeyId": "P",
        "SecretAccessKey": "PS",
        "SessionToken": "PT",
        "Expiration": "2100-01-01T00:00:00Z",
    }
    environ = _process_profile(tmp_path, answer)
    script = (
        "import json, sys, time\n"
        "from cloudimport.sources.config import SourceConfig\n"
        "from cloudimport.sources.credentials import CredentialChain\n"
        "from cloudimport.sources.profiles import Profiles\n"
        "config = SourceConfig(environ=json.loads(sys.argv[1]))\n"
        "found = CredentialChain(config, Profiles(config)).get()\n"
        "assert not [name for name in sys.modules if name.startswith(('boto', 'urllib3'))]\n"
        "print(json.dumps(found))\n"
    )
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(environ)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == ["P", "PS", "PT", parse_instant("2100-01-01T00:00:00Z")]


def test_what_botocore_prints_does_not_mix_with_the_answer(tmp_path: Path) -> None:
    """Noise on the helper's standard output is no part of its answer."""
    session = tmp_path / "botocore" / "session.py"
    session.parent.mkdir()
    (session.parent / "__init__.py").write_text("")
    session.write_text(
        "from types import SimpleNamespace as Some\n"
        "def Session(profile):\n"
        "    print('noise', flush=True)\n"
        "    keys = Some(access_key='N', secret_key='S', token=None)\n"
        "    return Some(get_credentials=lambda: Some(get_frozen_credentials=lambda: keys))\n"
    )
    environ = _process_profile(tmp_path, {})
    standard = tuple(entry for entry in sys.path if entry and "site-packages" not in entry)
    assert _get(environ, helper_path=(str(tmp_path), *standard)) == Credentials("N", "S")


def test_what_botocore_refuses_is_a_denied_error(tmp_path: Path) -> None:
    """Where botocore's chain fails, its reason is given in one line."""
    environ = _process_profile(tmp_path, {"Version": 7})
    with pytest.raises(
        DeniedError, match="botocore found no AWS credentials: CredentialRetrievalError"
    ) as caught:
        _get(environ)
    assert "\n" not in str(caught.value)


def test_without_botocore_the_error_says_what_to_install(tmp_path: Path) -> None:
    """Where botocore is not installed, a DeniedError names it."""
    environ = _process_profile(tmp_path, {})
    standard = tuple(entry for entry in sys.path if entry and "site-packages" not in entry)
    with pytest.raises(DeniedError, match="pip install botocore"):
        _get(environ, helper_path=standard)


@pytest.mark.parametrize(
    "setting", ["role_arn = arn:aws:iam::1:role/x\nsource_profile = a", "sso_session = x"]
)
def test_roles_and_sso_win_over_static_keys(
    tmp_path: Path, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile with a role or SSO is botocore's business, even if it has keys too."""
    keys = "aws_access_key_id = a\naws_secret_access_key = b\n"
    (tmp_path / "config").write_text(f"[default]\n{keys}{setting}\n")
    asked: list[SourceConfig] = []

    def resolve(config: SourceConfig, profile: str | None) -> Credentials:
        asked.append(config)
        return Credentials("from botocore", "s")

    monkeypatch.setattr("cloudimport.sources.botocore_credentials.from_botocore", resolve)
    assert _get({"AWS_CONFIG_FILE": str(tmp_path / "config")}).access_key == "from botocore"
    assert len(asked) == 1
