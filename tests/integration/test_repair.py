"""``shelf verify --repair``: from another shelf, and from the package index again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cloudimport.errors import AbsentError, CorruptError
from cloudimport.format import keys
from cloudimport.format.layout import BuildPointer
from cloudimport.format.records import EnvironmentPointer, Ref, requirements_digest, sha256
from cloudimport.ids import Pin, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools import rebuild
from shelf_tools.builds import Blocks, read_provenance, verify_build
from shelf_tools.environments import verify_environments
from shelf_tools.interpreters import find_interpreter
from shelf_tools.limits import StageLimits
from shelf_tools.objects import Walk, plain
from shelf_tools.reach import BootList, pack_keys
from shelf_tools.rebuild import lay_down
from shelf_tools.repair import Repaired, repair
from shelf_tools.signing import new_key
from tests.support.children import Ran
from tests.support.localwheels import make_wheels, write_requirements
from tests.support.s3servers import S3Server
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import run_shelf
from tests.support.shelves import MadeShelf

TARGET = str(running_targets()[0])


@pytest.fixture(params=["folder", "moto", "radosgw"])
def shelf(
    request: pytest.FixtureRequest, tmp_path: Path, new_bucket: Callable[[S3Server], str]
) -> Iterator[MadeShelf]:
    """A shelf with an environment of two packages, a boot image, and a replaced index."""
    (tmp_path / "work").mkdir()
    url, environ = "", {}
    if request.param != "folder":
        server = request.getfixturevalue(request.param)
        url, environ = f"s3://{new_bucket(server)}/some/root", server.environ
    made = MadeShelf(tmp_path / "work", url, environ)
    fill(made)
    yield made
    made.source.close()


def fill(made: MadeShelf) -> None:
    """Publish the same to a shelf."""
    made.add("a", "1", {"a.py": "X = 1\n" * 100})
    ref = made.environment("a==1")
    made.add("b", "2", {"b.py": "import a\n" * 100, "b.bin": bytes(range(256)) * 100})
    made.environment("a==1", "b==2")
    key = keys.environment_pointer(requirements_digest(["a==1", "b==2"]))
    found = made.store.read_versioned(key)
    assert found is not None
    history = f'"history":[["{ref.digest}",{ref.stored},{ref.size}]]'.encode()
    made.store.put(key, found[0].replace(b'"history":[]', history))
    part = sha256(b"part")
    made.store.put(f"{keys.build_prefix('a', '1', TARGET)}boot-{part}", b"part")
    listed = BootList(ref.digest, TARGET, (("a", "1", part),))
    made.store.put(listed.key, listed.encode())


@pytest.fixture
def donor(tmp_path: Path) -> Iterator[MadeShelf]:
    """Another shelf that has the same."""
    (tmp_path / "donor").mkdir()
    made = MadeShelf(tmp_path / "donor")
    fill(made)
    yield made
    made.source.close()


def _nothing(_: object) -> None:
    return


def mend(shelf: MadeShelf, donor: MadeShelf) -> Repaired:
    """Repair a shelf from another."""
    return repair(shelf.store, shelf.source, lambda walk: donor.source, _nothing, _nothing, print)


def problems(shelf: MadeShelf) -> list[str]:
    """Return what is wrong with a shelf, by verifying and by reading every object."""
    found = [line for pin in shelf.builds for line in verify_build(shelf.source, pin, TARGET)]
    walk = Walk(shelf.store, shelf.source)
    walk.check(_nothing)
    return [*found, *verify_environments(shelf.store, shelf.source), *walk.damaged.values()]


def contents(shelf: MadeShelf) -> dict[str, bytes]:
    """Return every object; records as they are before they are compressed."""
    found = {}
    for key in shelf.store.list(""):
        data = shelf.store.read_versioned(key)
        assert data is not None
        found[key] = plain(key, data[0]) if keys.is_immutable(key) else data[0]
    return found


def test_every_object_is_repaired_from_another_shelf(shelf: MadeShelf, donor: MadeShelf) -> None:
    """Each object with a digest, and each build's pointer, damaged, cut off or gone, comes back as it was."""
    before = contents(shelf)
    others = {keys.SHELF, keys.STATUS}
    wanted = [key for key in before if key not in others and not (key.startswith("envs/") and ".json" in key)]
    assert len(wanted) == 14
    for number, key in enumerate(sorted(wanted)):
        found = shelf.store.read_versioned(key)
        assert found is not None
        if number % 3 == 0:
            shelf.store.delete(key)
        else:
            shelf.store.put(key, found[0][:-1] if number % 3 == 1 else found[0][:-1] + b"?")
        if key.startswith("boots/") and number % 3 == 0:  # nothing else names it, so nobody can miss it
            shelf.store.put(key, b"{}")
        assert problems(shelf), key
        done = mend(shelf, donor)
        assert done.done == [key]
        assert done.left == {}
        assert problems(shelf) == []
    assert contents(shelf) == before


