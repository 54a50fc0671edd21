"""Whence wheels came: what pip, the index's JSON and attestations say, in the record; the policy on it.

The index is a server of ours, Sigstore an instance of our own, whose roots lie where the library keeps those
of the last time; the public instance's are out of reach.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from cloudimport.ids import Pin, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import read_provenance
from tests.support.children import Ran
from tests.support.httpserver import HttpServer, Reply, Request
from tests.support.sdists import build_sdist, own_backend
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.sigstores import PUBLISH, Sigstore
from tests.support.wheels import build_wheel

UPLOADED = "2026-02-03T04:05:06.789012Z"
JSON = "application/vnd.pypi.simple.v1+json"
SECRET = "open-sesame"


@dataclass
class Index:
    """An index with the packages of a folder: its pages as JSON or HTML, and attestations by file name.

    ``mode``: "" all is well, "html" no JSON, "down" no JSON page answers, "gone" attestations do not.
    """

    files: Path
    provenance: dict[str, bytes] = field(default_factory=dict)
    mode: str = ""
    password: str = ""

    def __call__(self, request: Request) -> Reply:
        """Answer a request."""
        wanted = "Basic " + base64.b64encode(f"me:{self.password}".encode()).decode()
        if self.password and request.headers.get("authorization") != wanted:
            return Reply(401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        _, kind, name, *_ = [*urlsplit(request.target).path.split("/"), ""]
        if kind == "simple":
            return self._page(name, request.headers.get("accept", ""))
        if kind == "attested":
            missing = self.mode == "gone"
            return (
                Reply(500) if missing else Reply(body=self.provenance[name], headers={"Content-Type": "x/y"})
            )
        path = self.files / name
        return Reply(body=path.read_bytes()) if path.is_file() else Reply(404)

    def _page(self, name: str, accept: str) -> Reply:
        wheels = sorted([*self.files.glob(f"{name}-*.whl"), *self.files.glob(f"{name}-*.tar.gz")])
        # pip takes HTML as well; who takes JSON only wants to know more.
        asks_more = accept == JSON
        if self.mode == "html" and asks_more:
            return Reply(406)
        if self.mode == "down" and asks_more:
            return Reply(503)
        if self.mode in ("html", "down"):
            links = "".join(f'<a href="/files/{w.name}#sha256={_sha(w)}">{w.name}</a>' for w in wheels)
            return Reply(
                body=f"<html><body>{links}</body></html>".encode(), headers={"Content-Type": "text/html"}
            )
        rows = [
            {
                "filename": wheel.name,
                "url": f"/files/{wheel.name}?token={SECRET}",
                "hashes": {"sha256": _sha(wheel)},
                "size": wheel.stat().st_size,
                "upload-time": UPLOADED,
                "provenance": f"/attested/{wheel.name}" if wheel.name in self.provenance else None,
            }
            for wheel in wheels
        ]
        page = {"meta": {"api-version": "1.3"}, "name": name, "files": rows, "versions": ["1.0"]}
        return Reply(body=json.dumps(page).encode(), headers={"Content-Type": JSON})


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Place:
    """A curator, and the index that he uses."""

    folder: Path
    index: Index
    server: HttpServer
    sigstore: Sigstore

    def publish(
        self,
        *arguments: str,
        shelf: str = "shelf",
        lines: str = "demo==1.0\n",
        name: str = "requirements.txt",
        **env: str,
    ) -> Ran:
        """Publish from the index: a list that is there, or one of these lines."""
        if name == "requirements.txt":
            (self.folder / name).write_text(lines)
        return run_shelf(
            "publish", "-r", name, "--shelf", shelf, "--level", "3", *arguments,
            env={**self.env, **env}, cwd=self.folder,
        )  # fmt: skip

    @property
    def env(self) -> dict[str, str]:
        """The curator's environment."""
        home = str(self.folder / "home")
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": f"{self.server.endpoint}/simple/",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # nobody is there: the public Sigstore is out of reach
            "NO_PROXY": "127.0.0.1",
            "HOME": home,
            "XDG_CACHE_HOME": f"{home}/cache",
            "XDG_DATA_HOME": f"{home}/data",
        }

    def attest(self, pattern: str = "demo-*.whl", **how: str) -> None:
        """Have the index attest a file."""
        (wheel,) = self.index.files.glob(pattern)
        sha256 = how.pop("sha256", _sha(wheel))
        self.index.provenance[wheel.name] = self.sigstore.provenance(wheel.name, sha256, **how)

    def record(self, pin: str = "demo==1.0", shelf: str = "shelf") -> dict[str, Any]:
        """Return the record of the build on a shelf."""
        source = open_source(str(self.folder / shelf), SourceConfig(environ={}))
        return read_provenance(source, Pin.parse(pin), str(running_targets()[0]))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A curator with a folder of his own."""
    build_wheel(tmp_path / "files", "demo", "1.0", {"demo.py": "x = 1\n"})
    build_wheel(tmp_path / "files", "other", "1.0", {"other.py": "x = 1\n"})
    sigstore, index = Sigstore(), Index(tmp_path / "files")
    sigstore.trust_in(tmp_path / "home/cache")
    with HttpServer(index) as server:
        yield Place(tmp_path, index, server, sigstore)


def lines_of(ran: Ran) -> list[str]:
    """Return the error lines of a command that was refused."""
    assert ran.returncode == 1, ran
    assert "Traceback" not in ran.stderr
    return [line for line in ran.stderr.splitlines() if line.startswith("shelf: error:")]


def test_an_attested_wheel(place: Place) -> None:
    """The record says from which page of an index, when it was uploaded, and who attests it; so does `show`.

    With what it was made stands there as well, and no secret: neither password nor token.
    """
    place.attest(repository="me/demo")
    place.index.password = SECRET
    url = place.server.endpoint.replace("//", f"//me:{SECRET}@") + "/simple/"
    said = place.publish("--require-attestation", PIP_INDEX_URL=url)
    said.ok()
    assert "attestations are checked with the roots of the last time: " in said.stderr
    record, (wheel,) = place.record(), place.index.files.glob("demo-*.whl")
    assert record["wheel"] == {
        "name": wheel.name,
        **{
            name: hashlib.new(name, wheel.read_bytes()).hexdigest() for name in ("sha256", "sha384", "sha512")
        },
        "size": wheel.stat().st_size,
        "url": f"{place.server.endpoint}/files/{wheel.name}",
        "index": f"{place.server.endpoint}/simple/demo/",
        "uploaded": UPLOADED,
    }
    publisher = {"kind": "GitHub", "repository": "me/demo", "workflow": "release.yml"}
    assert record["attestations"] == [{"publisher": publisher, "predicates": [PUBLISH]}]
    assert SECRET not in json.dumps(record)
    assert SECRET not in said.stdout + said.stderr
    assert record["sandbox"] == "bubblewrap"
    assert record["limits"]["install"]["wall_seconds"] > 0
    tools = record["tools"]
    assert all(
        tools[name] for name in ("cloudimport", "python", "pip", "installer", "bubblewrap", "sigstore")
    )
    shown = run_shelf("show", "demo==1.0", "--shelf", "shelf", cwd=place.folder).ok()
    assert "GitHub me/demo release.yml" in shown
    assert UPLOADED in shown
    place.publish("--require-attestation", "all").ok()  # it is there, and was attested


def test_a_wheel_without_attestations(place: Place) -> None:
    """Without the policy none is needed; with it, one line says which wheel, and where it was looked for."""
    said = place.publish()
    said.ok()
    assert "note" not in said.stderr
    assert place.record()["wheel"]["uploaded"] == UPLOADED
    assert "attestations" not in place.record()
    page = f"{place.server.endpoint}/simple/demo/"
    (line,) = lines_of(place.publish("--require-attestation", shelf="other"))
    assert line == (
        "shelf: error: demo==1: --require-attestation: "
        f"{page} has no attestation for demo-1.0-py3-none-any.whl"
    )
    assert not (place.folder / "other/packages").exists()
    (line,) = lines_of(place.publish("--require-attestation"))
    assert "demo==1: --require-attestation: for cp" in line
    assert "it is on the shelf already, without an attestation that was checked" in line


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"sha256": "0" * 64}, "subject does not match distribution digest"),
        ({"certified": "somebody/else"}, "Verification failed: "),
    ],
    ids=["another file", "another publisher"],
)
def test_a_wrong_attestation(place: Place, how: dict[str, str], why: str) -> None:
    """A wrong one is noted and recorded as refused, and refused by the policy."""
    place.attest(**how)
    (line,) = lines_of(place.publish("--require-attestation", "demo"))
    assert (
        "demo==1: --require-attestation: the attestations of demo-1.0-py3-none-any.whl are refused: " in line
    )
    assert why in line
    said = place.publish()
    said.ok()
    assert "note: demo==1: the attestations of demo-1.0-py3-none-any.whl are refused: " in said.stderr
    record = place.record()
    assert "attestations" not in record
    assert why.strip() in record["attestations_refused"]
    assert len(lines_of(place.publish("--require-attestation"))) == 1


def test_the_policy_is_for_whom_it_names(place: Place) -> None:
    """A name, or a pin, is what it is for; a name that the list does not have is an error."""
    place.attest()
    both = "demo==1.0\nother==1.0\n"
    (line,) = lines_of(place.publish("--require-attestation", lines=both))
    assert line.startswith("shelf: error: other==1: --require-attestation")
    place.publish("--require-attestation", "demo==1.0", lines=both).ok()
    (line,) = lines_of(place.publish("--require-attestation", "nobody"))
    assert line == "shelf: error: --require-attestation nobody: the requirements have no such pin"


@pytest.mark.parametrize(("mode", "noted"), [("html", False), ("down", True), ("gone", True)])
def test_an_index_that_does_not_say(place: Place, mode: str, noted: bool) -> None:
    """An index without JSON is no matter, one that fails is a note; with the policy both are one line."""
    place.attest()
    place.index.mode = mode
    (line,) = lines_of(place.publish("--require-attestation", shelf="other"))
    assert line.startswith(f"shelf: error: demo==1: --require-attestation: {place.server.endpoint}")
    said = place.publish()
    said.ok()
    assert ("note: demo==1: " in said.stderr) is noted, said.stderr
    record = place.record()
    assert "attestations" not in record
    assert record["wheel"]["index"] == f"{place.server.endpoint}/simple/demo/"


def pylock(place: Place, index: str) -> str:
    """Return a lock that names the wheel by its URL, with a secret, and an index if there is one."""
    (wheel,) = place.index.files.glob("demo-*.whl")
    url = f"{place.server.endpoint.replace('//', '//me:hush@')}/files/{wheel.name}?token={SECRET}"
    more = f'index = "{index}"\n' if index else ""
    return (
        'lock-version = "1.0"\ncreated-by = "hand"\n[[packages]]\nname = "demo"\nversion = "1.0"\n'
        f'{more}wheels = [{{ url = "{url}", hashes = {{ sha256 = "{_sha(wheel)}" }} }}]\n'
    )


def test_a_wheel_that_a_lock_names(place: Place) -> None:
    """What `pylock.toml` names by its URL is looked up at the index that it names too."""
    place.attest(repository="me/demo")
    (place.folder / "pylock.toml").write_text(pylock(place, f"{place.server.endpoint}/simple"))
    place.publish("--require-attestation", name="pylock.toml").ok()
    record, (wheel,) = place.record(), place.index.files.glob("demo-*.whl")
    assert record["wheel"]["url"] == f"{place.server.endpoint}/files/{wheel.name}"
    assert record["wheel"]["index"] == f"{place.server.endpoint}/simple/demo/"
    assert record["wheel"]["uploaded"] == UPLOADED
    assert record["attestations"][0]["publisher"]["repository"] == "me/demo"


def test_a_wheel_that_a_lock_names_without_an_index(place: Place) -> None:
    """Its URL is recorded; nobody can be asked for attestations, and the policy says so."""
    place.attest()
    (place.folder / "pylock.toml").write_text(pylock(place, ""))
    (line,) = lines_of(place.publish("--require-attestation", name="pylock.toml"))
    assert line == (
        "shelf: error: demo==1: --require-attestation: the list names demo-1.0-py3-none-any.whl by its URL, "
        "and no index (packages.index) that would know its attestations"
    )
    place.publish(name="pylock.toml").ok()
    url = f"{place.server.endpoint}/files/demo-1.0-py3-none-any.whl"
    assert place.record()["wheel"].keys() & {"url", "index", "uploaded"} == {"url"}
    assert place.record()["wheel"]["url"] == url
    assert url in run_shelf("show", "demo==1.0", "--shelf", "shelf", cwd=place.folder).ok()


def test_a_wheel_of_a_project_of_uv(place: Place) -> None:
    """uv's lock names the index of each package."""
    place.attest()
    text = '[project]\nname = "app"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["demo"]\n'
    text += f'[[tool.uv.index]]\nurl = "{place.server.endpoint}/simple"\ndefault = true\n'
    (place.folder / "pyproject.toml").write_text(text)
    uv = str(Path(sys.executable).with_name("uv"))
    env = {**publisher_environment(place.env), "UV_NO_CACHE": "1"}
    command = [uv, "lock", "-q", "--no-python-downloads"]
    subprocess.run(command, cwd=place.folder, check=True, timeout=120, env=env)
    place.publish("--require-attestation", name="uv.lock").ok()
    assert place.record()["wheel"]["index"] == f"{place.server.endpoint}/simple/demo/"
    assert place.record()["attestations"]


