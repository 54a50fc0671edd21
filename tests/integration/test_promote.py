"""``shelf promote``: from one shelf to another, byte for byte, in order, and again after an interruption."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError, CorruptError, UnreachableError
from cloudimport.format import keys
from cloudimport.format.lock import BootRange
from cloudimport.format.records import EnvironmentPointer, Ref, requirements_digest, sha256
from cloudimport.ids import Pin, running_targets
from shelf_tools import copying
from shelf_tools.builds import verify_build
from shelf_tools.environments import (
    check_lock,
    publish_environment,
    read_lock,
    replace_lock,
    verify_environments,
    write_lock,
)
from shelf_tools.leases import holding
from shelf_tools.promote import Promoted, PromoteError, Promotion
from shelf_tools.reach import BootList
from shelf_tools.signing import Signer, Signing, new_key, open_key
from shelf_tools.status import Mark, YankedPinsError, marks, read_status, yank
from shelf_tools.stores.folder import FolderStore
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf
from tests.support.stacks import opened

TARGET = str(running_targets()[0])
OWN = {keys.SHELF, keys.STATUS}


@pytest.fixture
def source(tmp_path: Path) -> MadeShelf:
    """A shelf with two environments that share a package."""
    (tmp_path / "work").mkdir()
    made = MadeShelf(tmp_path / "work")
    made.add("a", "1", {"a.py": "X = 1\n" * 100, "a.dat": random.Random(1).randbytes(100_000)})
    made.add("b", "2", {"b.py": "import a\n" * 100})
    made.add("c", "3", {"c.py": "X = 3\n" * 100})
    made.environment("a==1", "c==3")
    made.lock.rename(made.work / "other.lock")
    made.environment("a==1", "b==2")
    return made


@pytest.fixture(params=["folder", "moto", "radosgw", "fsspec-local"])
def destination(
    request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]
) -> Iterator[MadeShelf]:
    """Another shelf, on each kind of store, with nothing on it."""
    (tmp_path / "there").mkdir()
    url, environ = {"folder": "", "fsspec-local": f"local://{tmp_path}/foreign"}.get(request.param), {}
    if url is None:
        server = request.getfixturevalue(request.param)
        url, environ = f"s3://{new_bucket(server)}/some/root", server.environ
    made = MadeShelf(tmp_path / "there", url, environ)
    yield made
    made.source.close()


@pytest.fixture
def folder(tmp_path: Path) -> MadeShelf:
    """Another shelf in a folder."""
    (tmp_path / "there").mkdir()
    return MadeShelf(tmp_path / "there")


def promote(
    source: MadeShelf, destination: MadeShelf, *locks: Path, signers: Sequence[Signer] = ()
) -> Promoted:
    """Promote what lockfiles pin; all without."""
    promotion = Promotion(source.url, destination.url, destination.environ, signers)
    try:
        wanted = promotion.of_locks(locks) if locks else promotion.of_all()
        return promotion.run(wanted, lambda total: None, lambda name: None, print)
    finally:
        promotion.close()


def everything(shelf: MadeShelf) -> dict[str, bytes]:
    """Return every object but the shelf's own records."""
    found = {}
    for key in set(shelf.store.list("")) - OWN:
        data = shelf.store.read_versioned(key)
        assert data is not None
        found[key] = data[0]
    return found


def problems(shelf: MadeShelf, source: MadeShelf) -> list[str]:
    """Return what is wrong with the builds of ``source`` that a shelf has, and with its environments."""
    there = {key for key in shelf.store.list("packages/") if key.endswith("build.json")}
    pins = [pin for pin in source.builds if keys.build_pointer(*pin, TARGET) in there]
    found = [line for pin in pins for line in verify_build(shelf.source, pin, TARGET)]
    return found + verify_environments(shelf.store, shelf.source)