def test_all_at_once(shelf: MadeShelf, donor: MadeShelf) -> None:
    """What a damaged index or layout leads to is found when that is sound again."""
    before = contents(shelf)
    keep = {keys.SHELF, keys.STATUS}
    for key in before:
        is_root = key in keep or (key.startswith("envs/") and key.endswith(".json"))
        if not is_root and not key.startswith("boots/"):
            shelf.store.delete(key)
    done = mend(shelf, donor)
    assert done.left == {}
    assert problems(shelf) == []
    assert contents(shelf) == before


def test_nothing_wrong_is_taken(shelf: MadeShelf, donor: MadeShelf) -> None:
    """What the donor has under the key with other bytes is refused, and a sound part is repaired."""
    (pack,) = [key for key in shelf.store.list("packages/b/") if "/pack-" in key]
    (layout,) = [key for key in shelf.store.list("packages/b/") if "/layout-" in key]
    pointer = keys.build_pointer("b", "2", TARGET)
    for key in (pack, layout, pointer):
        shelf.store.delete(key)
    donor.store.put(pack, b"other bytes")
    found = donor.store.read_versioned(pointer)
    assert found is not None
    other = BuildPointer.decode(found[0], pointer)._replace(content=Ref(sha256(b"other"), 1, 1))
    donor.store.put(pointer, other.encode())
    done = mend(shelf, donor)
    assert done.done == [layout]
    assert set(done.left) == {pack, pointer}
    assert "expected sha256" in done.left[pack]
    assert "not of the content that environments have" in done.left[pointer]
    assert shelf.store.read_versioned(pack) is None
    assert shelf.store.read_versioned(pointer) is None


def test_a_sound_shelf_asks_no_donor(shelf: MadeShelf) -> None:
    """Nothing is read from the donor, and nothing is written, if nothing is damaged."""

    def refuse(walk: Walk) -> MadeShelf:
        raise AssertionError

    before = contents(shelf)
    assert repair(shelf.store, shelf.source, refuse, _nothing, _nothing, print) == Repaired()  # type: ignore[arg-type]
    assert contents(shelf) == before


