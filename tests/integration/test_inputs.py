"""What ``shelf publish -r`` takes, what it is tied to, and what ``--add-missing`` adds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cloudimport.format.lock import Lock
from cloudimport.ids import running_targets
from tests.support.children import Ran, Runner
from tests.support.packageindex import package_index
from tests.support.sdists import build_sdist, own_backend
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

TARGET = str(running_targets()[0])
ARM = "cp310-manylinux_2_28_aarch64"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Curator:
    """Publishes from a folder of wheels that a test fills; nothing of the developer's is configured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.list = folder / "requirements.txt"
        self.env = {
            "HOME": str(folder / "home"),
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_NO_INDEX": "1",
            "PIP_RETRIES": "0",
            "UV_NO_CACHE": "1",
        }
        build_wheel(self.wheels, "base", "1.0", {"base.py": "v = 'first'\n"})
        build_wheel(self.wheels, "base", "1.5", {"base.py": "v = 'newer'\n"})
        build_wheel(self.wheels, "top", "2.0", {"top.py": "import base\n"}, requires=["base>=1"])

    def publish(self, *arguments: str | Path, name: str = "requirements.txt") -> Ran:
        """Publish a list."""
        command = ("publish", "-r", name, "--shelf", "shelf", "--level", "3", *arguments)
        return run_shelf(*command, env=self.env, cwd=self.folder)

    def imported(self) -> str:
        """Return which ``base`` a program gets that goes by the lockfile alone."""
        code = "import cloudimport\ncloudimport.install()\nimport top\nprint(top.base.v)\n"
        env = {"CLOUDIMPORT_LOCK": str(self.folder / "cloudimport.lock")}
        return Runner(self.folder / "program").run(code, env=env).ok().strip()

    def lock(self) -> Lock:
        """Return the lockfile."""
        return Lock.decode((self.folder / "cloudimport.lock").read_text(), "lock")

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a package's build."""
        (path,) = (self.folder / "shelf" / "packages" / name).rglob("provenance-*")
        record: dict[str, Any] = json.loads(zstandard.ZstdDecompressor().decompress(path.read_bytes()))
        return record

    def provenance(self, name: str) -> dict[str, object]:
        """Return what the shelf says of a package's wheel."""
        wheel: dict[str, object] = self.record(name)["wheel"]
        return wheel


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    return Curator(tmp_path)


def pylock(*wheels: tuple[str, Path, str], more: str = "") -> str:
    """Return a lock file of (name, wheel, place) as PEP 751 has it."""
    text = f'lock-version = "1.0"\ncreated-by = "hand"\n{more}'
    for name, wheel, place in wheels:
        version = wheel.name.split("-")[1]
        hashes = f'{{ sha256 = "{_sha256(wheel)}" }}'
        text += f'[[packages]]\nname = "{name}"\nversion = "{version}"\n'
        text += f"wheels = [{{ {place}, hashes = {hashes} }}]\n"
    return text


def test_a_pylock_is_published_from_the_places_that_it_names(curator: Curator) -> None:
    """Wheels come from the file's own URL or path, whatever the index has; a handler goes by the lockfile."""
    base, top = (curator.wheels / f"{name}-py3-none-any.whl" for name in ("base-1.0", "top-2.0"))
    (curator.folder / "own").mkdir()
    own = base.rename(curator.folder / "own" / base.name)
    build_wheel(curator.wheels, "base", "1.0", {"base.py": "v = 'of the index'\n"})
    with package_index(curator.wheels) as server:
        url = f'url = "{server.endpoint}/files/{top.name}"'
        text = pylock(("base", own, f'path = "own/{own.name}"'), ("top", top, url))
        (curator.folder / "pylock.toml").write_text(text)
        said = curator.publish(name="pylock.toml").ok()
        assert [request.target for request in server.requests] == [f"/files/{top.name}"]
    assert "handlers go by cloudimport.lock: they do not read pylock.toml" in said
    assert curator.imported() == "first"
    assert curator.lock().requirements == ("base==1", "top==2")
    assert curator.provenance("base")["sha256"] == _sha256(own)


