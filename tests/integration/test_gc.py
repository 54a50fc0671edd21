"""``shelf gc`` and ``shelf forget``: what goes, what stays, and what happens beside writers."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudimport.errors import AbsentError, ConfigurationError, DeniedError, FormatError, UnreachableError
from cloudimport.format import keys
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, requirements_digest, sha256
from cloudimport.ids import Pin, running_targets
from shelf_tools import garbage, leases
from shelf_tools.builds import read_build, verify_build
from shelf_tools.environments import verify_environments
from shelf_tools.forget import forget, read_wanted
from shelf_tools.garbage import Plan
from shelf_tools.leases import LostTurnError, Turn, collecting, holding, read_leases
from shelf_tools.reach import BootList
from shelf_tools.status import read_status, yank
from tests.support.children import Runner
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf
from tests.support.stacks import opened

TARGET = str(running_targets()[0])
DAY = 86400.0
#: Keys of the shelf itself.
OWN = {keys.SHELF, keys.STATUS}


@pytest.fixture
def shelf(tmp_path: Path) -> MadeShelf:
    """A shelf in a folder."""
    (tmp_path / "work").mkdir()
    return MadeShelf(tmp_path / "work")


@pytest.fixture(params=["folder", "moto", "radosgw", "fsspec-local"])
def any_shelf(
    request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]
) -> Iterator[MadeShelf]:
    """A shelf on each kind of store."""
    (tmp_path / "work").mkdir()
    url, environ = {"folder": "", "fsspec-local": f"local://{tmp_path}/foreign"}.get(request.param), {}
    if url is None:
        server = request.getfixturevalue(request.param)
        url, environ = f"s3://{new_bucket(server)}/some/root", server.environ
    made = MadeShelf(tmp_path / "work", url, environ)
    yield made
    made.source.close()


def module(name: str) -> dict[str, str | bytes]:
    """Return the files of a small package that nothing else has."""
    return {f"{name}.py": f"NAME = {name!r}\n" * 50, f"{name}.data": os.urandom(1000)}


def look(shelf: MadeShelf, days: float = 0.0, later: float = 0.0) -> Plan:
    """Return what would go, ``later`` seconds from now."""
    return garbage.look(shelf.store, shelf.source, days * DAY, time.time() + later)


def collect(shelf: MadeShelf, days: float = 0.0, later: float = 0.0) -> Plan:
    """Delete what nothing needs, as if it were ``later`` seconds from now."""
    with pytest.MonkeyPatch.context() as patch:
        original = Turn.now
        patch.setattr(Turn, "now", lambda turn: (original(turn) or 0.0) + later)
        now = time.time() + later
        return garbage.collect(shelf.store, shelf.source, days * DAY, now, print, _nothing, _nothing)


def _nothing(_: object) -> None:
    return


def there(shelf: MadeShelf) -> set[str]:
    """Return every key but those of the shelf itself, and the flag of collections."""
    return set(shelf.store.list("")) - OWN - {keys.COLLECTION}


def sound(shelf: MadeShelf, *pins: str) -> bool:
    """Whether pins and all environments verify."""
    found = [line for pin in pins for line in verify_build(shelf.source, Pin.parse(pin), TARGET)]
    found += verify_environments(shelf.store, shelf.source)
    assert found == []
    return True


def forgotten(shelf: MadeShelf, named: str, *, history: bool = False) -> Any:
    """Forget an environment."""
    return forget(shelf.store, read_wanted(named, (), history)[0])


def test_what_no_environment_needs_goes(any_shelf: MadeShelf, tmp_path: Path) -> None:
    """A dry run changes nothing and says what would go; then just that goes, and the rest reads as before."""
    shelf = any_shelf
    for name in ("a", "b", "c"):
        shelf.add(name, "1", module(name))
    kept = shelf.environment("a==1", "b==1")
    needed = there(shelf) - {key for key in there(shelf) if key.startswith("packages/c/")}
    shelf.environment("b==1", "c==1")
    forgotten(shelf, str(shelf.lock))
    before = there(shelf)
    plan = look(shelf)
    assert there(shelf) == before
    assert {entry.key for entry in plan.garbage} == before - needed
    assert plan.size == sum(entry.size for entry in shelf.store.entries("") if entry.key in before - needed)
    done = collect(shelf)
    assert (done.objects, done.size) == (plan.objects, plan.size)
    assert there(shelf) == needed
    assert look(shelf).objects == 0
    assert sound(shelf, "a==1", "b==1")
    assert read_build(shelf.source, Pin.parse("c==1"), TARGET) is None
    with opened(shelf.url, kept, tmp_path / "cache", environ=shelf.environ) as stack:
        assert b"NAME = 'a'" in stack.read("a.py")


def test_the_grace_period(any_shelf: MadeShelf) -> None:
    """What was written within it stays, by the store's own clock, and all that it leads to."""
    any_shelf.add("a", "1", module("a"))
    stray = f"{_prefix('b')}pack-{sha256(b'b')}"
    any_shelf.store.put(stray, b"b")
    before = there(any_shelf)
    plan = collect(any_shelf, days=1, later=DAY - 100)
    assert {entry.key for entry in plan.young} == before
    assert plan.objects == 0
    assert there(any_shelf) == before
    assert collect(any_shelf, days=1, later=DAY + 100).objects == len(before)
    assert there(any_shelf) == set()