def test_the_command(tmp_path: Path) -> None:
    """Repaired from another shelf, it says what; the pointer of an environment is not, and it says why."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    shelf, donor = MadeShelf(tmp_path / "one"), MadeShelf(tmp_path / "two")
    fill(shelf)
    fill(donor)
    (pack,) = [key for key in shelf.store.list("packages/b/") if "/pack-" in key]
    (Path(shelf.url) / pack).unlink()
    ran = run_shelf("verify", "--shelf", shelf.url)
    assert ran.returncode == 1
    assert pack in ran.stderr
    assert "2 builds checked, 1 problem" in ran.stdout
    ran = run_shelf("verify", "--repair", "--from", donor.url, "--shelf", shelf.url)
    assert ran.ok().splitlines() == [
        f"repaired {pack}",
        "1 object repaired, 0 not",
        "2 builds checked, 0 problems",
    ]
    pointer = keys.environment_pointer(requirements_digest(["a==1"]))
    (Path(shelf.url) / pointer).write_bytes(b"{")
    ran = run_shelf("verify", "--repair", "--from", donor.url, "--shelf", shelf.url)
    assert ran.returncode == 1
    assert f"'shelf forget {pointer[5:17]}', and publish it again" in ran.stderr
    for arguments in (["--repair"], ["--from", donor.url], ["--repair", "--from-index", "a==1"]):
        ran = run_shelf("verify", *arguments, "--shelf", shelf.url)
        assert ran.returncode == 1
        assert "--repair" in ran.stderr
    assert run_shelf("verify", "--repair", "--from", "a", "--from-index").returncode == 2


def test_verify_sees_what_only_history_needs(tmp_path: Path) -> None:
    """A replaced index, a boot image's part and a pointer that is gone are problems too."""
    shelf = MadeShelf(tmp_path)
    fill(shelf)
    before = contents(shelf)
    only = keys.environment_pointer(requirements_digest(["a==1"]))
    shelf.store.delete(only)  # now the index of a alone is history of the other environment
    for key in before:
        is_boot = "/boot-" in key
        is_history = key in (keys.environment_index(digest) for digest in _history(shelf))
        if is_boot or is_history or key.endswith("a/1/" + TARGET + "/build.json"):
            data = (Path(shelf.url) / key).read_bytes()
            (Path(shelf.url) / key).unlink()
            ran = run_shelf("verify", "--shelf", shelf.url)
            assert ran.returncode == 1, key
            assert key in ran.stderr
            (Path(shelf.url) / key).parent.mkdir(parents=True, exist_ok=True)
            (Path(shelf.url) / key).write_bytes(data)
    assert problems(shelf) == []


def _history(shelf: MadeShelf) -> list[str]:
    key = keys.environment_pointer(requirements_digest(["a==1", "b==2"]))
    pointer = EnvironmentPointer.decode((Path(shelf.url) / key).read_bytes(), key)
    return [ref.digest for refs in pointer.history.values() for ref in refs]


class Curator:
    """Publishes local wheels to a folder, repairs, and compares."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shelf = folder, folder / "shelf"
        self.environ = make_wheels(folder / "wheels")
        self.requirements = write_requirements(folder / "requirements.txt")

    def run(self, *arguments: str | Path) -> Ran:
        """Run the command."""
        return run_shelf(*arguments, "--shelf", self.shelf, "--sandbox", "none", env=self.environ)

    def publish(self) -> None:
        """Publish the list."""
        self.run("publish", "-r", self.requirements).ok()

    def keys(self, kind: str, name: str = "") -> list[str]:
        """Return keys of a kind of object."""
        found = sorted(path.relative_to(self.shelf).as_posix() for path in self.shelf.rglob(f"*{kind}-*"))
        return [key for key in found if not name or key.startswith(f"packages/{name}/")]


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A shelf that was published from local wheels."""
    made = Curator(tmp_path)
    made.publish()
    return made


def test_from_the_index_again(curator: Curator, tmp_path: Path) -> None:
    """Packs, layouts, contents and indexes that are gone are fetched, installed, traced and packed again."""
    copy = tmp_path / "copy"
    shutil.copytree(curator.shelf, copy)
    gone = [*curator.keys("pack", "beta"), *curator.keys("layout", "beta"), *curator.keys("content", "gamma")]
    gone += [path.relative_to(curator.shelf).as_posix() for path in curator.shelf.glob("envs/*[0-9a-f]")]
    assert len(gone) == 4
    for key in gone:
        (curator.shelf / key).unlink()
    ran = curator.run("verify", "--repair", "--from-index")
    assert ran.ok().splitlines()[-2:] == ["4 objects repaired, 0 not", "3 builds checked, 0 problems"]
    for key in gone:
        assert plain(key, (curator.shelf / key).read_bytes()) == plain(key, (copy / key).read_bytes())


def test_a_pack_is_laid_down_as_its_layout_says(curator: Curator, tmp_path: Path) -> None:
    """Where the trace comes out another way, the layout on the shelf says how its packs were."""
    (pack,) = curator.keys("pack", "alpha")
    # Beside the list of the repair lies no recipe: published with one, it has another order.
    shutil.rmtree(curator.shelf)
    (tmp_path / "shelf-recipes.toml").write_text('[alpha]\neager = ["alpha/noise.bin"]\n')
    curator.run("publish", "-r", curator.requirements, "--level", "5").ok()
    (other,) = curator.keys("pack", "alpha")
    assert other != pack
    data = (curator.shelf / other).read_bytes()
    (curator.shelf / other).unlink()
    ran = curator.run("verify", "--repair", "--from-index")
    assert f"repaired {other}" in ran.ok().splitlines()
    assert (curator.shelf / other).read_bytes() == data