def test_all_of_a_shelf(source: MadeShelf, destination: MadeShelf, tmp_path: Path) -> None:
    """Every environment as it is now, byte for byte; what nothing needs stays behind, and is not copied."""
    source.add("unused", "1", {"unused.py": "X = 1\n"})
    done = promote(source, destination)
    wanted = {key: data for key, data in everything(source).items() if "/unused/" not in key}
    assert everything(destination) == wanted
    assert (done.indexes, done.builds) == (2, 3)
    assert done.objects == len([key for key in wanted if not key.endswith(".json")])
    again = promote(source, destination)
    assert (again.objects, again.builds) == (0, 3)
    assert everything(destination) == wanted
    assert problems(destination, source) == []
    ref = read_lock(source.lock).targets[TARGET]
    with opened(destination.url, ref, tmp_path / "cache", environ=destination.environ) as stack:
        assert stack.read("a.dat") == random.Random(1).randbytes(100_000)


def test_just_what_a_lock_pins(source: MadeShelf, folder: MadeShelf) -> None:
    """The environment of one lockfile, and no other."""
    done = promote(source, folder, source.lock)
    assert (done.indexes, done.builds) == (1, 2)
    assert {key.split("/")[1] for key in everything(folder) if key.startswith("packages/")} == {"a", "b"}
    promote(source, folder, source.work / "other.lock")
    assert everything(folder) == everything(source)


def test_what_was_there_becomes_history(source: MadeShelf, folder: MadeShelf) -> None:
    """An index that is replaced stays for those whose lockfiles pin it; so does what was history alone."""
    key = keys.environment_pointer(requirements_digest(["a==1", "b==2"]))
    old, older, other = (Ref(sha256(name), 1, 1) for name in (b"old", b"older", b"other"))
    there = EnvironmentPointer(("a==1", "b==2"), {TARGET: old}, {TARGET: (older,)})
    folder.store.put(key, there.encode().replace(b'"history"', b'"signed":[1],"history"'))
    promote(source, folder, source.lock)
    ref = read_lock(source.lock).targets[TARGET]
    found = EnvironmentPointer.decode((Path(folder.url) / key).read_bytes(), key)
    assert found == EnvironmentPointer(there.requirements, {TARGET: ref}, {TARGET: (older, old)})
    assert b"signed" not in (Path(folder.url) / key).read_bytes()
    kept = EnvironmentPointer(there.requirements, {}, {TARGET: (other,)})
    folder.store.put(key, kept.encode())
    promote(source, folder, source.lock)
    found = EnvironmentPointer.decode((Path(folder.url) / key).read_bytes(), key)
    assert found == EnvironmentPointer(there.requirements, {TARGET: ref}, {TARGET: (other,)})


def test_what_stands_beside_an_index_goes_with_it(source: MadeShelf, folder: MadeShelf) -> None:
    """Keys of a pointer that this version does not know, such as who signed it, go with the index that they
    are of; and the pointer of a build goes as it is.
    """
    key = keys.environment_pointer(requirements_digest(["a==1", "b==2"]))
    path = Path(source.url) / key
    path.write_bytes(path.read_bytes().replace(b'"history":[]', b'"history":[],"signed":["x"]'))
    build = Path(source.url) / keys.build_pointer("a", "1", TARGET)
    build.write_bytes(build.read_bytes().replace(b'"format"', b'"added":1,"format"'))
    promote(source, folder, source.lock)
    row = json.loads((Path(folder.url) / key).read_bytes())["targets"][TARGET]
    assert row["signed"] == ["x"]
    assert (Path(folder.url) / keys.build_pointer("a", "1", TARGET)).read_bytes() == build.read_bytes()
    # The lockfile is of another index than the pointer is now: what is beside that is not of it.
    pointer = json.loads(path.read_bytes())
    pointer["targets"][TARGET]["index"][0] = sha256(b"newer")
    path.write_text(json.dumps(pointer))
    promote(source, folder, source.lock)  # what is there is of the same index: it stays
    row = json.loads((Path(folder.url) / key).read_bytes())["targets"][TARGET]
    assert row["signed"] == ["x"]
    folder.store.delete(key)
    promote(source, folder, source.lock)
    row = json.loads((Path(folder.url) / key).read_bytes())["targets"][TARGET]
    assert "signed" not in row