def _prefix(name: str) -> str:
    return keys.build_prefix(name, "1", TARGET)


def test_a_young_build_keeps_what_is_older(shelf: MadeShelf) -> None:
    """What the pointer of a build leads to stays as long as the pointer, whatever its own age."""
    shelf.add("a", "1", module("a"))
    before = there(shelf)
    for key in before - {f"{_prefix('a')}build.json"}:
        _age(shelf, key, 10)
    assert look(shelf, days=7).objects == 0
    _age(shelf, f"{_prefix('a')}build.json", 10)
    assert look(shelf, days=7).objects == len(before)


def _age(shelf: MadeShelf, key: str, days: float) -> None:
    """Make a file older."""
    then = time.time() - days * DAY
    os.utime(Path(shelf.url) / key, (then, then))


def test_history_stays_until_it_is_forgotten(shelf: MadeShelf, tmp_path: Path) -> None:
    """Forgetting an environment leaves the indexes that were replaced to those whose lockfiles pin them."""
    shelf.add("a", "1", module("a"))
    shelf.add("b", "1", module("b"))
    # Two indexes of one list: by another build of b, as after a better layout.
    first = shelf.environment("a==1")
    lines = ["a==1"]
    key = keys.environment_pointer(requirements_digest(lines))
    second = Ref(first.digest, first.stored, first.size)
    both = shelf.environment("a==1", "b==1")
    pointer = EnvironmentPointer(tuple(lines), {TARGET: both}, {TARGET: (second,)})
    (Path(shelf.url) / key).write_bytes(pointer.encode())
    digest = requirements_digest(["a==1", "b==1"])
    forgotten(shelf, digest)
    done = forgotten(shelf, requirements_digest(lines))
    assert (done.indexes, done.current, done.replaced) == (1, 0, 1)
    collect(shelf)
    assert not any(found.startswith("packages/b/") for found in there(shelf))
    with opened(shelf.url, first, tmp_path / "cache") as stack:
        assert stack.read("a.py")
    done = forgotten(shelf, requirements_digest(lines), history=True)
    assert (done.indexes, done.replaced) == (1, 0)
    collect(shelf)
    assert there(shelf) == set()


def test_publishing_again_takes_a_history_over(shelf: MadeShelf) -> None:
    """An environment that was forgotten but for its history has it still when it is published again."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    key = keys.environment_pointer(requirements_digest(["a==1"]))
    old = Ref(sha256(b"old"), 1, 1)
    (Path(shelf.url) / key).write_bytes(EnvironmentPointer(("a==1",), {}, {TARGET: (old,)}).encode())
    assert b'"kept"' in (Path(shelf.url) / key).read_bytes()
    shelf.environment()
    found = EnvironmentPointer.decode((Path(shelf.url) / key).read_bytes(), "it")
    assert found == EnvironmentPointer(("a==1",), {TARGET: ref}, {TARGET: (old,)})
    assert b'"kept"' not in (Path(shelf.url) / key).read_bytes()


@pytest.mark.parametrize("by", ["requirements", "lock", "digest", "index"])
def test_ways_to_name_an_environment(shelf: MadeShelf, by: str) -> None:
    """By the list, by a lockfile, by digits of the requirements' digest or of an index's."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    shelf.add("b", "1", module("b"))
    kept = shelf.environment("b==1")
    lock, requirements = shelf.lock.read_text(), shelf.requirements.read_text()
    shelf.environment("a==1")
    named = {
        "requirements": str(shelf.requirements),
        "lock": str(shelf.lock),
        "digest": requirements_digest(["a==1"])[:9],
        "index": ref.digest[:9],
    }[by]
    assert forgotten(shelf, named).indexes == 1
    collect(shelf)
    assert {key.split("/")[1] for key in there(shelf) if key.startswith("packages/")} == {"b"}
    assert keys.environment_index(kept.digest) in there(shelf)
    shelf.lock.write_text(lock)
    shelf.requirements.write_text(requirements)
    assert run_shelf("forget", shelf.lock, "--shelf", shelf.url).ok().startswith("file://")
    again = run_shelf("forget", shelf.lock, "--shelf", shelf.url)
    assert again.returncode == 1
    assert "nothing of that kind to forget" in again.stderr