def test_what_was_built_from_source(place: Place) -> None:
    """The record says whence the source distribution came; its attestations are what counts."""
    sdist = build_sdist(place.index.files, "made", "1.0", own_backend("made"))
    allowed = ("--allow-sdist", "made", "--require-attestation")
    page = f"{place.server.endpoint}/simple/made/"
    (line,) = lines_of(place.publish(*allowed, lines="made==1.0\n"))
    assert (
        line == f"shelf: error: made==1: --require-attestation: {page} has no attestation for made-1.0.tar.gz"
    )
    place.attest("made-*", repository="me/made")
    place.publish(*allowed, lines="made==1.0\n").ok()
    record = place.record("made==1.0")
    assert record["build"]["sdist"] == {
        "name": sdist.name,
        "sha256": _sha(sdist),
        "size": sdist.stat().st_size,
        "url": f"{place.server.endpoint}/files/{sdist.name}",
        "index": page,
        "uploaded": UPLOADED,
    }
    assert record["wheel"].keys() == {"name", "sha256", "sha384", "sha512", "size"}
    assert record["attestations"][0]["publisher"]["repository"] == "me/made"
    card = run_shelf("show", "made==1.0", "--shelf", "shelf", cwd=place.folder).ok()
    assert page in card
    assert UPLOADED in card
    place.attest("made-*", sha256="0" * 64)
    (line,) = lines_of(place.publish(*allowed, lines="made==1.0\n", shelf="other"))
    assert "the attestations of made-1.0.tar.gz are refused: " in line


