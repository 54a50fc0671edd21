"""Two publishers at once: of the same wheels, and of wheels that differ."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from cloudimport.errors import CloudImportError
from cloudimport.ids import Pin, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import ConflictError, read_build, verify_build
from shelf_tools.environments import verify_environments
from shelf_tools.store import open_store
from tests.support.localwheels import PINS, make_wheels, write_requirements
from tests.support.s3servers import moto_server
from tests.support.shelfcommand import publisher_environment
from tests.support.shelves import MadeShelf
from tests.support.stacks import opened
from tests.support.wheels import build_wheel

TARGET = str(running_targets()[0])


@dataclass
class Place:
    """A shelf's URL and the environment in which it is reached."""

    url: str
    environ: dict[str, str] = field(default_factory=dict)

    def verify(self, *pins: str) -> list[str]:
        """Return what is wrong with pins and environments."""
        source = open_source(self.url, SourceConfig(environ=self.environ))
        store = open_store(self.url, self.environ)
        found = [line for pin in pins for line in verify_build(source, Pin.parse(pin), TARGET)]
        return found + verify_environments(store, source)


@pytest.fixture(scope="module")
def moto() -> Iterator[Any]:
    """A moto server."""
    with moto_server() as server:
        yield server


@pytest.fixture(params=["folder", "moto"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A new shelf in a folder and on S3."""
    if request.param == "folder":
        return Place(str(tmp_path / "shelf"))
    server = request.getfixturevalue("moto")
    bucket = server.make_bucket(f"race-{abs(hash(str(tmp_path))):x}")
    return Place(f"s3://{bucket}/some/prefix", dict(server.environ))


def start(place: Place, requirements: Path, environ: dict[str, str], *more: str) -> subprocess.Popen[str]:
    """Start a publisher."""
    code = "import sys; from shelf_tools.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "publish", "-r", str(requirements), "--shelf", place.url, *more]
    env = publisher_environment({**environ, **place.environ})
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=env, stdout=pipe, stderr=subprocess.STDOUT, text=True)


def test_two_publishers_of_the_same_wheels(place: Place, tmp_path: Path) -> None:
    """Both succeed with one content of each pin and the same environment, though their traces differ."""
    environ = make_wheels(tmp_path / "wheels")
    # What it imports depends on where it is traced: in the sandbox, or in none.
    code = (
        "import os\nif os.uname().nodename == 'sandbox':\n    from delta import one, two\n"
        "else:\n    from delta import three\n"
    )
    files: dict[str, str | bytes] = {f"delta/{name}.py": "X = 1\n" * 400 for name in ("one", "two", "three")}
    build_wheel(tmp_path / "wheels", "delta", "4", {**files, "delta/__init__.py": code})
    pins = (*PINS, "delta==4")
    running = []
    for number, sandbox in enumerate(("bubblewrap", "none")):
        folder = tmp_path / str(number)
        folder.mkdir()
        requirements = write_requirements(folder / "requirements.txt", pins)
        running.append(start(place, requirements, environ, "--sandbox", sandbox))
    for process in running:
        said, _ = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert place.verify(*pins) == []
    locks = [(tmp_path / str(number) / "cloudimport.lock").read_bytes() for number in (0, 1)]
    assert locks[0] == locks[1]


def test_two_publishers_of_different_wheels(place: Place, tmp_path: Path) -> None:
    """One succeeds, the other says which two contents there are; what readers see is whole."""
    for pin in PINS:
        ends = _race(place, tmp_path / pin, pin)
        assert place.verify(pin) == []
        losers = [said for said, status in ends if status]
        if losers:  # none: one was through before the other looked
            break
    else:
        pytest.fail("no race of three was close enough")
    source = open_source(place.url, SourceConfig(environ=place.environ))
    built = read_build(source, Pin.parse(pin), TARGET)
    assert built is not None
    assert len(losers) == 1, losers
    assert str(Pin.parse(pin)) in losers[0]
    assert "content" in losers[0]
    assert built.content_digest in losers[0].replace("\n", "").replace(" ", "")


def _race(place: Place, folder: Path, pin: str) -> list[tuple[str, int]]:
    """Publish two different wheels of one pin at once; return what each said and its exit status."""
    running = []
    for number, variant in enumerate(("here", "there")):
        own = folder / str(number)
        own.mkdir(parents=True)
        environ = make_wheels(own / "wheels", variant)
        requirements = write_requirements(own / "requirements.txt", (pin,))
        running.append(start(place, requirements, environ, "--sandbox", "none"))
    return [(process.communicate(timeout=120)[0], process.returncode) for process in running]


def _shelves(place: Place, tmp_path: Path, count: int) -> list[MadeShelf]:
    made = []
    for number in range(count):
        (tmp_path / f"w{number}").mkdir()
        made.append(MadeShelf(tmp_path / f"w{number}", place.url, place.environ))
    return made


def test_many_commits_of_one_content_with_different_traces(place: Place, tmp_path: Path) -> None:
    """Six publishers whose traces differ commit at one moment: all get the same build, which is whole."""
    files = {f"p/{name}.py": f"NAME = {name!r}\n" * 300 for name in "abcdef"}
    shelves, barrier = _shelves(place, tmp_path, 6), Barrier(6)

    def publish(number: int) -> tuple[str, str, str]:
        barrier.wait()
        order = sorted(files)[number:] + sorted(files)[:number]
        built = shelves[number].add("p", "1", files, opened=[(path, True) for path in order])
        return built.content_digest, built.layout_digest, shelves[number].environment().digest

    with ThreadPoolExecutor(6) as pool:
        found = set(pool.map(publish, range(6)))
    assert len(found) == 1
    assert place.verify("p==1") == []
    with opened(place.url, shelves[0].environment(), tmp_path / "cache", environ=place.environ) as stack:
        assert {path: stack.read(path).decode() for path in files} == files


def test_many_commits_of_different_contents(place: Place, tmp_path: Path) -> None:
    """Of publishers whose wheels differ one wins; each other hears of both contents."""
    shelves, barrier = _shelves(place, tmp_path, 4), Barrier(4)

    def publish(number: int) -> str | CloudImportError:
        barrier.wait()
        try:
            return shelves[number].add("p", "1", {"p.py": f"X = {number}\n"}).content_digest
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(publish, range(4)))
    winners = [one for one in found if isinstance(one, str)]
    assert len(winners) == 1
    for error in found:
        if isinstance(error, ConflictError):
            assert winners[0] in str(error)
            assert (
                len([word for word in str(error).replace(":", " ").split() if len(word.strip(",")) == 64])
                == 2
            )
            assert "\n" not in str(error)
    assert place.verify("p==1") == []


def test_many_environments_at_once(place: Place, tmp_path: Path) -> None:
    """Publishers of one list for several targets lose none of each other's targets."""
    shelves, barrier = _shelves(place, tmp_path, 4), Barrier(4)
    targets = [f"cp3{minor}-manylinux_2_34_x86_64" for minor in (10, 11, 12, 13)]

    def publish(number: int) -> None:
        from cloudimport.ids import Target

        shelves[number].target = Target.parse(targets[number])
        shelves[number].add("p", "1", {"p.py": "X = 1\n"}, bytecode=False)
        barrier.wait()
        shelves[number].environment()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    from cloudimport.format.records import EnvironmentPointer

    store = open_store(place.url, place.environ)
    pointers = [key for key in store.list("envs/") if key.endswith(".json")]
    found = store.read_versioned(pointers[0])
    assert found is not None
    assert sorted(EnvironmentPointer.decode(found[0], "it").targets) == targets