def test_a_lock_of_a_replaced_index_names_just_that(shelf: MadeShelf) -> None:
    """A lockfile's index goes, be it one that was replaced; what is there now stays."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    key = Path(shelf.url) / keys.environment_pointer(requirements_digest(["a==1"]))
    old = Ref(sha256(b"old"), 1, 1)
    pointer = EnvironmentPointer(("a==1",), {TARGET: ref}, {TARGET: (old,)})
    key.write_bytes(pointer.encode())
    text = shelf.lock.read_text().replace(ref.digest, old.digest)
    shelf.lock.write_text(text)
    done = forgotten(shelf, str(shelf.lock))
    assert (done.indexes, done.current, done.replaced) == (1, 1, 0)
    assert EnvironmentPointer.decode(key.read_bytes(), "it").targets == {TARGET: ref}


def test_only_one_target_is_forgotten(shelf: MadeShelf) -> None:
    """With a target the others stay, and so does what is not known of the pointer's keys."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    key = Path(shelf.url) / keys.environment_pointer(requirements_digest(["a==1"]))
    other = "cp310-manylinux_2_28_aarch64"
    pointer = EnvironmentPointer(("a==1",), {TARGET: ref, other: ref}, {}).encode()
    key.write_bytes(pointer.replace(b'"history":[]', b'"history":[],"later":[7]'))
    assert forget(shelf.store, read_wanted(str(shelf.requirements), [TARGET], False)[0]).current == 1
    found = key.read_bytes()
    assert EnvironmentPointer.decode(found, "it").targets == {other: ref}
    assert b'"later":[7]' in found


@pytest.mark.parametrize("named", ["abc", "none.txt", "0123456g89"])
def test_what_cannot_be_an_environment(shelf: MadeShelf, named: str) -> None:
    """Neither file nor digits: the error says what can be given."""
    with pytest.raises(ConfigurationError, match="shelf ls --envs"):
        read_wanted(named, (), False)
    with pytest.raises(ConfigurationError, match="has no environment 0123456789ab"):
        forgotten(shelf, "0123456789abcdef")


def test_a_damaged_environment_can_be_forgotten(shelf: MadeShelf) -> None:
    """What nobody can read stops a collection, which says so, until it is forgotten."""
    shelf.add("a", "1", module("a"))
    shelf.environment()
    digest = requirements_digest(["a==1"])
    (Path(shelf.url) / keys.environment_pointer(digest)).write_bytes(b"{")
    with pytest.raises(FormatError, match="is not JSON"):
        look(shelf)
    forgotten(shelf, digest)
    assert collect(shelf).objects > 0
    assert there(shelf) == set()


