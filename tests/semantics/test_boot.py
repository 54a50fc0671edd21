"""Boot images: what a run needed comes with the index, in one round trip; a wrong one changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.format.records import Ref
from shelf_tools.boot import Trace, publish_boot
from shelf_tools.environments import write_lock
from tests.semantics.conftest import INSTALL, World
from tests.support.shelves import MadeShelf

USE = """
import one, two.late, os
print(one.x, two.late.y, open(os.path.join(os.path.dirname(one.__file__), "data.txt")).read())
"""
COUNT = """
found = cloudimport.stats()
print({name: int(found[name]) for name in ("requests", "round_trips", "blocks_fetched")})
"""


@pytest.fixture
def own(world: World) -> MadeShelf:
    """A shelf with two packages, each with more than a run needs."""
    (world.folder / "made").mkdir()
    shelf = MadeShelf(world.folder / "made")
    for name in ("one", "two"):
        shelf.add(
            name,
            "1",
            {
                f"{name}/__init__.py": "x = 1\n",
                f"{name}/late.py": "y = 2\n",
                f"{name}/data.txt": "data",
                f"{name}/large.bin": os.urandom(3_000_000),
            },
        )
    shelf.environment()
    return shelf


def cold(world: World, shelf: MadeShelf, name: str, code: str = USE + COUNT, **env: str) -> str:
    """Run code with a cache of its own; returns what it prints."""
    prelude = INSTALL.format(lock=str(shelf.lock), cache=str(world.folder / name))
    return world.run(code, prelude=prelude, env=env)


def boot(world: World, shelf: MadeShelf) -> None:
    """Trace a run and make an image of it."""
    trace = world.folder / "trace.json"
    cold(world, shelf, "traced", USE, CLOUDIMPORT_TRACE=str(trace))
    publish_boot(Trace.read(trace), shelf.lock, "", {})


def test_one_round_trip(world: World, own: MadeShelf) -> None:
    """With a boot image and a lock a cold start waits for one round trip, without for two or more. It fetches
    what the traced run needed, and nothing else.
    """
    before = cold(world, own, "before")
    boot(world, own)
    after = cold(world, own, "after")
    said, counts = after.splitlines()
    assert said == before.splitlines()[0] == "1 2 data"
    found = json.loads(counts.replace("'", '"'))
    assert found["round_trips"] == 1
    assert found["requests"] == 3  # the index, and a part for each package
    assert json.loads(before.splitlines()[1].replace("'", '"'))["round_trips"] > 1


def test_what_a_boot_image_lacks(world: World, own: MadeShelf) -> None:
    """What a run needs beyond the image is fetched as ever."""
    boot(world, own)
    more = USE + "print(os.path.getsize(os.path.dirname(one.__file__) + '/large.bin'), one.__path__ != [])\n"
    more += "print(len(open(os.path.dirname(two.__file__) + '/large.bin', 'rb').read()))\n"
    assert cold(world, own, "more", more) == "1 2 data\n3000000 True\n3000000"


@pytest.mark.parametrize("fault", ["gone", "other bytes", "cut off", "other blocks", "no such build"])
def test_a_wrong_boot_image(world: World, own: MadeShelf, fault: str) -> None:
    """An image that is gone, damaged, or of something else costs speed, and nothing else."""
    boot(world, own)
    lock = json.loads(own.lock.read_text())
    [target] = lock["targets"].values()
    for part in Path(own.url).glob("packages/*/*/*/boot-*"):
        if fault == "gone":
            part.unlink()
        elif fault == "other bytes":
            part.chmod(0o600)
            part.write_bytes(os.urandom(part.stat().st_size))
        elif fault == "cut off":
            part.chmod(0o600)
            os.truncate(part, 100)
    for row in target["boot"]:
        if fault == "other blocks":
            row[5] = [1, 1, 0, 1]
        elif fault == "no such build":
            row[0] = "three"
    own.lock.write_text(json.dumps(lock))
    assert cold(world, own, "wrong", USE) == "1 2 data"


def test_a_lock_with_rows_that_are_none(world: World, own: MadeShelf) -> None:
    """Rows that no boot image has are an error of the lockfile, in one line."""
    boot(world, own)
    text = own.lock.read_text()
    for at, value in ((0, "../etc"), (2, "x"), (3, -1), (4, 1 << 60), (5, [0]), (5, [0, 1 << 40])):
        lock = json.loads(text)
        [target] = lock["targets"].values()
        target["boot"][0][at] = value
        own.lock.write_text(json.dumps(lock))
        ran = world.start(USE, prelude=INSTALL.format(lock=str(own.lock), cache=str(world.cache)))
        assert ran.returncode != 0
        assert ran.stderr.strip().splitlines()[-1].endswith("make it again with 'shelf publish --lock'")


def test_a_trace_of_something_else(world: World, own: MadeShelf) -> None:
    """A trace of another environment, or what is no trace, is refused in one line, and the lock stays."""
    boot(world, own)
    text = own.lock.read_text()
    trace = world.folder / "trace.json"
    record = json.loads(trace.read_text())
    for change, words in (
        ({"index": "0" * 64}, "trace with this lockfile"),
        ({"blocks": [["three", "1", 0]]}, "does not have"),
        ({"blocks": "all"}, "is not a trace"),
        ({"kind": "lock"}, "is not a trace"),
    ):
        trace.write_text(json.dumps({**record, **change}))
        with pytest.raises(ConfigurationError, match=words):
            publish_boot(Trace.read(trace), own.lock, "", {})
    assert own.lock.read_text() == text


def test_a_boot_image_stays_with_its_index(world: World, own: MadeShelf) -> None:
    """Publishing the same environment again keeps the image in the lock, another environment drops it."""
    boot(world, own)
    kept = own.lock.read_text()
    shutil.copy(own.lock, world.folder / "kept")
    own.environment()
    assert '"boot"' not in own.lock.read_text()  # a new lockfile
    shutil.copy(world.folder / "kept", own.lock)
    lock = json.loads(kept)
    [(target, row)] = lock["targets"].items()
    write_lock(own.lock, own.url, lock["requirements"], {target: Ref(*row["index"])})
    assert own.lock.read_text() == kept
    write_lock(own.lock, own.url, lock["requirements"], {target: Ref("0" * 64, 1, 1)})
    assert '"boot"' not in own.lock.read_text()