def test_a_handler_that_is_given_a_pylock_is_told_what_to_use(curator: Curator) -> None:
    """The runtime reads no TOML, and says so in one line."""
    (curator.folder / "pylock.toml").write_text(pylock())
    code = "import cloudimport\ncloudimport.install('pylock.toml', shelf='shelf')\n"
    ran = Runner(curator.folder).run(code)
    assert ran.returncode != 0
    assert re.search(
        r"pylock\.toml is read by 'shelf publish' only: use the lockfile", ran.stderr.splitlines()[-1]
    )


BASE = r"pylock\.toml:3: base==1:"
FILE = r"base-1\.0-py3-none-any\.whl"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("changed", rf"{BASE} {FILE} does not have the hash in the list: expected .*, got "),
        ("gone", rf"{BASE} http://.*/files/{FILE} cannot be fetched \(HTTP 404\)"),
        ("down", rf"{BASE} http://.*/files/{FILE} cannot be fetched \(connection refused\)"),
        ("other", rf"{BASE} there is no wheel for {TARGET}; there are wheels for cp39-cp39-win32"),
        ("python", r"the list is for Python >=4: "),
    ],
)
def test_a_pylock_that_does_not_hold_is_one_line(curator: Curator, fault: str, said: str) -> None:
    """Changed bytes, a file that is gone, a server that is down, no wheel for the target, another Python."""
    base = curator.wheels / "base-1.0-py3-none-any.whl"
    kept = curator.folder / base.name
    kept.write_bytes(base.read_bytes())
    with package_index(curator.wheels) as server:
        url = f'url = "{server.endpoint}/files/{base.name}"'
        text = pylock(("base", kept, url), more='requires-python = ">=4"\n' if fault == "python" else "")
        if fault == "other":
            text = text.replace("py3-none-any", "cp39-cp39-win32")
        (curator.folder / "pylock.toml").write_text(text)
        base.unlink()
        if fault != "gone":
            build_wheel(curator.wheels, "base", "1.0", {"base.py": "v = 'changed'\n"})
        if fault != "down":
            ran = curator.publish(name="pylock.toml")
    if fault == "down":
        ran = curator.publish(name="pylock.toml")
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("shelf: error")]
    assert re.search(said, line), line
    assert not list((curator.folder / "shelf").rglob("build.json"))


def source_lock(curator: Curator, *, wheels: bool = False, digest: str = "", sdist: bool = True) -> Path:
    """Write a lock that names a source distribution outside of the index; there is another of it there."""
    own = build_sdist(curator.folder / "own", "made", "1.0", own_backend("made", source="v = 'named'\n"))
    build_sdist(curator.wheels, "made", "1.0", own_backend("made", source="v = 'of the index'\n"))
    text = pylock() + '[[packages]]\nname = "made"\nversion = "1.0"\n'
    if wheels:
        name = "made-1.0-cp39-cp39-win_amd64.whl"
        text += f'wheels = [{{ path = "own/{name}", hashes = {{ sha256 = "{"0" * 64}" }} }}]\n'
    if sdist:
        hashes = f'{{ sha256 = "{digest or _sha256(own)}" }}'
        text += f'sdist = {{ path = "own/{own.name}", hashes = {hashes} }}\n'
    (curator.folder / "pylock.toml").write_text(text)
    return own


MADE = "import cloudimport; cloudimport.install(); import made; print(made.v)"


@pytest.mark.parametrize("wheels", [False, True], ids=["alone", "beside wheels for others"])
def test_a_source_distribution_that_a_lock_names_is_built(curator: Curator, wheels: bool) -> None:
    """It comes from the place that the list names, whatever the index has, and is built if it may be."""
    own = source_lock(curator, wheels=wheels)
    ran = curator.publish(name="pylock.toml")
    assert ran.returncode == 1
    assert "source distribution: --allow-sdist made builds it in the sandbox" in ran.stderr.splitlines()[-1]
    curator.publish("--allow-sdist", "made", name="pylock.toml").ok()
    env = {"CLOUDIMPORT_LOCK": str(curator.folder / "cloudimport.lock")}
    assert Runner(curator.folder / "program").run(MADE, env=env).ok().strip() == "named"
    assert curator.record("made")["build"]["sdist"] == {
        "name": own.name,
        "sha256": _sha256(own),
        "size": own.stat().st_size,
        "url": own.as_uri(),
        "index": f"{own.parent.as_uri()}/",
    }
    assert "1 were there" in curator.publish("--allow-sdist", "made", name="pylock.toml").ok()