def test_nothing_is_collected_where_needs_are_unknown(shelf: MadeShelf) -> None:
    """An index, or a build's pointer, that is damaged or gone stops the collection, with what to do."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    shelf.add("b", "1", module("b"))
    index = Path(shelf.url) / keys.environment_index(ref.digest)
    pointer = Path(shelf.url) / keys.build_pointer("a", "1", TARGET)
    before = there(shelf)
    for path, data in ((index, b"x"), (pointer, b"{"), (index, None)):
        sound_bytes = path.read_bytes()
        path.unlink() if data is None else path.write_bytes(data)
        with pytest.raises(FormatError, match=r"nothing is collected.*verify --repair"):
            collect(shelf)
        path.write_bytes(sound_bytes)
    assert there(shelf) == before


def test_what_a_writer_holds_stays(any_shelf: MadeShelf) -> None:
    """Builds in a lease stay, finished or not, and indexes of its environments; the rest goes as ever."""
    shelf = any_shelf
    shelf.add("a", "1", module("a"))
    shelf.add("b", "1", module("b"))
    shelf.store.put(
        f"{_prefix('c')}pack-{sha256(b'c')}", b"c"
    )  # of a writer that has not come to its pointer
    shelf.environment("a==1")
    forgotten(shelf, str(shelf.requirements))
    digest = requirements_digest(["a==1"])
    builds = [(Pin.parse(pin), TARGET) for pin in ("a==1", "c==1")]
    with holding(shelf.store, builds, [digest]):
        plan = collect(shelf)
        assert {entry.key.split("/")[1] for entry in plan.garbage} == {"b"}
        left = {key.split("/")[1] for key in there(shelf) if key.startswith("packages/")}
        assert left == {"a", "c"}
        assert sum(key.startswith("envs/") for key in there(shelf)) == 2
        assert look(shelf).held
    collect(shelf)
    assert there(shelf) == set()


def test_a_lease_lapses(shelf: MadeShelf) -> None:
    """What a killed writer had announced is honoured for a day, and then goes with its lease."""
    shelf.add("a", "1", module("a"))
    lease = leases.Lease(shelf.store, [(Pin.parse("a==1"), TARGET)], [])
    lease.put()
    assert look(shelf).objects == 0
    assert collect(shelf, later=DAY - 60).objects == 0
    collect(shelf, later=DAY + 60)
    assert there(shelf) == set()


def test_a_lease_is_renewed_and_not_relied_on_for_ever(
    shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long publish writes its lease again; one that slept too long stops before it points to anything."""
    clock = [1000.0]
    monkeypatch.setattr(leases, "_clock", lambda: clock[0])
    with holding(shelf.store, [(Pin.parse("a==1"), TARGET)]) as lease:
        (key,) = shelf.store.list(keys.LEASES)
        _age(shelf, key, 2)
        clock[0] += 1800
        lease.keep()
        assert read_leases(shelf.store, time.time()).builds == frozenset()
        clock[0] += 3600
        lease.keep()
        assert read_leases(shelf.store, time.time()).builds == {(Pin.parse("a==1"), TARGET)}
        clock[0] += 23.5 * 3600
        with pytest.raises(ConfigurationError, match="run it again"):
            lease.keep()
    assert list(shelf.store.list(keys.LEASES)) == []


@pytest.mark.parametrize("data", [b"{", b'{"format":1,"kind":"lease"}', b'{"format":2,"kind":"lease"}'])
def test_a_lease_that_cannot_be_read_stops_a_collection(shelf: MadeShelf, data: bytes) -> None:
    """Nobody can tell what it holds."""
    shelf.add("a", "1", module("a"))
    shelf.store.put(f"{keys.LEASES}00.json", data)
    with pytest.raises(FormatError, match=r"leases/00\.json"):
        collect(shelf)
    assert read_build(shelf.source, Pin.parse("a==1"), TARGET) is not None


def test_what_is_forgotten_while_it_is_verified_is_no_problem(shelf: MadeShelf) -> None:
    """The environment is gone, or its pointer says another index, when the old one cannot be read."""
    shelf.add("a", "1", module("a"))
    shelf.environment()
    [key] = [key for key in shelf.store.list("envs/") if key.endswith(".json")]
    pointer = EnvironmentPointer.decode(shelf.source.read(key), key)
    [index] = [keys.environment_index(ref.digest) for ref in pointer.targets.values()]

    class Forgetful:
        """A source in whose course the environment is forgotten."""

        url = shelf.source.url

        def read(self, wanted: str, *args: int | None) -> bytes:
            """Read; the index is away, and its pointer just before."""
            if wanted == index:
                shelf.store.delete(key)
                raise AbsentError(f"{wanted} is not there", key=wanted)
            return shelf.source.read(wanted, *args)

    assert verify_environments(shelf.store, Forgetful()) == []  # type: ignore[arg-type]
    shelf.environment()
    shelf.store.delete(index)
    [problem] = verify_environments(shelf.store, shelf.source)
    assert index in problem


