"""``shelf gc`` and ``shelf verify --repair`` beside four publishers and four readers, all processes."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloudimport.format import keys
from cloudimport.format.records import requirements_digest, sha256
from cloudimport.ids import running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools import garbage
from shelf_tools.environments import read_lock
from shelf_tools.objects import Walk
from shelf_tools.reach import Reach, environments
from shelf_tools.store import open_store
from tests.support.children import Ran, Runner
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

TARGET = str(running_targets()[0])
PUBLISHERS, READERS = 4, 4
#: What publishers publish some of and forget; what readers read all the time; what is damaged and repaired.
POOL, READ, DAMAGED = ("p0", "p1", "p2", "p3", "p4", "p5"), ("r0", "r1"), ("d0", "d1")
#: What stays is made of others, so that all of POOL is needed by nobody time and again.
STAYS = ("s0", "s1", "s2")
#: One for each publisher, so that none forgets another's list; the packages in them they share.
OWN = tuple(f"own{number}" for number in range(PUBLISHERS))
#: Of so many publishes of one publisher one stays.
_KEPT = 6
#: An import of everything that a lockfile has, as a handler does it; prints a digest of what it read.
READER = """
import hashlib, importlib, sys
import cloudimport
cloudimport.install()
seen = hashlib.sha256()
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    inner = importlib.import_module(name + ".inner")
    with open(module.__path__[0] + "/data.bin", "rb") as file:
        seen.update(file.read())
    seen.update(repr((module.NAME, inner.f(3), module.__file__.endswith("__init__.py"))).encode())
print(seen.hexdigest())
"""


def data_of(name: str) -> bytes:
    """Return a package's data: no other has it."""
    return random.Random(name).randbytes(40_000)


def digest_of(names: list[str]) -> str:
    """Return what the reader prints for packages."""
    return sha256(b"".join(data_of(name) + repr((name, 6, True)).encode() for name in names))


def make_wheels(folder: Path) -> dict[str, str]:
    """Write the wheels; return the environment in which they are the only ones."""
    for name in (*POOL, *READ, *DAMAGED, *STAYS, *OWN):
        files: dict[str, str | bytes] = {
            f"{name}/__init__.py": f"from {name} import inner\nNAME = {name!r}\n",
            f"{name}/inner.py": "def f(x):\n    return 2 * x\n" * 50,
            f"{name}/data.bin": data_of(name),
        }
        build_wheel(folder, name, "1", files)
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}


@dataclass
class World:
    """A shelf, everybody who is at it, and what they have seen."""

    folder: Path
    url: str
    server: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    kept: list[tuple[Path, list[str]]] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.environ = {**make_wheels(self.folder / "wheels"), **self.server}
        self.store = open_store(self.url, self.server)
        self.donor = str(self.folder / "donor")

    def run(self, *arguments: str | Path) -> Ran:
        """Run the command on the shelf."""
        return run_shelf(*arguments, "--shelf", self.url, env=self.environ)

    def publish(self, folder: Path, names: list[str]) -> Path:
        """Publish a list; return its lockfile."""
        folder.mkdir(parents=True)
        requirements = folder / "requirements.txt"
        requirements.write_text("".join(f"{name}==1\n" for name in names))
        (folder / "read.py").write_text(READER)
        self.run("publish", "-r", requirements, "--sandbox", "none", "--jobs", "2").ok()
        return folder / "cloudimport.lock"

    def read(self, lock: Path, names: list[str], cache: Path) -> None:
        """Import all of a lockfile in a new process with an empty cache."""
        env = {**self.server, "CLOUDIMPORT_CACHE": str(cache)}
        runner = Runner(self.folder / "home")
        found = runner.run_script(lock.parent / "read.py", *names, env=env, cwd=lock.parent).ok()
        assert found == digest_of(names), f"{lock}: other bytes"

    def guarded(self, what: str, act: Callable[[], None]) -> None:
        """Do something; keep what went wrong."""
        try:
            act()
            self.done[what] += 1
        except (AssertionError, OSError) as error:
            self.failures.append(f"{what}: {error}")

    def publisher(self, number: int) -> None:
        """Publish lists at random; read each; forget it, but one now and then."""
        chosen, turn = random.Random(number), 0
        while not self.stop.is_set():
            turn += 1
            stays = turn % _KEPT == 0
            some = chosen.sample(STAYS, 2) if stays else [OWN[number], *chosen.sample(POOL, 3)]
            names, folder = sorted(some), self.folder / f"publisher-{number}-{turn}"

            def publish(folder: Path = folder, names: list[str] = names, stays: bool = stays) -> None:
                lock = self.publish(folder, names)
                self.read(lock, names, folder / "cache")
                if stays:
                    self.kept.append((lock, names))
                else:
                    self.run("forget", requirements_digest([f"{name}==1" for name in names])).ok()

            self.guarded("publish", publish)

    def reader(self, number: int) -> None:
        """Read what stays, and what publishers have kept, each time with an empty cache."""
        chosen, turn = random.Random(1000 + number), 0
        while not self.stop.is_set():
            lock, names = chosen.choice([(self.folder / "read" / "cloudimport.lock", list(READ)), *self.kept])
            cache = self.folder / f"reader-{number}-{turn}"
            turn += 1
            self.guarded("read", lambda lock=lock, names=names, cache=cache: self.read(lock, names, cache))  # type: ignore[misc]
            self.stop.wait(0.2)

    def damage(self, chosen: random.Random, number: int) -> tuple[str, bool]:
        """Damage or remove an object that nobody reads; return its key, and whether needs are known still."""
        found = [key for name in DAMAGED for key in self.store.list(f"packages/{name}/")]
        index = read_lock(self.folder / "damaged" / "cloudimport.lock").targets[TARGET].digest
        known = [
            key for key in found if any(f"/{kind}-" in key for kind in ("pack", "content", "provenance"))
        ]
        others = [*(key for key in found if key not in known), keys.environment_index(index)]
        is_known = number % 5 != 4
        key = chosen.choice(sorted(known if is_known else others))
        data = self.store.read_versioned(key)
        assert data is not None
        bad = chosen.choice([None, data[0][:-1], data[0][:20] + b"?" + data[0][21:]])
        if bad is None:
            self.store.delete(key)
        else:
            self.store.put(key, bad)
        return key, is_known

    def round(self, chosen: random.Random, number: int, pool: ThreadPoolExecutor) -> None:
        """Damage something, then collect and repair at once, beside all that run."""
        key, is_known = self.damage(chosen, number)
        grace = chosen.choice(["0", "0", "0.0001"])  # days: nothing, or 9 seconds
        collecting = pool.submit(self.run, "gc", "--delete", "--older-than", grace)
        ran = self.run("verify", "--repair", "--from", self.donor)
        collected = collecting.result()
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"repaired {key}" in ran.stdout.splitlines(), ran.stdout
        if collected.returncode == 0:
            self.done["objects deleted"] += int(collected.stdout.splitlines()[-1].split()[0])
        else:
            assert not is_known, collected.stderr
            assert "nothing is collected" in collected.stderr, collected.stderr
            self.done["refused"] += 1

    def needed(self) -> set[str]:
        """Return all keys that pointers lead to, and those of the shelf itself."""
        source = open_source(self.url, SourceConfig(environ=self.server))
        try:
            reach, found = Reach(source), set[str]()
            for one in environments(self.store):
                found.add(keys.environment_pointer(one.digest))
                for needs in reach.indexes(ref for _, ref in one.indexes()):
                    found |= needs.keys | reach.builds((pin, needs.target) for pin in needs.builds)
            walk = Walk(self.store, source)
            walk.check(lambda key: None)
            assert walk.damaged == {}
        finally:
            source.close()
        return found | {keys.SHELF, keys.STATUS, keys.COLLECTION}