def test_a_source_distribution_is_the_one_that_the_lock_names(curator: Curator) -> None:
    """Other bytes are refused, and where the list names none, none of the index is taken."""
    own = source_lock(curator, digest="0" * 64)
    said = curator.publish("--allow-sdist", "made", name="pylock.toml").stderr
    wrong = f"made-1.0.tar.gz does not have the hash in the list: expected {'0' * 64}, got {_sha256(own)}"
    assert wrong in said
    source_lock(curator, wheels=True, sdist=False)
    said = curator.publish("--allow-sdist", "made", name="pylock.toml").stderr
    assert "there are wheels for cp39-cp39-win_amd64; the list names no source distribution of it" in said


def test_a_source_distribution_of_a_project_of_uv(curator: Curator) -> None:
    """uv's lock has it with its hash; its metadata say themselves that uv need not build it."""
    info = "Metadata-Version: 2.2\nName: made\nVersion: 1.0\n"
    files = {**own_backend("made", source="v = 'locked'\n"), "PKG-INFO": info}
    build_sdist(curator.wheels, "made", "1.0", files)
    uv_project(curator, PROJECT.replace('"top>=1"', '"top>=1", "made"'))
    curator.publish("--allow-sdist", "made", name="uv.lock").ok()
    env = {"CLOUDIMPORT_LOCK": str(curator.folder / "cloudimport.lock")}
    assert Runner(curator.folder / "program").run(MADE, env=env).ok().strip() == "locked"


PROJECT = """\
[project]
name = "app"
version = "1"
requires-python = ">=3.10"
dependencies = ["top>=1"]
[project.optional-dependencies]
web = ["extra-one"]
[dependency-groups]
dev = ["dev-one"]
[tool.uv]
no-index = true
find-links = ["wheels"]
"""


def uv_project(curator: Curator, text: str = "") -> None:
    """Make a uv project with its lock."""
    for name in ("extra-one", "dev-one"):
        build_wheel(curator.wheels, name, "1.0", {f"{name.replace('-', '_')}.py": ""})
    (curator.folder / "pyproject.toml").write_text(text or PROJECT)
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "lock", "-q", "--no-python-downloads"], cwd=curator.folder, check=True, timeout=120)


@pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
def test_a_project_of_uv_is_published_as_its_lock_has_it(curator: Curator, name: str) -> None:
    """Its own code is left out, extras and groups are those that are asked for, and nothing is resolved."""
    uv_project(curator)
    build_wheel(curator.wheels, "base", "1.9", {"base.py": "v = 'too new'\n"})
    before = (curator.folder / "uv.lock").read_bytes()
    curator.publish(name=name).ok()
    assert curator.lock().requirements == ("base==1.5", "top==2")
    curator.publish("--extra", "web", "--group", "dev", name=name).ok()
    assert curator.lock().requirements == ("base==1.5", "dev-one==1", "extra-one==1", "top==2")
    assert curator.imported() == "newer"
    assert (curator.folder / "uv.lock").read_bytes() == before
    ran = curator.publish("--extra", "nope", name=name)
    assert re.search(rf"shelf: error: {name}: .*`nope` is not defined", ran.stderr)


def test_a_project_without_a_lock_is_told_what_to_do(curator: Curator) -> None:
    """Both ways to make one are named, in one line."""
    (curator.folder / "pyproject.toml").write_text(PROJECT)
    ran = curator.publish(name="pyproject.toml")
    assert ran.stderr.strip() == (
        "shelf: error: pyproject.toml: there is no uv.lock for it: run 'uv lock', "
        "or 'shelf lock pyproject.toml -o requirements.txt'"
    )
    (curator.folder / "Pipfile.toml").write_text("")
    assert "is not a list that can be published" in curator.publish(name="Pipfile.toml").stderr
    curator.list.write_text("base==1\n")
    assert "a requirements file has its extras in its lines" in curator.publish("--extra", "x").stderr