def test_a_flag_that_is_being_written_is_waited_for(shelf: MadeShelf) -> None:
    """Stores that write in steps show it empty for a moment."""
    shelf.store.put(keys.COLLECTION, b"")
    order: list[str] = []

    def write() -> None:
        with holding(shelf.store, []):
            order.append("writes")

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.5)
    order.append("written")
    shelf.store.put(keys.COLLECTION, b'{"beat":0,"deleting":"","format":1,"kind":"collection"}')
    writer.join(30)
    assert order == ["written", "writes"]


def test_a_writer_waits_while_a_collection_deletes(any_shelf: MadeShelf) -> None:
    """Who comes while the flag is up begins when it is down; a second collection waits too."""
    store, order, said = any_shelf.store, [], []

    def write() -> None:
        with holding(store, [], say=said.append):
            order.append("writes")

    def collect_too() -> None:
        with collecting(store):
            order.append("collects")

    with collecting(store):
        threads = [threading.Thread(target=act) for act in (write, collect_too)]
        for thread in threads:
            thread.start()
        time.sleep(1.0)
        order.append("ends")
    for thread in threads:
        thread.join(30)
    assert order[0] == "ends"
    assert sorted(order) == ["collects", "ends", "writes"]
    assert len(said) == 1
    assert "waiting for a collection" in said[0]
    assert list(store.list(keys.LEASES)) == []