def test_another_wheel_is_not_taken(curator: Curator, tmp_path: Path) -> None:
    """The hash in the provenance says which wheel it was; the index has another one now."""
    (pack,) = curator.keys("pack", "beta")
    (curator.shelf / pack).unlink()
    make_wheels(tmp_path / "wheels", "another")
    ran = curator.run("verify", "--repair", "--from-index")
    assert ran.returncode == 1
    assert "does not have the hash in the list" in ran.stdout + ran.stderr
    assert not (curator.shelf / pack).exists()
    # Without provenance nothing says which wheel; the content does.
    (whence,) = curator.keys("provenance", "beta")
    (curator.shelf / whence).unlink()
    ran = curator.run("verify", "--repair", "--from-index")
    assert ran.returncode == 1
    assert "was built again with content" in ran.stderr.replace("\n", " ")
    assert not (curator.shelf / pack).exists()


def test_built_again_as_it_was_published(curator: Curator, tmp_path: Path) -> None:
    """Limits of a file and of flags, the indexes of a list, and an interpreter, as ``publish`` has them."""
    bubblewrap()
    pin = Pin.parse("beta==2")
    pointer = curator.shelf / keys.build_pointer(*pin, TARGET)
    pointer.unlink()
    there = tmp_path / "lists"
    there.mkdir()
    (there / "requirements.txt").write_text("--find-links ../wheels\nbeta==2\n")
    (there / "shelf.toml").write_text("[limits.install]\nmemory = '1GiB'\nprocesses = 33\n")
    env = {name: value for name, value in curator.environ.items() if name != "PIP_FIND_LINKS"}

    def repair(*arguments: str) -> Ran:
        command = ("verify", "--repair", "--from-index", "--shelf", curator.shelf, *arguments)
        return run_shelf(*command, env=env, cwd=tmp_path)

    ran = repair()
    assert ran.returncode == 1
    assert not pointer.exists()
    listed = ("-r", "lists/requirements.txt")
    ran = repair(*listed, "--python", "/bin/true")
    assert ran.returncode == 1
    assert "/bin/true is not a CPython (with a GIL) of a version that is published for" in ran.stderr
    interpreter = find_interpreter(running_targets()[0])
    assert interpreter is not None
    # It says that it is of a patch release that no other is of.
    python = tmp_path / "some-python"
    other = r's/("version": \[[0-9]+, [0-9]+, )[0-9]+/\199/'
    python.write_text(f"#!/bin/sh\n{interpreter.executable} \"$@\" | sed -E '{other}'\n")
    python.chmod(0o755)
    repair(*listed, "--python", "some-python", "--install-processes", "44", "--trace-wall-time", "2min").ok()
    given = {"install": {"memory": 1 << 30, "processes": 44}, "trace": {"wall-time": 120}}
    expected = StageLimits.of(given)
    with closing(open_source(str(curator.shelf), SourceConfig(environ={}))) as source:
        made = read_provenance(source, pin, TARGET)
    assert made["limits"] == {"install": vars(expected.install), "trace": vars(expected.trace)}
    major, minor = running_targets()[0].python
    assert made["tools"]["interpreter"].startswith(f"CPython {major}.{minor}.99 ")
    pointer.unlink()
    (tmp_path / "other.toml").write_text("[limits.install]\nlargest-file = '1KiB'\n")
    ran = repair(*listed, "--config", "other.toml")
    assert ran.returncode == 1
    assert "--install-largest-file" in ran.stdout + ran.stderr
    for flag in (listed, ("--config", "other.toml"), ("--python", "x"), ("--build-processes", "9")):
        ran = run_shelf("verify", "--shelf", curator.shelf, *flag, cwd=tmp_path)
        assert ran.returncode == 1
        assert "-r, --config, --python and limits are for --from-index" in ran.stderr