def test_a_build_is_tied_to_the_hash_in_the_list(curator: Curator) -> None:
    """What is on the shelf from another wheel than the list allows is an error that names both."""
    wheel = curator.wheels / "base-1.0-py3-none-any.whl"
    digest = _sha256(wheel)
    curator.list.write_text("base==1.0\n")
    curator.publish().ok()
    assert curator.provenance("base")["sha256"] == digest
    curator.list.write_text(f"base==1.0 --hash=sha256:{digest} --hash=sha256:{'0' * 64}\n")
    assert "0 published, 1 were there" in curator.publish().ok()
    sha512 = hashlib.sha512(wheel.read_bytes()).hexdigest()
    curator.list.write_text(f"base==1.0 --hash=sha512:{sha512}\n")
    assert "0 published, 1 were there" in curator.publish().ok()
    others = [f"sha256:{character * 64}" for character in "01234"]
    curator.list.write_text("base==1.0 " + " ".join(f"--hash={value}" for value in others) + "\n")
    lock = (curator.folder / "cloudimport.lock").read_bytes()
    ran = curator.publish()
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"shelf: error: requirements.txt:1: base==1 for {TARGET} is on the shelf and was made of "
        f"{wheel.name} with sha256:{digest}; the list asks for {' or '.join(others[:3])} or one of 2 more: "
        "take that wheel's hash into the list, or remove the build"
    )
    assert (curator.folder / "cloudimport.lock").read_bytes() == lock


def test_what_is_missing_is_named_and_added_on_request(curator: Curator) -> None:
    """Without the option each missing pin is an error; with it the list gets it at its end, once."""
    build_wheel(curator.wheels, "more", "1.0", {"more.py": ""}, requires=["top[x]", "base<1.5"])
    text = "# ours\ntop==2.0  # a comment\r\nmore==1.0"
    curator.list.write_bytes(text.encode())
    ran = curator.publish()
    assert ran.returncode == 1
    errors = [line for line in ran.stderr.splitlines() if "error" in line]
    assert errors == [
        "shelf: error: base (>=1) is needed by top==2 and is not in the list",
        "shelf: error: base (<1.5) is needed by more==1 and is not in the list",
    ]
    assert "note: --add-missing resolves what is missing and adds it to requirements.txt" in ran.stderr
    assert curator.list.read_bytes().decode() == text
    ran = curator.publish("--add-missing")
    assert "3 published" in ran.ok()
    assert "note: requirements.txt: added base==1.0, needed by more, top" in ran.stderr
    whole = curator.list.read_bytes().decode()
    assert whole == (
        f"{text}\r\n\r\n# Added by 'shelf publish --add-missing':\r\nbase==1.0\r\n    # via more, top\r\n"
    )
    assert curator.lock().requirements == ("base==1", "more==1", "top==2")
    assert curator.imported() == "first"
    assert "0 published, 3 were there" in curator.publish("--add-missing").ok()
    assert curator.list.read_bytes().decode() == whole
    assert "0 published, 3 were there" in curator.publish().ok()


def test_what_is_added_has_hashes_and_markers_where_the_list_needs_them(curator: Curator) -> None:
    """A list with hashes stays one; what one target only needs is added for that target."""
    requires = ["base", 'older; python_version < "3.11"']
    build_wheel(curator.wheels, "both", "1.0", {"both.py": ""}, requires=requires)
    older = build_wheel(curator.wheels, "older", "1.0", {"older.py": ""})
    both = _sha256(curator.wheels / "both-1.0-py3-none-any.whl")
    target = "cp312-manylinux_2_28_x86_64"
    curator.list.write_text(f"both==1.0 --hash=sha256:{both}\n")
    curator.list.chmod(0o600)
    curator.publish("--add-missing", "--target", target, "--target", ARM).ok()
    assert (
        f'older==1.0 ; python_version == "3.10" \\\n    --hash=sha256:{_sha256(older)}\n'
        in curator.list.read_text()
    )
    assert curator.list.stat().st_mode & 0o777 == 0o600
    assert set(curator.lock().targets) == {target, ARM}
    # A name that is listed for other targets already.
    curator.list.write_text('both==1.0\nbase==1.0 ; python_version >= "3.12"\nolder==1.0\n')
    curator.publish("--add-missing", "--target", ARM).ok()
    marker = 'python_version == "3.10" and platform_machine == "aarch64"'
    assert f"base==1.5 ; {marker}\n" in curator.list.read_text()
    curator.publish("--target", target).ok()