def test_a_dead_collection_is_taken_down(shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that shows no life for long enough is taken down, one that does is not."""
    monkeypatch.setattr(leases, "_DEAD", 1.0)
    monkeypatch.setattr(leases, "_BEAT", 0.2)
    shelf.store.put(keys.COLLECTION, leases._flag("dead"))
    began = time.monotonic()
    with holding(shelf.store, []):
        assert time.monotonic() - began >= 1.0
    with collecting(shelf.store) as turn:
        waiting = threading.Thread(target=lambda: holding(shelf.store, []).__enter__())
        waiting.start()
        waiting.join(2.5)
        assert waiting.is_alive()
        turn.check()
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_collection_that_was_held_up_deletes_nothing_more(
    shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who could not show life in time, or whose flag was taken down, stops."""
    clock = [1000.0]
    monkeypatch.setattr(leases, "_clock", lambda: clock[0])
    shelf.add("a", "1", module("a"))
    before = there(shelf)
    original = shelf.store.delete
    deleted: list[str] = []

    def slow(key: str) -> None:
        original(key)
        deleted.append(key)
        clock[0] += 121  # the machine sleeps

    monkeypatch.setattr(shelf.store, "delete", slow)
    with pytest.raises(LostTurnError, match="run it again"):
        collect(shelf)
    assert deleted == [f"{_prefix('a')}build.json"]
    monkeypatch.setattr(shelf.store, "delete", original)
    assert len(there(shelf)) == len(before) - 1
    monkeypatch.setattr(leases, "_BEAT", 0.05)
    with collecting(shelf.store) as turn:
        shelf.store.put(keys.COLLECTION, leases._flag(""))
        time.sleep(0.5)
        with pytest.raises(LostTurnError, match="taken down"):
            turn.check()


@pytest.mark.parametrize("end", range(0, 11, 2))
def test_killed_at_any_deletion(shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch, end: int) -> None:
    """A collection that ends before any one deletion leaves whole builds; the next one takes the rest."""
    monkeypatch.setattr(garbage, "_DELETERS", 1)
    for name in ("a", "b"):
        shelf.add(name, "1", module(name))
    shelf.add("c", "1", module("c"))
    shelf.environment("c==1")
    needed = {key for key in there(shelf) if key.startswith(("packages/c/", "envs/"))}
    original, left = shelf.store.delete, [end]

    def dying(key: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise UnreachableError("gone", key=key)
        original(key)

    monkeypatch.setattr(shelf.store, "delete", dying)
    if end < 10:
        with pytest.raises(UnreachableError):
            collect(shelf)
    else:
        collect(shelf)
    monkeypatch.setattr(shelf.store, "delete", original)
    for name in ("a", "b", "c"):
        if read_build(shelf.source, Pin.of(name, "1"), TARGET) is not None:
            assert sound(shelf, f"{name}==1")
    collect(shelf)
    assert there(shelf) == needed


def test_boot_images_stay_with_their_index(shelf: MadeShelf) -> None:
    """The parts that a list names stay as long as the index is needed; others, and damaged lists, go."""
    shelf.add("a", "1", module("a"))
    ref = shelf.environment()
    parts = {name: sha256(name.encode()) for name in ("one", "two", "stray")}
    for name, digest in parts.items():
        shelf.store.put(f"{_prefix('a')}boot-{digest}", name.encode())
    for name in ("one", "two"):
        listed = BootList(ref.digest, TARGET, (("a", "1", parts[name]),))
        assert BootList.decode(listed.encode(), listed.key) == listed
        shelf.store.put(listed.key, listed.encode())
    damaged = keys.boot_list(ref.digest, sha256(b"x"))
    shelf.store.put(damaged, b"{}")
    plan = collect(shelf)
    assert {entry.key for entry in plan.garbage} == {f"{_prefix('a')}boot-{parts['stray']}", damaged}
    assert sum("/boot-" in key for key in there(shelf)) == 2
    forgotten(shelf, str(shelf.lock))
    collect(shelf)
    assert there(shelf) == set()


def test_what_is_of_no_shelf_is_left_alone(shelf: MadeShelf) -> None:
    """Keys that no shelf of this format has are counted and not touched, also if they look like it."""
    strange = {
        "README.md",
        "packages/a/1/notes.txt",
        f"packages/A/1/{TARGET}/build.json",
        f"packages/a/1.0/{TARGET}/build.json",
        f"packages/a/1/{TARGET}/pack-abc",
        "envs/other",
        "boots/x",
    }
    for key in strange:
        shelf.store.put(key, b"x")
    plan = collect(shelf)
    assert plan.objects == 0
    assert {entry.key for entry in plan.strange} == strange - {"README.md"}
    assert strange <= there(shelf)


def test_what_writers_left_unfinished_goes_after_a_day(shelf: MadeShelf) -> None:
    """A temporary file goes when it is older than any lease, whatever the grace period."""
    left = Path(shelf.url) / "packages" / ".tmp-1-abc"
    left.parent.mkdir()
    left.write_bytes(b"12345")
    assert collect(shelf).objects == 0
    plan = collect(shelf, later=DAY + 60)
    assert (plan.objects, plan.size) == (1, 5)
    assert not left.exists()


def test_uploads_that_may_not_be_listed_are_said(shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing them is another permission: without it the rest is collected, and it says so."""
    shelf.add("a", "1", module("a"))

    def deny() -> None:
        raise DeniedError("not for you")

    monkeypatch.setattr(shelf.store, "unfinished", deny)
    plan = collect(shelf)
    assert plan.objects > 0
    assert [note.endswith("not for you") for note in plan.notes] == [True]
    assert there(shelf) == set()


def test_a_store_without_conditional_writes_warns(tmp_path: Path) -> None:
    """No promise for two collections at once: it is said where it matters."""
    shelf = MadeShelf(tmp_path, f"local://{tmp_path}/foreign")
    assert "conditional writes" in run_shelf("gc", "--delete", "--shelf", shelf.url).stderr
    assert "conditional writes" not in run_shelf("gc", "--shelf", shelf.url).stderr
    folder = run_shelf("gc", "--delete", "--shelf", f"{tmp_path}/foreign")
    assert "conditional writes" not in folder.stderr
    folder.ok()
    shelf.source.close()


def test_a_forgotten_environment_is_not_published(shelf: MadeShelf, tmp_path: Path) -> None:
    """Who asks by its requirements is told so; who has its lockfile goes on until it is collected."""
    shelf.add("a", "1", module("a"))
    shelf.environment()
    forgotten(shelf, str(shelf.lock))
    code = "import cloudimport\ncloudimport.install({})\nimport a\nprint(a.NAME)\n"
    env = {"CLOUDIMPORT_SHELF": shelf.url, "CLOUDIMPORT_CACHE": str(tmp_path / "cache")}
    by_lock, by_list = f"lock={str(shelf.lock)!r}", f"requirements={str(shelf.requirements)!r}"
    runner = Runner(tmp_path / "home")
    assert runner.run(code.format(by_lock), env=env).ok() == "a"
    ran = runner.run(code.format(by_list), env=env)
    assert ran.returncode == 1
    assert "was published for no target" in ran.stderr
    collect(shelf)
    ran = runner.run(code.format(by_lock), env={**env, "CLOUDIMPORT_CACHE": str(tmp_path / "other")})
    assert ran.returncode == 1
    assert "AbsentError" in ran.stderr


def test_a_store_that_knows_no_times(shelf: MadeShelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where age is not known nothing goes but by a grace period of nothing, and leases do not lapse."""
    shelf.add("a", "1", module("a"))
    original = shelf.store.entries
    monkeypatch.setattr(
        shelf.store, "entries", lambda prefix: (one._replace(modified=None) for one in original(prefix))
    )
    with holding(shelf.store, [(Pin.parse("a==1"), TARGET)]):
        assert collect(shelf, days=0).objects == 0
    plan = garbage.look(shelf.store, shelf.source, DAY, time.time())
    assert plan.objects == 0
    collect_now = garbage.collect(shelf.store, shelf.source, 0.0, time.time(), print, _nothing, _nothing)
    assert collect_now.objects > 0
    assert there(shelf) == set()


@pytest.fixture
def published(shelf: MadeShelf) -> MadeShelf:
    """A shelf with an environment that was forgotten and one that was not."""
    shelf.add("a", "1", module("a"))
    shelf.add("b", "2.5", module("b"))
    shelf.environment("a==1")
    forget(shelf.store, read_wanted(str(shelf.requirements), (), False)[0])
    shelf.environment("b==2.5")
    return shelf


def test_the_command(published: MadeShelf) -> None:
    """Dry by default; it says what goes, by build, with sizes, and what stays and why."""
    before = there(published)
    ran = run_shelf("gc", "--shelf", published.url).ok().splitlines()
    assert ran[-1] == "0 objects, 0 bytes would go; 'shelf gc --delete' deletes it"
    assert any("written within --older-than" in line for line in ran)
    ran = run_shelf("gc", "--shelf", published.url, "--older-than", "0").ok().splitlines()
    (line,) = [line for line in ran if line.startswith("a==1 ")]
    assert line.startswith(f"a==1 {TARGET}: 5 objects, ")
    assert not any(line.startswith("b==2.5") for line in ran)
    assert there(published) == before
    ran = run_shelf("gc", "--shelf", published.url, "--older-than", "0", "--delete").ok().splitlines()
    assert ran[-1].endswith("bytes deleted")
    assert {key.split("/")[1] for key in there(published) if key.startswith("packages/")} == {"b"}
    assert run_shelf("verify", "--shelf", published.url).ok() == "1 build checked, 0 problems"
    assert run_shelf("gc", "--shelf", published.url, "--older-than", "-1").returncode == 2


def test_marks_of_yanked_pins_stay(any_shelf: MadeShelf) -> None:
    """A collection takes no status, and a mark is there still when its build is gone."""
    any_shelf.add("a", "1", module("a"))
    any_shelf.add("b", "1", module("b"))
    any_shelf.environment("b==1")
    for name in ("a", "b"):
        yank(any_shelf.store, Pin.parse(f"{name}==1"), "a hole")
    before = any_shelf.store.read_versioned(keys.STATUS)
    plan = collect(any_shelf)
    assert {keys.package_of(entry.key) for entry in plan.garbage} == {"a==1"}
    assert plan.strange == []
    after = any_shelf.store.read_versioned(keys.STATUS)
    assert before is not None
    assert after is not None
    assert after[0] == before[0]
    assert set(read_status(any_shelf.store).yanked) == {Pin.parse("a==1"), Pin.parse("b==1")}


def test_the_format_of_what_is_written(shelf: MadeShelf) -> None:
    """Leases, flags and lists of boot images have the bytes that docs/format.md says."""
    lease = leases.Lease(
        shelf.store, [(Pin.parse("b==1"), TARGET), (Pin.parse("a==2!1"), TARGET)], ["f", "e"]
    )
    assert lease.data == canonical(
        {
            "format": 1,
            "kind": "lease",
            "builds": [["a", "2!1", TARGET], ["b", "1", TARGET]],
            "environments": ["e", "f"],
        }
    )
    assert leases._flag("x", 2) == b'{"beat":2,"deleting":"x","format":1,"kind":"collection"}'
    digest = sha256(b"")
    assert BootList(digest, TARGET, (("a", "1", digest),)).encode() == canonical(
        {"format": 1, "kind": "boot", "index": digest, "target": TARGET, "parts": [["a", "1", digest]]}
    )