def test_what_has_to_be_signed_again(curator: Curator, tmp_path: Path) -> None:
    """A signed build whose pointer is put back without its signature is named, with what to do; one that
    comes with it from another shelf is not, nor is one that nobody has signed.
    """
    new_key(tmp_path / "key")
    copy = tmp_path / "copy"
    pointer = keys.build_pointer("beta", "2", TARGET)
    (curator.shelf / pointer).unlink()
    assert "key sign" not in curator.run("verify", "--repair", "--from-index").stderr
    shutil.rmtree(curator.shelf)
    publish = ("publish", "-r", curator.requirements, "--sign", tmp_path / "key")
    curator.run(*publish).ok()
    shutil.copytree(curator.shelf, copy)
    (curator.shelf / pointer).unlink()
    ran = curator.run("verify", "--repair", "--from", copy)
    assert f"repaired {pointer}" in ran.ok()
    assert "key sign" not in ran.stderr
    (curator.shelf / pointer).unlink()
    ran = curator.run("verify", "--repair", "--from-index")
    assert f"repaired {pointer}" in ran.ok()
    said = f"note: beta==2 for {TARGET} is not signed by those who signed environments that have it"
    assert said in ran.stderr
    assert "alpha==1" not in ran.stderr
    assert curator.run(*publish).returncode == 1
    run_shelf("key", "sign", tmp_path / "key", "beta==2", "--shelf", curator.shelf).ok()
    curator.run(*publish).ok()


def test_what_is_in_no_environment_is_not_built_again(curator: Curator) -> None:
    """Nobody knows what would have to be beside it: it says what to do."""
    for path in curator.shelf.glob("envs/*"):
        path.unlink()
    (pack,) = curator.keys("pack", "beta")
    (curator.shelf / pack).unlink()
    ran = curator.run("verify", "--repair", "--from-index")
    assert ran.returncode == 1
    assert f"beta==2 for {TARGET} is in no environment: 'shelf gc' takes it" in ran.stdout + ran.stderr


def test_lay_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of many blocks, shared bytes, raw blocks, bytecode; made of a build in another order."""
    files = {
        "p/a.py": "A = 1\n" * 2000,
        "p/b.py": "A = 1\n" * 2000,
        "p/big.bin": bytes(range(256)) * 8000,
        "p/raw.bin": sha256(b"x").encode() + random.Random(1).randbytes(400_000),
        "p/empty.txt": "",
    }
    made = []
    for name, opened in (("one", [("p/b.py", True)]), ("two", [("p/big.bin", False), ("p/a.py", True)])):
        (tmp_path / name).mkdir()
        shelf = MadeShelf(tmp_path / name)
        made.append((shelf, shelf.add("p", "1", files, opened=opened)))
    (shelf, built), (other, again) = made
    assert built.content_digest == again.content_digest
    assert built.layout.packs != again.layout.packs
    (key,) = pack_keys(built.layout)
    found = lay_down(built.layout, key, again, Blocks(other.source, again))
    assert found == shelf.source.read(key)
    monkeypatch.setattr(rebuild, "compress", lambda data, level: b"another zstd")
    with pytest.raises(AbsentError, match="did not come out as it was"):
        lay_down(built.layout, key, again, Blocks(other.source, again))
    shelf.source.close()
    other.source.close()


def test_plain_checks_every_kind(tmp_path: Path) -> None:
    """An object is of its key's digest, whichever way it is stored."""
    shelf = MadeShelf(tmp_path)
    fill(shelf)
    seen = set()
    for key in shelf.store.list(""):
        if not keys.is_immutable(key) and not key.startswith("boots/"):
            continue
        seen.add(key.rpartition("/")[2].partition("-")[0][:4])
        data = (Path(shelf.url) / key).read_bytes()
        assert plain(key, data)
        for bad in (b"", data[:-1], data + b"x", b"x" + data):
            with pytest.raises(CorruptError, match="expected sha256"):
                plain(key, bad)
    assert seen >= {"cont", "layo", "prov", "pack", "boot"}