def beside(world: World, rounds: int) -> None:
    """Run the rounds, then see that nothing is lost and that nothing is left that nothing needs."""
    world.publish(world.folder / "read", list(READ))
    world.publish(world.folder / "damaged", list(DAMAGED))
    lock = world.folder / "damaged" / "cloudimport.lock"
    run_shelf("promote", world.url, world.donor, "--lock", lock, env=world.environ).ok()
    chosen, began = random.Random(7), time.monotonic()
    with ThreadPoolExecutor(PUBLISHERS + READERS + 1) as pool:
        running = [pool.submit(world.publisher, number) for number in range(PUBLISHERS)]
        running += [pool.submit(world.reader, number) for number in range(READERS)]
        try:
            for number in range(rounds):
                before = world.done["publish"]
                world.round(chosen, number, pool)
                while world.done["publish"] < before + PUBLISHERS and not world.failures:
                    time.sleep(0.1)
                assert world.failures == []
        finally:
            world.stop.set()
            for one in running:
                one.result()
    assert world.failures == []
    took = time.monotonic() - began
    sys.stdout.write(
        f"{rounds} rounds in {took:.0f} s beside {PUBLISHERS} publishers and {READERS} readers: "
        f"{world.done['publish']} publishes, each read back, {world.done['read']} other reads, "
        f"{world.done['objects deleted']} objects deleted, {rounds} repaired; {world.done['refused']} "
        f"collections refused beside damage; {len(world.kept)} environments kept\n"
    )
    assert world.done["objects deleted"] > 0
    world.run("gc", "--delete", "--older-than", "0").ok()
    assert set(world.store.list("")) == world.needed()
    assert "0 problems" in world.run("verify").ok()
    everything = [
        (world.folder / name / "cloudimport.lock", list(of))
        for name, of in (("read", READ), ("damaged", DAMAGED))
    ]
    for number, (lock, names) in enumerate([*everything, *world.kept]):
        world.read(lock, names, world.folder / f"last-{number}")
    for one in environments(world.store):
        world.run("forget", one.digest, "--history").ok()
    world.run("gc", "--delete", "--older-than", "0").ok()
    assert set(world.store.list("")) == {keys.SHELF, keys.STATUS, keys.COLLECTION}


@pytest.fixture(params=["folder", pytest.param("radosgw", marks=pytest.mark.long)])
def world(request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]) -> World:
    """A shelf on each kind of store that lets racing publishers race."""
    if request.param == "folder":
        return World(tmp_path, str(tmp_path / "shelf"))
    server = request.getfixturevalue(request.param)
    return World(tmp_path, f"s3://{new_bucket(server)}/some/root", server.environ)


def test_a_few_rounds(world: World) -> None:
    """Nothing is lost, nothing that nothing needs is left."""
    beside(world, 3)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_a_hundred_rounds(world: World) -> None:
    """The same, a hundred times."""
    beside(world, 100)


def test_the_check_sees_what_is_left(tmp_path: Path) -> None:
    """An object that nothing needs, and one that is damaged, are seen by what ``beside`` ends with."""
    world = World(tmp_path, str(tmp_path / "shelf"))
    world.publish(tmp_path / "read", list(READ))
    assert set(world.store.list("")) | {keys.COLLECTION} == world.needed()
    stray = f"{keys.build_prefix('x', '1', TARGET)}pack-{sha256(b'x')}"
    world.store.put(stray, b"x")
    assert set(world.store.list("")) - world.needed() == {stray}
    assert garbage.build_of(stray) is not None
    world.store.put(next(key for key in world.store.list("packages/r0/") if "/pack-" in key), b"x")
    with pytest.raises(AssertionError):
        world.needed()