def test_what_is_built_from_source_is_no_matter_for_uv(curator: Curator, tmp_path: Path) -> None:
    """The others' needs are added; nothing of a source distribution runs outside of the sandbox."""
    ran_outside = tmp_path / "ran"
    files = own_backend("made", before="PARTS[NAME + '.dist-info/METADATA'] += 'Requires-Dist: late\\n'")
    files["backend.py"] = (
        f"try: open({str(ran_outside)!r}, 'w')\nexcept OSError: pass\n" + files["backend.py"]
    )
    build_sdist(curator.wheels, "made", "1.0", files)
    build_wheel(curator.wheels, "user", "1.0", {"user.py": ""}, requires=["made[x]>=1", "base<1.5"])
    build_wheel(curator.wheels, "late", "1.0", {"late.py": ""})
    both = ("--add-missing", "--allow-sdist", "made")
    curator.list.write_text("user==1.0\nmade==1.0\n")
    ran = curator.publish(*both)
    assert "note: requirements.txt: added base==1.0, needed by user" in ran.stderr
    assert "note: made==1: it is built from source: --add-missing cannot know what it needs" in ran.stderr
    assert "late is needed by made==1 and is not in the list" in ran.stderr.splitlines()[-1]
    assert "has to be added to requirements.txt by hand" in ran.stderr
    with curator.list.open("a") as file:
        file.write("late==1.0\n")
    assert "4 published" in curator.publish(*both).ok()
    assert curator.lock().requirements == ("base==1", "late==1", "made==1", "user==1")
    assert not ran_outside.exists()


def test_what_may_be_built_and_has_a_wheel_is_completed(curator: Curator) -> None:
    """What a wheel says is known, whatever may be built."""
    build_sdist(curator.wheels, "top", "2.0", own_backend("top"))
    curator.list.write_text("top==2.0\n")
    curator.publish("--add-missing", "--allow-sdist", "top").ok()
    assert curator.lock().requirements == ("base==1.5", "top==2")


def test_what_is_missing_and_has_no_wheel_has_to_be_pinned(curator: Curator) -> None:
    """Which version would be built is for the curator to say."""
    build_sdist(curator.wheels, "made", "1.0", own_backend("made"))
    build_wheel(curator.wheels, "user", "1.0", {"user.py": ""}, requires=["made"])
    curator.list.write_text("user==1.0\n")
    ran = curator.publish("--add-missing", "--allow-sdist", "made")
    assert ran.stderr.splitlines()[-1] == (
        "shelf: error: --add-missing chooses among wheels only: pin made==VERSION in the list, "
        "for --allow-sdist to build"
    )
    assert curator.list.read_text() == "user==1.0\n"


def test_what_cannot_be_completed_changes_nothing(curator: Curator) -> None:
    """Pins that contradict each other, and another tool's list, are errors; the file stays."""
    build_wheel(curator.wheels, "more", "1.0", {"more.py": ""}, requires=["base<1"])
    curator.list.write_text("top==2.0\nmore==1.0\n")
    ran = curator.publish("--add-missing")
    assert ran.returncode == 1
    assert re.search(r"more depend on base<1 and .*top depend on base>=1", ran.stderr)
    assert curator.list.read_text() == "top==2.0\nmore==1.0\n"
    top = curator.wheels / "top-2.0-py3-none-any.whl"
    (curator.folder / "pylock.toml").write_text(pylock(("top", top, f'path = "wheels/{top.name}"')))
    ran = curator.publish("--add-missing", name="pylock.toml")
    assert "complete this one by the tool that made it" in ran.stderr
    ran = curator.publish(name="pylock.toml")
    assert (
        ran.stderr.splitlines()[-1] == "shelf: error: base (>=1) is needed by top==2 and is not in the list"
    )
