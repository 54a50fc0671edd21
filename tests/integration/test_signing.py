"""Signed environments, lockfiles and builds: who reads with a root runs what that key has signed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudimport.format.layout import BuildPointer
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, requirements_digest, sha256
from cloudimport.ids import running_targets
from shelf_tools.compressing import compress
from shelf_tools.signing import Signer, new_key
from tests.support.children import Ran, Runner
from tests.support.localwheels import PINS, make_wheels, write_requirements
from tests.support.s3servers import S3Server
from tests.support.shelfcommand import run_shelf

PROGRAM = """
import sys
import cloudimport
try:
    cloudimport.install()
except cloudimport.SignatureError as error:
    print("SignatureError", error)
else:
    import alpha
    print("imported", alpha.NAME, "cloudimport.format.ed25519" in sys.modules)
    print("requests", cloudimport.stats()["requests"], file=sys.stderr)
"""


@dataclass
class Place:
    """A curator's folder: requirements, a shelf, two keys; and readers that go by lock or by list."""

    folder: Path
    env: dict[str, str]
    url: str = ""

    def __post_init__(self) -> None:
        write_requirements(self.folder / "requirements.txt")
        self.keys: dict[str, Signer] = {name: new_key(self.folder / name) for name in ("one", "two")}

    @property
    def lock(self) -> Path:
        """The lockfile."""
        return self.folder / "cloudimport.lock"

    @property
    def pointer(self) -> Path:
        """The environment's pointer."""
        return self.folder / "shelf/envs" / f"{requirements_digest(PINS_AS_LINES)}.json"

    def shelf(self, *arguments: str) -> Ran:
        """Run a command with the shelf."""
        return run_shelf(*arguments, "--shelf", self.url or "shelf", env=self.env, cwd=self.folder)

    def publish(self, *arguments: str) -> Ran:
        """Publish the list."""
        return self.shelf("publish", "-r", "requirements.txt", "--level", "3", *arguments)

    def read(self, *, by_list: bool = False, **env: str) -> str:
        """Import in a fresh process with an empty cache; return what that says."""
        return self.ran(by_list=by_list, **env).ok()

    def ran(self, *, by_list: bool = False, **env: str) -> Ran:
        """Do that; return how it ended."""
        name = "CLOUDIMPORT_REQUIREMENTS" if by_list else "CLOUDIMPORT_LOCK"
        path = self.folder / "requirements.txt" if by_list else self.lock
        home = self.folder / f"home-{len(list(self.folder.glob('home-*')))}"
        settings = {name: str(path), "CLOUDIMPORT_SHELF": self.url or str(self.folder / "shelf"), **env}
        return Runner(home).run(PROGRAM, env=settings, cwd=self.folder / "handler")

    def edit_lock(self, change: Callable[[dict[str, object]], object]) -> None:
        """Change the lockfile as an attacker would."""
        record = json.loads(self.lock.read_text())
        change(record)
        self.lock.write_text(json.dumps(record, indent=1))


