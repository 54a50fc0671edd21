"""What pip is configured for, said to uv."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin
from shelf_tools.errand import without_users
from shelf_tools.indexes import Asked, uv_settings, without_user
from shelf_tools.pins import Link, Listed

CONFIGURED = """\
[global]
index-url = https://me:secret@example.invalid/simple
extra-index-url =
    https://one.invalid/simple
    https://two.invalid/simple
find-links = /global
cert = /bundle.pem
[download]
find-links = /wheels /more
trusted-host = one.invalid
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment in which pip is configured by a file, and nothing else says where packages come from."""
    (tmp_path / "pip.conf").write_text(CONFIGURED)
    own = {"XDG_CONFIG_DIRS": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    return {"PATH": os.defpath, "HOME": str(tmp_path), **own}


def test_pips_configuration_is_uvs(environ: dict[str, str]) -> None:
    """Indexes, folders, certificates; URLs with passwords are in the environment and in no argument."""
    found = uv_settings(environ)
    assert found.environ["UV_DEFAULT_INDEX"] == "https://me:secret@example.invalid/simple"
    assert found.environ["UV_INDEX"] == "https://one.invalid/simple https://two.invalid/simple"
    assert found.environ["SSL_CERT_FILE"] == "/bundle.pem"
    assert found.environ["UV_INSECURE_HOST"] == "one.invalid"
    assert "--find-links=/wheels" in found.arguments
    assert "--find-links=/more" in found.arguments
    assert "--index-strategy=unsafe-best-match" in found.arguments
    assert not [argument for argument in found.arguments if "secret" in argument or "global" in argument]


def test_uvs_variables_win_over_pips_configuration(environ: dict[str, str]) -> None:
    """What is said to uv itself stays, and then the first index that has a package is the one."""
    own = {"UV_INDEX_URL": "https://own.invalid", "UV_EXTRA_INDEX_URL": "https://x.invalid"}
    found = uv_settings({**environ, **own, "UV_FIND_LINKS": "/own"})
    assert {name: found.environ.get(name) for name in own} == own
    assert not {"UV_INDEX", "UV_DEFAULT_INDEX"} & set(found.environ)
    assert not [argument for argument in found.arguments if argument.startswith(("--find", "--index"))]


def test_arguments_win_over_both(environ: dict[str, str]) -> None:
    """What is asked for takes the place of variables of either name, and of the configuration."""
    asked = Asked("https://a.invalid", ("https://b.invalid", "https://c.invalid"), ("/d",), True)
    found = uv_settings({**environ, "UV_INDEX_URL": "https://own.invalid", "UV_EXTRA_INDEX_URL": "x"}, asked)
    assert found.environ["UV_DEFAULT_INDEX"] == "https://a.invalid"
    assert found.environ["UV_INDEX"] == "https://b.invalid https://c.invalid"
    assert not {"UV_INDEX_URL", "UV_EXTRA_INDEX_URL"} & set(found.environ)
    assert found.arguments == ("--find-links=/d", "--no-index")


@pytest.mark.parametrize(("provider", "asks"), [("import", True), ("subprocess", True), ("disabled", False)])
def test_a_keyring_is_asked_where_pip_asks_it(environ: dict[str, str], provider: str, asks: bool) -> None:
    """uv has pip's second way of asking only: the program."""
    found = uv_settings({**environ, "PIP_KEYRING_PROVIDER": provider})
    assert ("--keyring-provider=subprocess" in found.arguments) == asks


def test_the_systems_certificates_are_trusted_as_by_pip(tmp_path: Path) -> None:
    """Without a bundle uv is told to trust what the system trusts; one that requests knows is taken."""
    bare = {"PATH": os.defpath, "HOME": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    assert uv_settings(bare).environ["UV_SYSTEM_CERTS"] == "true"
    for variable in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
        found = uv_settings({**bare, variable: "/x.pem"}).environ
        assert (found["SSL_CERT_FILE"], found.get("UV_SYSTEM_CERTS")) == ("/x.pem", None)


def test_a_configuration_that_pip_cannot_read_is_an_error(environ: dict[str, str], tmp_path: Path) -> None:
    """A broken file is told, not passed over."""
    (tmp_path / "pip.conf").write_text("nonsense\n")
    with pytest.raises(ConfigurationError, match="pip's configuration cannot be read"):
        uv_settings(environ)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("--index-url https://me:hush@host/simple", "--index-url https://host/simple"),
        ("-i https://token@host:8443/a@b/simple", "-i https://host:8443/a@b/simple"),
        ("-f https://me:p@ss@host/?a=b@c", "-f https://host/?a=b@c"),
        (
            "-i https://a:b@one/ --extra-index-url=http://c:d@two/",
            "-i https://one/ --extra-index-url=http://two/",
        ),
        ('--index-url "https://me:hush@host/"', '--index-url "https://host/"'),
        ("--index-url https://me:${HUSH}@host/", "--index-url https://me:${HUSH}@host/"),
        ("--index-url https://${ME}${YOU}@host/", "--index-url https://${ME}${YOU}@host/"),
        ("--index-url https://${ME}:hush@host/", "--index-url https://host/"),
        ("--index-url https://me:${HUSH}x@host/", "--index-url https://host/"),
        ("--index-url https://host/a@1/", "--index-url https://host/a@1/"),
        ("--trusted-host host", "--trusted-host host"),
    ],
)
def test_users_are_cut_off(line: str, left: str) -> None:
    """Whatever stands before a URL's host, but for variables of where pip runs; in options and in links."""
    assert without_user(line) == left
    pin = Pin.parse("a==1")
    listed = Listed((), (line,), links={pin: (Link("a.whl", line.rsplit(maxsplit=1)[-1], ("sha256:0",)),)})
    sent = without_users(listed)
    assert sent.options == (left,)
    assert sent.links == {pin: (Link("a.whl", left.rsplit(maxsplit=1)[-1], ("sha256:0",)),)}
    assert (sent == listed) is (line == left)
    assert without_users(Listed(())) == Listed(())
