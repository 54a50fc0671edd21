"""``shelf sbom``: what it says is what was published, and its schema holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from cloudimport.ids import running_targets
from tests.support.children import Ran, Runner
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

TARGET = str(running_targets()[0])
HEAD = "Metadata-Version: 2.4\nName: {}\nVersion: {}\n"


class Curator:
    """Publishes a few packages that need one another, with and without licences."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wheels = folder / "wheels"

        def wheel(name: str, version: str, metadata: str = "") -> Path:
            text = HEAD.format(name, version) + metadata
            return build_wheel(wheels, name, version, {f"{name}.py": "x = 1\n"}, metadata=text)

        self.wheels = [
            wheel(
                "top",
                "1.0",
                "Summary: The top\nLicense-Expression: MIT OR Apache-2.0\nRequires-Dist: left[more]>=2\n"
                "Requires-Dist: nowhere; sys_platform == 'win32'\nRequires-Dist: extra; extra == 'not'\n"
                "Provides-Extra: not\n",
            ),
            wheel(
                "left",
                "2.0.0",
                "License: a very long text\n        of a licence\nClassifier: License :: OSI Approved\n"
                "Classifier: License :: OSI Approved :: BSD License\nRequires-Dist: right; extra == 'more'\n"
                "Provides-Extra: more\n",
            ),
            wheel("right", "3.0+local.1", "License: mit\nRequires-Dist: left\n"),
            wheel("extra", "4", "License: My own\n"),
            wheel("one", "1", "License-Expression: ISC\nRequires-Dist: two\n"),
            wheel("two", "1", "Summary: a\x1b[31m\u202ething\nRequires-Dist: one\n"),
        ]
        pins = ["top==1.0", "left==2", "right==3.0+local.1", "extra==4", "one==1", "two==1"]
        (folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
        run_shelf("publish", "-r", "requirements.txt", "--shelf", folder / "shelf", env=env, cwd=folder).ok()

    def sbom(self, *arguments: str | Path) -> Ran:
        """Run the command in the folder of the lockfile."""
        return run_shelf("sbom", *arguments, cwd=self.folder)


@pytest.fixture(scope="module")
def curator(tmp_path_factory: pytest.TempPathFactory) -> Curator:
    """A curator who has published."""
    return Curator(tmp_path_factory.mktemp("curator"))


@pytest.fixture(scope="module")
def bom(curator: Curator) -> dict[str, Any]:
    """The bill of materials."""
    found: dict[str, Any] = json.loads(curator.sbom("--target", TARGET).ok())
    return found


def test_it_follows_the_schema(curator: Curator) -> None:
    """It is CycloneDX 1.6 by the library's own strict validator, which sees an error if there is one."""
    curator.sbom("-o", "bom.json").ok()
    text = (curator.folder / "bom.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace('"SHA-256"', '"SHA-257"')) is not None


def test_components(curator: Curator, bom: dict[str, Any]) -> None:
    """Each package has its version as it writes it, its purl, and its wheel's hash."""
    found = {one["name"]: one for one in bom["components"]}
    assert sorted(found) == ["extra", "left", "one", "right", "top", "two"]
    assert found["left"]["purl"] == found["left"]["bom-ref"] == "pkg:pypi/left@2.0.0"
    assert found["right"]["purl"] == "pkg:pypi/right@3.0%2Blocal.1"
    for wheel in curator.wheels:
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        component = found[wheel.name.partition("-")[0]]
        assert component["hashes"] == [{"alg": "SHA-256", "content": digest}]
        assert {"name": "cloudimport:wheel", "value": wheel.name} in component["properties"]
    assert found["top"]["description"] == "The top"
    assert found["two"]["description"] == "a[31mthing"
    whole = bom["metadata"]["component"]
    assert {"name": "cloudimport:target", "value": TARGET} in whole["properties"]


def test_licences(bom: dict[str, Any]) -> None:
    """The licence is the expression, else the classifiers', else a name; a text is not taken for one."""
    found = {one["name"]: one.get("licenses") for one in bom["components"]}
    said = {"acknowledgement": "declared"}
    assert found["top"] == [{"expression": "MIT OR Apache-2.0", **said}]
    assert found["one"] == [{"license": {"id": "ISC", **said}}]
    assert found["left"] == [{"license": {"name": "BSD License", **said}}]
    assert found["right"] == [{"license": {"id": "MIT", **said}}]
    assert found["extra"] == [{"license": {"name": "My own", **said}}]
    assert found["two"] is None


def test_dependencies(bom: dict[str, Any]) -> None:
    """The graph has what each package needs on the target, with the extras that are asked for, circles
    included, and from the environment all is reached.
    """
    found = {row["ref"]: row.get("dependsOn", []) for row in bom["dependencies"]}
    left, right, one, two = (
        "pkg:pypi/left@2.0.0",
        "pkg:pypi/right@3.0%2Blocal.1",
        "pkg:pypi/one@1",
        "pkg:pypi/two@1",
    )
    assert found["pkg:pypi/top@1.0"] == [left]
    assert (found[left], found[right]) == ([right], [left])
    assert (found[one], found[two]) == ([two], [one])
    assert found["environment"] == ["pkg:pypi/extra@4", one, "pkg:pypi/top@1.0"]


def test_the_same_lock_gives_the_same_bytes(curator: Curator) -> None:
    """It says nothing of who made it, and when."""
    first, second = curator.sbom("-o", "a.json"), curator.sbom("--lock", "cloudimport.lock", "-o", "b.json")
    assert first.ok() == second.ok() == ""
    assert (curator.folder / "a.json").read_bytes() == (curator.folder / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--lock", "none.lock"), "none.lock cannot be read"),
        (
            ("--target", "cp310-manylinux_2_17_aarch64"),
            "the lock is not for cp310-manylinux_2_17_aarch64 but",
        ),
        (("--target", "x"), "'x' is not a target"),
    ],
)
def test_what_is_wrong_is_said(curator: Curator, arguments: tuple[str, ...], words: str) -> None:
    """A lock that is not there, or is for other targets, is an error in one line."""
    ran = curator.sbom(*arguments)
    assert ran.returncode == 1
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_what_was_loaded(curator: Curator) -> None:
    """With ``--loaded`` it has what a process has loaded, by its file or its log, and follows the schema."""
    env = {"CLOUDIMPORT_LOADED": str(curator.folder / "loaded.json"), "CLOUDIMPORT_LOG": "1"}
    lock = str(curator.folder / "cloudimport.lock")
    code = f"import cloudimport; cloudimport.install(lock={lock!r}); import left"
    ran = Runner(curator.folder / "home").run(code, env=env)
    ran.ok()
    (curator.folder / "log.txt").write_text(f"START\n{ran.stderr}END\n")
    text = curator.sbom("--loaded", "loaded.json").ok()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert [component["name"] for component in found["components"]] == ["left"]
    [content] = [row for row in found["components"][0]["properties"] if row["name"] == "cloudimport:content"]
    assert content["value"] == json.loads((curator.folder / "loaded.json").read_text())["loaded"]["left==2"]
    assert curator.sbom("--loaded", "log.txt").ok() == text
    assert found["serialNumber"] != json.loads(curator.sbom().ok())["serialNumber"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("START\n", "has no record of what was loaded"),
        ('{"loaded": {"left==2": "0"}, "environment": "aa", "target": "TARGET"}', "use the lockfile that"),
        ('{"loaded": {"left==2": "0"}, "environment": "INDEX", "target": "TARGET"}', "with other contents"),
    ],
)
def test_what_was_not_loaded(curator: Curator, text: str, said: str) -> None:
    """A record of something else, or none, is an error in one line."""
    digest = json.loads((curator.folder / "cloudimport.lock").read_text())["targets"][TARGET]["index"][0]
    (curator.folder / "other").write_text(text.replace("TARGET", TARGET).replace("INDEX", digest))
    ran = curator.sbom("--loaded", "other")
    assert ran.returncode != 0
    assert said in ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
