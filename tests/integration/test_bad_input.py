"""Bad input gets one clear line that says what, where and what to do, and a non-zero exit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import Ran, Runner
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf
from tests.support.wheels import build_wheel


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels that is the whole index of these tests."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheel(folder, "demo", "1.0", {"demo.py": "x = 1\n"})
    build_wheel(folder, "needs", "1.0", {"needs.py": "import demo\n"}, requires=["demo>=1"])
    build_wheel(folder, "elsewhere", "1.0", {"elsewhere.py": ""}, tag="cp311-cp311-win_amd64", purelib=False)
    return folder


class Curator:
    """Runs ``shelf publish`` on a list, with an index of local wheels only."""

    def __init__(self, wheels: Path, folder: Path) -> None:
        self.folder = folder
        self._env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def publish(self, text: str, *arguments: str, shelf: str = "", **env: str) -> Ran:
        """Publish ``text`` to a folder or ``shelf``."""
        (self.folder / "requirements.txt").write_text(text)
        return run_shelf(
            "publish", "-r", "requirements.txt", "--shelf", shelf or str(self.folder / "shelf"), *arguments,
            env={**self._env, **env}, cwd=self.folder,
        )  # fmt: skip


@pytest.fixture
def curator(wheels: Path, tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    return Curator(wheels, tmp_path)


def errors(ran: Ran) -> list[str]:
    """Return the lines that say what is wrong; there is nothing like a traceback beside them."""
    assert ran.returncode == 1, ran
    assert "Traceback" not in ran.stderr
    return [line for line in ran.stderr.splitlines() if line.startswith("shelf: error: ")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("demo>=1\n", r"requirements.txt:1: demo: '>=1' is a range: pin it as demo==VERSION"),
        ("demo\n", r"requirements.txt:1: demo: it has no version: pin it"),
        ("-e .\n", r"requirements.txt:1: .*editable"),
        ("demo==1.0\ndemo==2.0\n", r"requirements.txt:2: .*demo==2.*demo==1"),
        ("nobody-has-this==1.0\n", r"requirements.txt:1: nobody-has-this==1: .*no package of this name"),
        ("demo==9.9\n", r"requirements.txt:1: demo==9.9: there is no such version"),
        (
            "elsewhere==1.0\n",
            r"elsewhere==1: there is no wheel for cp.*; there are wheels for cp311-cp311-win_amd64",
        ),
        ("demo==1.0 --hash=sha256:" + "0" * 64 + "\n", r"demo==1: .*hash.*expected 0+, got [0-9a-f]{64}"),
        ("needs==1.0\n", r"demo \(>=1\) is needed by needs==1 and is not in the list"),
        ("", r"requirements.txt has no requirements"),
    ],
)
def test_publish_refuses(text: str, said: str, curator: Curator) -> None:
    """A list that cannot be published is refused in one line that names the pin and what to do."""
    found = errors(curator.publish(text))
    assert len(found) == 1, found
    assert re.search(said, found[0]), found


def test_all_errors_at_once(curator: Curator) -> None:
    """All errors of a list are said at once, each with its line."""
    found = errors(curator.publish("demo>=1\nneeds\n=x\n"))
    assert [line.split(":")[3] for line in found] == ["1", "2", "3"]


@pytest.mark.parametrize(
    "target",
    ["cp313t-manylinux_2_28_x86_64", "cp312-musllinux_1_2_x86_64", "win32", "cp39-manylinux_2_17_x86_64"],
)
def test_unknown_target(target: str, curator: Curator) -> None:
    """A target that is not supported is refused by its name."""
    found = errors(curator.publish("demo==1.0\n", "--target", target))
    assert len(found) == 1
    assert target in found[0]


def test_missing_requirements_file(tmp_path: Path) -> None:
    """A requirements file that is not there is said so."""
    (found,) = errors(run_shelf("publish", "-r", "none.txt", cwd=tmp_path))
    assert "none.txt: cannot be read: No such file" in found


def test_missing_bucket(curator: Curator, moto: S3Server) -> None:
    """A bucket that does not exist is said so, with its name."""
    (found,) = errors(curator.publish("demo==1.0\n", shelf="s3://no-such-bucket/p", **moto.environ))
    assert "no-such-bucket" in found
    assert "exist" in found


def test_wrong_credentials(curator: Curator, moto: S3Server) -> None:
    """Wrong credentials are said to be refused."""
    bucket = moto.make_bucket("credentials")
    env = {**moto.environ, "AWS_SECRET_ACCESS_KEY": "wrong"}
    (found,) = errors(curator.publish("demo==1.0\n", shelf=f"s3://{bucket}/p", **env))
    assert "SignatureDoesNotMatch" in found


def test_unreachable_endpoint(curator: Curator, moto: S3Server) -> None:
    """An endpoint that does not answer is said so."""
    env = {**moto.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    (found,) = errors(curator.publish("demo==1.0\n", shelf="s3://bucket/p", **env))
    assert "127.0.0.1:9" in found


def test_newer_shelf(curator: Curator) -> None:
    """A shelf of a newer format is left alone."""
    shelf = curator.folder / "shelf"
    shelf.mkdir()
    (shelf / "shelf.json").write_text('{"access":"package","format":2,"kind":"shelf"}')
    (found,) = errors(curator.publish("demo==1.0\n"))
    assert "has format 2, this cloudimport reads up to 1: upgrade cloudimport" in found


def test_look_at_what_is_not_there(tmp_path: Path) -> None:
    """A shelf or a pin that is not there is an error, not an empty answer."""
    (found,) = errors(run_shelf("ls", "--shelf", tmp_path / "none"))
    assert "is no shelf" in found
    made = MadeShelf(tmp_path)
    (found,) = errors(run_shelf("show", "demo==1.0", "--shelf", made.url))
    assert "demo==1" in found
    (found,) = errors(run_shelf("show", "demo", "--shelf", made.url))
    assert "is not a pin: write name==version" in found


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeShelf]:
    """A shelf with one package."""
    shelf = MadeShelf(tmp_path)
    shelf.add("demo", "1.0", {"demo.py": "x = 1\n"})
    shelf.environment()
    yield shelf
    shelf.source.close()


def install_error(tmp_path: Path, **env: str) -> str:
    """Return the last line that a program prints whose ``install()`` fails."""
    ran = Runner(tmp_path / "home").run("import cloudimport\ncloudimport.install()\n", env=env)
    assert ran.returncode == 1
    return ran.stderr.strip().splitlines()[-1]


def test_corrupt_lock(made: MadeShelf, tmp_path: Path) -> None:
    """A lockfile that is no lockfile, or was edited, is refused with the command that makes it again."""
    text = made.lock.read_text()
    edited = text.replace('"demo==1"', '"demo==2"')
    assert edited != text
    for bad in ("{", text[: len(text) // 2], "[]", edited):
        made.lock.write_text(bad)
        said = install_error(tmp_path, CLOUDIMPORT_LOCK=str(made.lock))
        assert said.startswith("cloudimport.errors.ConfigurationError: ")
        assert str(made.lock) in said
        assert "shelf publish" in said


def test_newer_lock(made: MadeShelf, tmp_path: Path) -> None:
    """A lockfile of a newer format says to upgrade."""
    record = json.loads(made.lock.read_text())
    made.lock.write_text(json.dumps({**record, "format": 2}))
    assert "upgrade cloudimport" in install_error(tmp_path, CLOUDIMPORT_LOCK=str(made.lock))


def test_not_published(made: MadeShelf, tmp_path: Path) -> None:
    """Installing pins that are not published names all of them and the command that publishes them."""
    requirements = tmp_path / "more.txt"
    requirements.write_text("demo==1.0\nother==2.0\nthird==3.1\n")
    said = install_error(tmp_path, CLOUDIMPORT_REQUIREMENTS=str(requirements), CLOUDIMPORT_SHELF=made.url)
    assert said.startswith("cloudimport.errors.NotPublishedError: ")
    assert "other==2, third==3.1" in said
    assert f"shelf publish -r {requirements}" in said


def test_denied_says_both_causes(made: MadeShelf, tmp_path: Path, moto: S3Server) -> None:
    """Where the store does not tell absent from forbidden, both causes are said."""
    env = {
        **moto.environ,
        "AWS_SECRET_ACCESS_KEY": "wrong",
        "CLOUDIMPORT_REQUIREMENTS": str(made.requirements),
    }
    said = install_error(tmp_path, CLOUDIMPORT_SHELF="s3://some-bucket/p", **env)
    assert "is not published" in said
    assert "not allowed" in said


def test_unreachable_shelf(made: MadeShelf, tmp_path: Path, moto: S3Server) -> None:
    """A shelf that cannot be reached is an error of its own, within the deadline."""
    env = {**moto.environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "CLOUDIMPORT_DEADLINE": "2"}
    said = install_error(
        tmp_path, CLOUDIMPORT_SHELF="s3://bucket/p", CLOUDIMPORT_REQUIREMENTS=str(made.requirements), **env
    )
    assert said.startswith("cloudimport.errors.UnreachableError: ")
    assert "127.0.0.1:9" in said


def test_import_of_what_is_not_on_the_shelf(made: MadeShelf, tmp_path: Path) -> None:
    """Importing what the environment does not have is the usual ModuleNotFoundError."""
    code = "import cloudimport\ncloudimport.install()\nimport demo, not_there\n"
    ran = Runner(tmp_path / "home").run(code, env={"CLOUDIMPORT_LOCK": str(made.lock)})
    assert ran.stderr.strip().splitlines()[-1] == "ModuleNotFoundError: No module named 'not_there'"


def test_nothing_is_configured(tmp_path: Path) -> None:
    """Without lock and requirements the error says where they were looked for."""
    said = install_error(tmp_path)
    assert "cloudimport.lock" in said
    assert str(tmp_path / "home" / "handler") in said


def test_wrong_setting(made: MadeShelf, tmp_path: Path) -> None:
    """A setting that cannot be is named with its value."""
    said = install_error(tmp_path, CLOUDIMPORT_LOCK=str(made.lock), CLOUDIMPORT_CACHE_SIZE="lots")
    assert "CLOUDIMPORT_CACHE_SIZE='lots' is not a size" in said