def test_wheels_of_a_folder(place: Place) -> None:
    """A folder (`--find-links`) is named, and has no attestations; nobody is asked."""
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(place.index.files)}
    place.publish(**env).ok()
    wheel = place.record()["wheel"]
    assert wheel["index"] == place.index.files.as_uri() + "/"
    assert wheel["url"] == (place.index.files / "demo-1.0-py3-none-any.whl").as_uri()
    assert not place.server.requests
    (line,) = lines_of(place.publish("--require-attestation", shelf="other", **env))
    assert "which has no attestations" in line


def test_hashes_are_of_the_list(place: Place) -> None:
    """An index whose JSON names another file by the same name is not believed about it."""
    place.attest()
    place.publish().ok()
    page = Index._page

    def other(index: Index, name: str, accept: str) -> Reply:
        reply = page(index, name, accept)
        if accept == JSON:
            data = json.loads(reply.body)
            data["files"][0]["hashes"]["sha256"] = "0" * 64
            reply = reply._replace(body=json.dumps(data).encode())
        return reply

    place.index.__class__ = type("Lying", (Index,), {"_page": other})
    said = place.publish(shelf="other")
    said.ok()
    assert "lists no demo-1.0-py3-none-any.whl with sha256" in said.stderr
    assert "uploaded" not in place.record(shelf="other")["wheel"]