PINS_AS_LINES = ("alpha==1", "beta==2", "gamma==3")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Wheels in a folder."""
    assert len(PINS) == len(PINS_AS_LINES)
    return make_wheels(tmp_path_factory.mktemp("wheels"))


@pytest.fixture
def place(wheels: dict[str, str], tmp_path: Path) -> Place:
    """An empty shelf."""
    return Place(tmp_path, wheels)


def test_keys_are_made_and_shown(place: Place) -> None:
    """`shelf key new` makes a file for its owner alone and prints the public key; never replaces one."""
    made = run_shelf("key", "new", "three", cwd=place.folder).ok()
    assert len(bytes.fromhex(made)) == 32
    assert (place.folder / "three").stat().st_mode & 0o777 == 0o600
    assert run_shelf("key", "show", "three", cwd=place.folder).ok() == made
    again = run_shelf("key", "new", "three", cwd=place.folder)
    assert again.returncode == 1
    assert again.stderr == "shelf: error: three exists: a key is never replaced, name another file\n"
    (place.folder / "junk").write_text("junk")
    wrong = run_shelf("key", "show", "junk", cwd=place.folder)
    assert wrong.stderr == "shelf: error: junk is no key file: 'shelf key new FILE' makes one\n"


def test_signed_environment_and_lock(place: Place) -> None:
    """What is signed is imported, by the lock's root or the environment's; what another key signed is not.

    Who sets no root neither checks anything nor loads what would.
    """
    place.publish("--sign", "one").ok()
    one, two = (place.keys[name].key for name in ("one", "two"))
    assert place.read() == "imported alpha True"
    assert place.read(CLOUDIMPORT_ROOT=one) == "imported alpha True"
    assert place.read(CLOUDIMPORT_ROOT=f"{two}, {one}") == "imported alpha True"
    assert place.read(by_list=True) == "imported alpha False"
    assert place.read(by_list=True, CLOUDIMPORT_ROOT=one) == "imported alpha True"
    for by_list in (False, True):
        said = place.read(by_list=by_list, CLOUDIMPORT_ROOT=two)
        assert said.startswith("SignatureError"), said
        assert f"is signed by {one[:16]}, and has to be by {two[:16]}: sign it with" in said
        assert len(said.splitlines()) == 1
    assert place.shelf("verify").returncode == 0


def test_unsigned_is_refused(place: Place) -> None:
    """With a root, an environment or lock without a signature is one clear error; without one, no matter."""
    place.publish().ok()
    one = place.keys["one"].key
    assert place.read() == "imported alpha False"
    assert "cloudimport.lock is not signed, and has to be by" in place.read(CLOUDIMPORT_ROOT=one)
    said = place.read(by_list=True, CLOUDIMPORT_ROOT=one)
    assert said.startswith("SignatureError the environment of ")
    assert "is not signed, and has to be by" in said


@pytest.mark.parametrize(
    "root", ["", "xyz", "0" * 64, "01" + "0" * 62], ids=["none", "text", "small", "unit"]
)
def test_roots_that_are_none(place: Place, root: str) -> None:
    """CLOUDIMPORT_ROOT with anything but good public keys is an error, not a check less."""
    home = place.folder / "home"
    env = {"CLOUDIMPORT_LOCK": str(place.lock), "CLOUDIMPORT_ROOT": root or " "}
    ran = Runner(home).run("import cloudimport; cloudimport.install()", env=env)
    assert "ConfigurationError: CLOUDIMPORT_ROOT" in ran.stderr


def test_changed_lock(place: Place) -> None:
    """Whatever is changed in a signed lock, also what this version does not know, is refused."""
    place.publish("--sign", "one").ok()
    whole = place.lock.read_text()
    other = {"index": ["0" * 64, 1, 1]}
    changes: dict[str, Callable[[dict[str, object]], object]] = {
        "shelf": lambda record: record.update(shelf="s3://elsewhere/shelf"),
        "index": lambda record: next(iter(record["targets"].values())).update(other),
        "target": lambda record: record["targets"].update({"cp310-manylinux_2_17_x86_64": other}),
        "unknown": lambda record: record.update(later=1),
    }
    for name, change in changes.items():
        place.lock.write_text(whole)
        place.edit_lock(change)
        said = place.read()
        assert "the signature does not fit it" in said, (name, said)
    place.lock.write_text(whole)
    place.edit_lock(lambda record: record.pop("signatures"))
    assert "is not signed, and has to be by" in place.read()
    place.lock.write_text(json.dumps(json.loads(whole)))  # another form of the same record
    assert place.read() == "imported alpha True"


def test_changed_pointer(place: Place) -> None:
    """Who may write to the bucket cannot point a list to another index, nor reuse a signature for it."""
    one = place.keys["one"].key
    place.publish("--sign", "one").ok()
    signed = place.pointer.read_bytes()
    decoded = EnvironmentPointer.decode(signed, "signed")
    (target,) = decoded.targets
    place.pointer.chmod(0o644)
    changed = decoded.merged(target, decoded.targets[target]._replace(digest="0" * 64))
    place.pointer.write_bytes(changed.encode())
    assert "is not signed" in place.read(by_list=True, CLOUDIMPORT_ROOT=one)
    place.pointer.write_bytes(changed._replace(signatures=decoded.signatures).encode())
    assert "the signature does not fit it" in place.read(by_list=True, CLOUDIMPORT_ROOT=one)
    assert place.shelf("verify").returncode == 1


def test_rotation(place: Place) -> None:
    """A new key signs beside the old one, then alone; a lock names the roots that are given."""
    one, two = (place.keys[name].key for name in ("one", "two"))
    place.publish("--sign", "one").ok()
    place.publish("--sign", "one", "--sign", "two").ok()
    for root in (one, two):
        assert place.read(CLOUDIMPORT_ROOT=root) == "imported alpha True"
        assert place.read(by_list=True, CLOUDIMPORT_ROOT=root) == "imported alpha True"
    assert json.loads(place.lock.read_text())["roots"] == [one, two]
    alone = place.publish("--sign", "two", "--root", two)
    assert "alpha==1 for" in alone.stderr  # the builds have the old key's signature only
    place.shelf("key", "sign", "two").ok()
    place.publish("--sign", "two", "--root", two).ok()
    record = json.loads(place.lock.read_text())
    assert record["roots"] == [two]
    assert [key for key, _ in record["signatures"]] == [two]
    assert "has to be by" in place.read(CLOUDIMPORT_ROOT=one)
    refused = place.publish("--sign", "two", "--root", one)
    assert refused.returncode == 1
    assert "none of the roots" in refused.stderr


def test_nothing_signed_becomes_unsigned_by_accident(place: Place) -> None:
    """Publishing again without the key keeps the signatures; what would void them is refused."""
    place.publish("--sign", "one").ok()
    before = place.lock.read_bytes(), place.pointer.read_bytes()
    place.publish().ok()
    assert (place.lock.read_bytes(), place.pointer.read_bytes()) == before
    write_requirements(place.folder / "requirements.txt", PINS[:2])
    refused = place.publish()
    assert refused.returncode == 1
    assert "cloudimport.lock is signed and would change: give --sign KEYFILE" in refused.stderr
    place.publish("--sign", "one").ok()


def test_builds_of_others(place: Place) -> None:
    """Who signs an environment does not vouch for builds that nobody it trusts signed; `key sign` does."""
    place.publish().ok()
    refused = place.publish("--sign", "one")
    assert refused.returncode == 1
    lines = [line for line in refused.stderr.splitlines() if line.startswith("shelf: error:")]
    assert len(lines) == 3
    assert "alpha==1 for" in lines[0]
    assert "is not signed, and has to be by" in lines[0]
    assert "shelf key sign KEYFILE alpha==1" in lines[0]
    two = place.keys["two"].key
    assert place.shelf("key", "sign", "two", "alpha==1").ok() == f"1 build signed by {two}"
    assert place.shelf("key", "sign", "two").ok() == f"2 builds signed by {two}"
    assert place.shelf("key", "sign", "two").ok() == f"0 builds signed by {two}"
    one = place.keys["one"].key
    place.publish("--sign", "one", "--root", one, "--root", two).ok()
    assert place.shelf("verify").returncode == 0


def test_a_damaged_build_is_not_signed(place: Place) -> None:
    """`shelf key sign` verifies first: a build whose bytes are not what it says stays unsigned."""
    place.publish().ok()
    (pack,) = (place.folder / "shelf").glob("packages/alpha/1/*/pack-*")
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    refused = place.shelf("key", "sign", "one", "alpha==1")
    assert refused.returncode == 1
    assert "alpha==1: not signed: " in refused.stderr


def test_replaced_build_pointer(place: Place) -> None:
    """A build whose pointer was changed after it was signed is refused by publishers and `shelf verify`."""
    place.publish("--sign", "one").ok()
    pointers = {path.parts[-4]: path for path in (place.folder / "shelf").glob("packages/*/*/*/build.json")}
    record = json.loads(pointers["alpha"].read_text())
    record["signatures"] = json.loads(pointers["beta"].read_text())["signatures"]
    pointers["alpha"].chmod(0o644)
    pointers["alpha"].write_text(json.dumps(record, sort_keys=True, separators=(",", ":")))
    refused = place.publish("--sign", "one")
    assert "alpha==1 for" in refused.stderr
    assert "the signature does not fit it" in refused.stderr
    assert f"the signature by {place.keys['one'].key[:16]} does not fit it" in place.shelf("verify").stderr


@pytest.mark.parametrize("claim", ["hash", "attestation"])
def test_replaced_provenance(place: Place, claim: str) -> None:
    """Who may write to the bucket cannot say of a signed build that it was made of the wheel whose hash the
    list has, nor that it was attested: the record of whence it came is signed with it.
    """
    place.publish("--sign", "one").ok()
    forged = {"wheel": {"name": "alpha.whl", "sha256": "0" * 64}, "attestations": [{"publisher": {}}]}
    record = canonical({"format": 1, "kind": "provenance", **forged})
    stored = compress(record, 3)
    (path,) = (place.folder / "shelf").glob("packages/alpha/1/*/build.json")
    (path.parent / f"provenance-{sha256(record)}").write_bytes(stored)
    pointer = BuildPointer.decode(path.read_bytes(), "it")
    path.chmod(0o644)
    changed = pointer._replace(provenance=Ref(sha256(record), len(stored), len(record)))
    path.write_bytes(changed.encode())
    flags = []
    if claim == "hash":
        write_requirements(place.folder / "requirements.txt", (f"{PINS[0]} --hash=sha256:{'0' * 64}",))
    else:
        write_requirements(place.folder / "requirements.txt", PINS[:1])
        flags = ["--require-attestation"]
    refused = place.publish("--lock", "other.lock", "--sign", "one", *flags)
    assert refused.returncode == 1
    assert "the signature does not fit it" in refused.stderr
    assert not (place.folder / "other.lock").exists()
    place.publish("--lock", "other.lock", *flags).ok()  # unsigned, it is what the shelf says


def test_boot_images_need_the_key(place: Place) -> None:
    """`shelf boot` changes the lock, so it signs it anew or refuses."""
    place.publish("--sign", "one").ok()
    trace = place.folder / "trace.json"
    assert place.read(CLOUDIMPORT_TRACE=str(trace)) == "imported alpha True"
    refused = place.shelf("boot", "trace.json")
    assert refused.returncode == 1
    assert "is signed and would change: give --sign KEYFILE" in refused.stderr
    place.shelf("boot", "trace.json", "--sign", "one").ok()
    assert '"boot"' in place.lock.read_text()
    assert place.read() == "imported alpha True"


def test_children_inherit(place: Place) -> None:
    """A child interpreter gets what its parent has verified, and may verify it itself."""
    place.publish("--sign", "one").ok()
    program = """
        import subprocess, sys
        import cloudimport
        cloudimport.install()
        code = "import alpha, cloudimport; cloudimport.install(); print(alpha.NAME)"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        """
    env = {"CLOUDIMPORT_LOCK": str(place.lock), "CLOUDIMPORT_ROOT": place.keys["one"].key}
    env["CLOUDIMPORT_SHELF"] = str(place.folder / "shelf")
    assert Runner(place.folder / "home").run(program, env=env).ok() == "alpha"


@pytest.mark.parametrize("by_list", [False, True], ids=["lock", "list"])
def test_checking_costs_no_request(place: Place, by_list: bool) -> None:
    """Signatures lie in what is read anyway."""
    place.publish("--sign", "one").ok()
    checked = place.ran(by_list=by_list, CLOUDIMPORT_ROOT=place.keys["one"].key)
    place.edit_lock(lambda record: [record.pop(name) for name in ("roots", "signatures")])
    unchecked = place.ran(by_list=by_list)
    assert checked.ok() == "imported alpha True"
    assert unchecked.ok() == "imported alpha False"
    assert "requests" in checked.stderr
    assert checked.stderr == unchecked.stderr


@pytest.mark.parametrize("server", ["moto", "radosgw"])
def test_on_s3(
    server: str,
    wheels: dict[str, str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    new_bucket: Callable[[S3Server], str],
) -> None:
    """Pointers that others write are signed by conditional writes; readers check what comes over HTTP."""
    s3: S3Server = request.getfixturevalue(server)
    place = Place(tmp_path, {**wheels, **s3.environ}, f"s3://{new_bucket(s3)}/shelf")
    one = place.keys["one"].key
    place.publish().ok()
    assert "is not signed" in place.read(by_list=True, CLOUDIMPORT_ROOT=one, **s3.environ)
    assert place.shelf("key", "sign", "one").ok() == f"3 builds signed by {one}"
    place.publish("--sign", "one").ok()
    assert place.shelf("verify").returncode == 0
    for by_list in (False, True):
        said = place.read(by_list=by_list, CLOUDIMPORT_ROOT=one, **s3.environ)
        assert said == "imported alpha True"


def test_what_is_found_in_a_lock_is_not_signed_unseen(place: Place) -> None:
    """Neither roots nor targets that somebody has put into the lockfile get the curator's signature."""
    one, two = (place.keys[name].key for name in ("one", "two"))
    place.publish("--sign", "one").ok()
    whole = place.lock.read_text()
    place.edit_lock(lambda record: record.update(roots=[two, one]))
    place.publish("--sign", "one").ok()
    assert json.loads(place.lock.read_text())["roots"] == [one]
    place.lock.write_text(whole)
    target = "cp310-manylinux_2_17_x86_64"
    place.edit_lock(lambda record: record["targets"].update({target: {"index": ["0" * 64, 1, 1]}}))
    refused = place.publish("--sign", "one")
    assert refused.returncode == 1
    assert f"cloudimport.lock has {target}, which no trusted key has signed" in refused.stderr
    place.lock.write_text(whole)
    trace = place.folder / "trace.json"
    assert place.read(CLOUDIMPORT_TRACE=str(trace)) == "imported alpha True"
    place.edit_lock(lambda record: record.update(roots=[two, one]))
    refused = place.shelf("boot", "trace.json", "--sign", "one")
    assert refused.returncode == 1
    assert f"cloudimport.lock is not signed by {one[:16]} as it stands" in refused.stderr


def test_targets_of_a_signed_lock_are_kept(place: Place) -> None:
    """A second target joins the first in a lock that the same key has signed."""
    other = str(running_targets()[0]._replace(glibc=(2, 17)))
    place.publish("--sign", "one", "--target", other).ok()
    place.publish("--sign", "one").ok()
    assert set(json.loads(place.lock.read_text())["targets"]) == {other, str(running_targets()[0])}
    assert place.read() == "imported alpha True"