def test_boot_images_go_along(source: MadeShelf, folder: MadeShelf) -> None:
    """Those that a lockfile names, or of all that are listed, with the list that keeps them."""
    ref = read_lock(source.lock).targets[TARGET]
    digest = sha256(b"part")
    row = BootRange("a", "1", digest, 0, 4, (0, 1))
    source.store.put(row.key(TARGET), b"part")
    listed = BootList(ref.digest, TARGET, (("a", "1", digest),))
    source.store.put(listed.key, listed.encode())
    replace_lock(source.lock, read_lock(source.lock)._replace(boots={TARGET: (row,)}))
    promote(source, folder, source.lock)
    assert everything(folder)[row.key(TARGET)] == b"part"
    assert everything(folder)[listed.key] == listed.encode()
    promote(source, folder)
    assert everything(folder) == everything(source)


def test_a_conflict_is_said_for_every_build(source: MadeShelf, folder: MadeShelf) -> None:
    """Other content of the same build: a line for each, with both digests, and no environment."""
    folder.add("a", "1", {"a.py": "X = 'other'\n"})
    folder.add("c", "3", {"c.py": "X = 'other'\n"})
    before = {key for key in everything(folder) if key.startswith(("packages/a", "packages/c"))}
    with pytest.raises(PromoteError) as caught:
        promote(source, folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    for line, pin in zip(sorted(lines), ("a==1", "c==3"), strict=True):
        assert line.startswith(pin)
        contents = {shelf.builds[one].content_digest for shelf in (source, folder) for one in shelf.builds}
        assert sum(digest in line for digest in contents) == 2
    now = everything(folder)
    assert {key for key in now if key.startswith(("packages/a", "packages/c"))} == before
    assert not any(key.startswith("envs/") for key in now)
    assert problems(folder, source) == []


def test_another_layout_is_no_conflict(source: MadeShelf, folder: MadeShelf, tmp_path: Path) -> None:
    """The same content laid down another way: what the index needs is put beside it, and it reads."""
    files = {"a.py": "X = 1\n" * 100, "a.dat": random.Random(1).randbytes(100_000)}
    folder.add("a", "1", files, opened=[("a.dat", False)])
    pointer = everything(folder)[keys.build_pointer("a", "1", TARGET)]
    promote(source, folder, source.lock)
    assert everything(folder)[keys.build_pointer("a", "1", TARGET)] == pointer
    with opened(folder.url, read_lock(source.lock).targets[TARGET], tmp_path / "cache") as stack:
        assert stack.read("a.dat") == files["a.dat"]
    assert problems(folder, source) == []


@pytest.mark.parametrize("kind", ["pack", "layout", "content", "provenance"])
def test_damage_does_not_travel(source: MadeShelf, folder: MadeShelf, kind: str) -> None:
    """What is not what its key says is not written, and no environment is."""
    (key,) = [key for key in source.store.list("packages/b/") if f"/{kind}-" in key]
    path = Path(source.url) / key
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(PromoteError, match="b==2"):
        promote(source, folder, source.lock)
    assert key not in everything(folder)
    assert keys.build_pointer("b", "2", TARGET) not in everything(folder)
    assert not any(found.startswith("envs/") for found in everything(folder))


def test_interrupted_at_any_write(
    source: MadeShelf, folder: MadeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it ends, readers of the destination find whole builds; the next run copies what is missing."""
    original, left, writes = FolderStore._temporary, [0], 0

    def failing(self: FolderStore, key: str, data: bytes | Path):  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0] < 0:
            raise UnreachableError("gone", key=key)
        return original(self, key, data)

    copied: list[Promoted] = []
    while writes < 50:
        monkeypatch.setattr(FolderStore, "_temporary", failing)
        left[0] = 4
        try:
            copied.append(promote(source, folder))
            break
        except (PromoteError, UnreachableError):
            writes += 1
        monkeypatch.setattr(FolderStore, "_temporary", original)
        assert problems(folder, source) == []
    assert writes >= 4
    assert copied[0].objects <= 1
    leases = {key for key in everything(folder) if key.startswith(keys.LEASES)}
    assert leases == set()
    assert everything(folder) == everything(source)


def test_a_large_pack_goes_in_pieces(
    source: MadeShelf, folder: MadeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read, checked and read back a few bytes at a time, never as a whole."""
    monkeypatch.setattr(copying, "_PIECE", 10_000)
    promote(source, folder)
    assert everything(folder) == everything(source)
    (key,) = [key for key in source.store.list("packages/a/") if "/pack-" in key]
    for found in set(everything(folder)) - {keys.SHELF}:
        folder.store.delete(found)
    path = Path(source.url) / key
    data = path.read_bytes()
    path.write_bytes(data[:50_000] + b"?" + data[50_001:])
    copier = copying.Copier(source.source, folder.store, folder.source)
    with pytest.raises(CorruptError, match="expected sha256"):
        copier.copy(key, len(data))
    assert everything(folder) == {}


def test_it_waits_for_a_collection_and_holds_a_lease(
    source: MadeShelf, folder: MadeShelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A promotion is a writer as a publish is: what it copies is held until there is a pointer."""
    seen = []

    def watching(*arguments):  # type: ignore[no-untyped-def]
        builds = list(arguments[1])
        seen.append((sorted(str(pin) for pin, _ in builds), sorted(arguments[2])))
        return holding(arguments[0], builds, *arguments[2:])

    monkeypatch.setattr("shelf_tools.promote.holding", watching)
    promote(source, folder, source.lock)
    assert seen == [(["a==1", "b==2"], [requirements_digest(["a==1", "b==2"])])]


def test_yanked_pins_are_refused(source: MadeShelf, folder: MadeShelf) -> None:
    """Pins that either shelf says are yanked are refused, each in a line, before anything is written."""
    folder.add("b", "2", {"b.py": "X = 'other'\n"})
    yank(source.store, Pin.parse("a==1"), "a hole")
    yank(source.store, Pin.parse("c==3"), "of another environment")
    yank(folder.store, Pin.parse("b==2"), "not here")
    before = everything(folder)
    with pytest.raises(YankedPinsError) as caught:
        promote(source, folder, source.lock)
    advice = "take another version, or promote it all the same with --allow-yanked"
    assert str(caught.value).splitlines() == [
        f"a==1 is yanked on {source.store.url}: a hole",
        f"b==2 is yanked on {folder.store.url}: not here; {advice}",
    ]
    assert everything(folder) == before
    assert read_status(folder.store).yanked == {Pin.parse("b==2"): "not here"}


def test_marks_go_along(source: MadeShelf, destination: MadeShelf, tmp_path: Path) -> None:
    """Yanked pins that are allowed take their marks along, with dates; what the other shelf says stays."""
    pins = [Pin.parse(text) for text in ("a==1", "b==2", "c==3")]
    for pin in pins:
        yank(source.store, pin, f"of {pin.name}")
    status = json.loads((Path(source.url) / keys.STATUS).read_bytes())
    status["since"] = {"a": {"1": 5}}
    (Path(source.url) / keys.STATUS).write_text(json.dumps(status))
    own = {"format": 1, "kind": "status", "yanked": {"b": {"2": "said here"}, "z": {"9": "old"}}, "other": 1}
    destination.store.put(keys.STATUS, json.dumps(own).encode())
    promotion = Promotion(source.url, destination.url, destination.environ)
    try:
        wanted = promotion.of_locks([source.lock])
        done = promotion.run(wanted, lambda total: None, lambda name: None, print, allow_yanked=True)
    finally:
        promotion.close()
    assert done.notes == (
        f"a==1 is yanked on {source.store.url}: of a",
        f"b==2 is yanked on {source.store.url}: of b",
        f"b==2 is yanked on {destination.store.url}: said here",
    )
    found = read_status(destination.store)
    assert marks(found) == {
        pins[0]: Mark("of a", 5),
        pins[1]: Mark("said here", None),
        Pin.parse("z==9"): Mark("old", None),
    }
    assert found.record["other"] == 1
    assert problems(destination, source) == []


def test_the_command_and_yanked_pins(source: MadeShelf, tmp_path: Path) -> None:
    """The flag is named by the error, and with it the pins are noted."""
    there = tmp_path / "prod"
    run_shelf("yank", "a==1", "--reason", "a hole", "--shelf", source.url).ok()
    ran = run_shelf("promote", source.url, there, cwd=source.work)
    assert ran.returncode == 1
    assert "a==1 is yanked on" in ran.stderr
    assert "--allow-yanked" in ran.stderr
    assert not (there / keys.SHELF).exists()
    ran = run_shelf("promote", source.url, there, "--allow-yanked", cwd=source.work)
    assert ran.ok().startswith("1 index and 2 builds on")
    assert f"note: a==1 is yanked on file://{source.url}: a hole" in ran.stderr
    assert run_shelf("yank", "--shelf", there).ok() == "a==1: a hole"


def test_to_itself(source: MadeShelf) -> None:
    """A shelf is not promoted to itself, however it is spelt."""
    with pytest.raises(ConfigurationError, match="to itself"):
        Promotion(source.url, f"file://{source.url}/", {})


def test_the_command(source: MadeShelf, tmp_path: Path) -> None:
    """With a lockfile for the other shelf, which can then be used, and verified."""
    there = tmp_path / "prod"
    ran = run_shelf("promote", source.url, there, "-o", tmp_path / "new.lock", cwd=source.work)
    assert ran.ok().startswith(f"1 index and 2 builds on {there}; 9 objects copied (")
    locked = read_lock(tmp_path / "new.lock")
    assert locked == read_lock(source.lock)._replace(shelf=str(there))
    assert run_shelf("verify", "--shelf", there).ok() == "2 builds checked, 0 problems"
    assert "2 indexes and 3 builds" in run_shelf("promote", source.url, there, "--all").ok()
    for arguments, words in (
        (("--all", "--lock", source.lock), "--all is more than --lock"),
        (("--all", "-o", "x"), "-o is for one lockfile"),
        (("--lock", "none.lock"), "none.lock cannot be read"),
    ):
        ran = run_shelf("promote", source.url, there, *arguments)
        assert ran.returncode == 1
        assert words in ran.stderr


LINES = ("a==1", "b==2")


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    """A curator's key, in a file."""
    return new_key(tmp_path / "key")


def sign(shelf: MadeShelf, *signers: Signer) -> Ref:
    """Publish the environment of two packages to a shelf again, signed."""
    builds = [shelf.builds[Pin.parse(line)] for line in LINES]
    return publish_environment(shelf.store, shelf.source, LINES, shelf.target, builds, print, signers)


def signed_by(shelf: MadeShelf) -> list[str]:
    """Return the keys whose signatures the environment has, all of them sound; and what a reader makes of
    them.
    """
    assert verify_environments(shelf.store, shelf.source) == []
    key = keys.environment_pointer(requirements_digest(LINES))
    found = EnvironmentPointer.decode((Path(shelf.url) / key).read_bytes(), key)
    return [one.key for one in found.signatures.get(TARGET, ())]


@pytest.mark.parametrize("by_lock", [True, False], ids=["lock", "all"])
def test_signatures_of_both_shelves(
    source: MadeShelf, destination: MadeShelf, signer: Signer, tmp_path: Path, by_lock: bool
) -> None:
    """The same index keeps the signatures that it has where it goes, beside those that come with it."""
    locks = [source.lock] if by_lock else []
    promote(source, destination, *locks)
    key = keys.environment_pointer(requirements_digest(LINES))
    destination.builds = source.builds
    sign(destination, signer)
    before = everything(destination)
    promote(source, destination, *locks)
    assert everything(destination) == before
    other = new_key(tmp_path / "other")
    sign(source, other)
    promote(source, destination, *locks)
    found = EnvironmentPointer.decode(everything(destination)[key], key)
    assert [one.key for one in found.signatures[TARGET]] == [signer.key, other.key]
    assert verify_environments(destination.store, destination.source) == []


@pytest.mark.parametrize("by_lock", [True, False], ids=["lock", "all"])
def test_nothing_signed_becomes_unsigned(
    source: MadeShelf, folder: MadeShelf, signer: Signer, by_lock: bool
) -> None:
    """An index without a signature does not replace one that has one; nothing is copied before that is said.

    Signed by whoever has signed the lockfile, or with a signature of its own, it does.
    """
    locks = [source.lock] if by_lock else []
    folder.add("a", "1", {"a.py": "X = 1\n" * 100, "a.dat": random.Random(1).randbytes(100_000)})
    folder.add("b", "2", {"b.py": "import a\n" * 100}, opened=[("b.py", False)])
    old = sign(folder, signer)
    before = everything(folder)
    with pytest.raises(PromoteError) as caught:
        promote(source, folder, *locks)
    assert f"is signed by {signer.key[:16]}, and what would take its place" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert everything(folder) == before
    ref = read_lock(source.lock).targets[TARGET]
    assert ref != old
    if by_lock:
        with pytest.raises(ConfigurationError, match=r"is not signed by .* as it stands"):
            promote(source, folder, source.lock, signers=[signer])
        source.lock.unlink()
        write_lock(source.lock, source.url, LINES, {TARGET: ref}, Signing((signer,)))
        promote(source, folder, source.lock, signers=[signer])
        assert signed_by(folder) == [signer.key]
        assert signed_by(source) == []
        return
    with pytest.raises(PromoteError, match="'shelf publish --sign KEYFILE' looks at what it signs"):
        promote(source, folder, signers=[signer])
    assert everything(folder) == before
    sign(source, signer)
    promote(source, folder)
    assert signed_by(folder) == [signer.key]


def test_the_command_and_a_signed_lock(source: MadeShelf, signer: Signer, tmp_path: Path) -> None:
    """A signed lockfile is of another shelf only if it is signed anew; that is said before anything is
    copied. What is signed where it would go is not replaced by what is not.
    """
    there, new = tmp_path / "prod", tmp_path / "new.lock"
    whole = source.lock.read_text()
    ref = sign(source, signer)
    source.lock.unlink()
    write_lock(source.lock, source.url, LINES, {TARGET: ref}, Signing((signer,)))

    def run(*arguments: str | Path) -> str:
        ran = run_shelf("promote", source.url, there, "-o", new, *arguments, cwd=source.work)
        assert ran.returncode == 1
        assert not there.exists()
        return ran.stderr

    assert f"{new} is signed and would change: give --sign KEYFILE" in run()
    other = new_key(tmp_path / "other")
    assert f"{new} is signed and would change: give --sign KEYFILE" in run("--sign", tmp_path / "other")
    assert not new.exists()
    key = tmp_path / "key"
    assert open_key(key).key == signer.key
    run_shelf("promote", source.url, there, "-o", new, "--sign", key, cwd=source.work).ok()
    locked = read_lock(new)
    assert (locked.shelf, locked.roots) == (str(there), (signer.key,))
    assert [one.key for one in locked.signatures] == [signer.key]
    check_lock(new, [signer])
    with pytest.raises(ConfigurationError, match="is not signed by"):
        check_lock(new, [other])
    source.lock.write_text(whole)
    ran = run_shelf("promote", source.url, there, "-o", new, cwd=source.work)
    assert ran.returncode == 1
    assert f"{new} is signed, and cloudimport.lock is not" in ran.stderr
    assert read_lock(new) == locked
