"""``shelf publish``, ``ls``, ``show`` and ``verify``: a curator's day, with an index of local wheels."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import zstandard

from cloudimport.format.lock import Lock
from cloudimport.ids import Pin, Target, running_targets
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import read_build
from tests.support.children import Ran, Runner
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

TARGET = str(running_targets()[0])


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels that is the whole index of these tests."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheel(
        folder,
        "base",
        "1.0",
        {
            "base/__init__.py": "from base import used\n",
            "base/used.py": "y = 2\n",
            "base/unused.py": "z = 3\n",
        },
    )
    build_wheel(
        folder, "top", "2.0",
        {"top.py": "import base\nfrom base.unused import z\ndef main():\n    print('top says', z)\n"},
        requires=["base>=1"],
        entry_points="[console_scripts]\ntop-command = top:main\n",
    )  # fmt: skip
    build_wheel(folder, "broken", "1.0", {"broken.py": "raise RuntimeError('not here')\n"})
    build_wheel(folder, "evil-pth", "1.0", {"evil.pth": "import os; os._exit(3)\n", "evil.py": "x = 1\n"})
    build_wheel(
        folder, "only310", "1.0", {"only310.py": ""}, tag="cp310-cp310-manylinux_2_17_x86_64", purelib=False
    )
    return folder


class Curator:
    """Publishes from the wheels to a folder shelf."""

    def __init__(self, wheels: Path, folder: Path) -> None:
        self.folder = folder
        self.shelf = folder / "shelf"
        self.lock = folder / "cloudimport.lock"
        self._env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}

    def publish(self, *pins: str, arguments: tuple[str, ...] = ()) -> Ran:
        """Publish a list of pins."""
        (self.folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        command = ("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), *arguments)
        return run_shelf(*command, env=self._env, cwd=self.folder)

    def shelf_says(self, *arguments: str) -> Ran:
        """Run another command on the shelf."""
        return run_shelf(*arguments, "--shelf", self.shelf)

    def objects(self) -> dict[str, bytes]:
        """Return every object by key."""
        return {
            path.relative_to(self.shelf).as_posix(): path.read_bytes()
            for path in self.shelf.rglob("*")
            if path.is_file() and not path.name.startswith(".")
        }


@pytest.fixture
def curator(wheels: Path, tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    return Curator(wheels, tmp_path)


def test_published_and_imported(curator: Curator, tmp_path: Path) -> None:
    """What was published is imported, and its console script runs, in an interpreter that has neither."""
    assert "2 published, 0 were there" in curator.publish("base==1.0", "top==2.0").ok()
    code = """
        import cloudimport, os, subprocess, sys
        env = cloudimport.install()
        import top
        top.main()
        script = os.path.join(env.root, "bin", "top-command")
        os.stat(script)
        print(subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip())
    """
    ran = Runner(tmp_path / "home").run(code, env={"CLOUDIMPORT_LOCK": str(curator.lock)})
    assert ran.ok().splitlines() == ["top says 3", "top says 3"]


def test_published_pins_are_not_installed_again(curator: Curator) -> None:
    """A second publish installs only what is new, changes no object, and says how many were there."""
    curator.publish("base==1.0").ok()
    before = curator.objects()
    second = curator.publish("base==1.0", "top==2.0")
    assert "1 published, 1 were there" in second.ok()
    assert "install: 1 package" in second.stderr
    after = curator.objects()
    assert {key: after[key] for key in before} == before
    assert "0 published, 2 were there" in curator.publish("base==1.0", "top==2.0").ok()
    assert curator.objects() == after


def test_layout_follows_the_trace(curator: Curator) -> None:
    """The lead has what the import read, in its order, and what it read of other packages is noted."""
    curator.publish("base==1.0", "top==2.0").ok()
    source = open_source(str(curator.shelf), SourceConfig())
    base, top = (read_build(source, Pin.parse(pin), TARGET) for pin in ("base==1.0", "top==2.0"))
    assert base is not None
    assert top is not None
    assert base.layout.order == "trace"
    in_lead = [path for path, extents in base.layout.code.items() if extents[0] < base.layout.lead]
    assert sorted(in_lead) == ["base/__init__.py", "base/used.py"]
    assert base.layout.code["base/__init__.py"][1] < base.layout.code["base/used.py"][1]
    assert top.layout.follow["base"][-1] == "base/unused.py"


def test_a_package_that_cannot_be_imported_is_published(curator: Curator, tmp_path: Path) -> None:
    """A package that fails in the trace is published in static order and says so."""
    ran = curator.publish("broken==1.0")
    assert "1 published" in ran.ok()
    assert re.search(r"note: broken==1: broken cannot be imported in the sandbox: RuntimeError", ran.stderr)
    code = "import cloudimport\ncloudimport.install()\nimport broken\n"
    failed = Runner(tmp_path / "home").run(code, env={"CLOUDIMPORT_LOCK": str(curator.lock)})
    assert failed.stderr.strip().endswith("RuntimeError: not here")


def test_pth_files_are_never_executed(curator: Curator, tmp_path: Path) -> None:
    """A ``.pth`` file is reported when it is published and executed nowhere."""
    ran = curator.publish("evil-pth==1.0")
    assert "evil.pth" in ran.stderr
    assert ran.returncode == 0
    code = """
        import cloudimport, os, site, subprocess, sys
        env = cloudimport.install()
        import evil
        print(evil.x, os.path.exists(env.root + "/evil.pth"))
        child = [sys.executable, "-c", "import evil; print(evil.x)"]
        print(subprocess.run(child, capture_output=True, text=True))
    """
    said = Runner(tmp_path / "home").run(code, env={"CLOUDIMPORT_LOCK": str(curator.lock)}).ok()
    assert said.startswith("1 True")
    assert "returncode=0" in said


def test_several_targets(curator: Curator) -> None:
    """One command publishes for several targets; the lock has all; no interpreter means no bytecode, said."""
    ran = curator.publish(
        "base==1.0", "top==2.0", arguments=("--target", TARGET, "--target", "lambda-python3.14-arm64")
    )
    assert ran.ok().count("2 published") == 2
    assert "no interpreter for cp314-manylinux_2_34_aarch64" in ran.stderr
    lock = Lock.decode(curator.lock.read_text(), "lock")
    assert set(lock.targets) == {TARGET, "cp314-manylinux_2_34_aarch64"}
    assert lock.shelf == str(curator.shelf)
    built = read_build(
        open_source(str(curator.shelf), SourceConfig()), Pin.parse("base==1"), "cp314-manylinux_2_34_aarch64"
    )
    assert built is not None
    layout = built.layout
    assert (layout.order, layout.traced, layout.magic, layout.code) == ("trace", TARGET, "", {})


def test_source_is_used_where_bytecode_does_not_fit(curator: Curator, tmp_path: Path) -> None:
    """A build without fitting bytecode is compiled from its source, with the same result."""
    curator.publish("base==1.0", "top==2.0").ok()
    code = "import cloudimport\ncloudimport.install()\nimport top\ntop.main()\nprint(__debug__)\n"
    env = {"CLOUDIMPORT_LOCK": str(curator.lock), "PYTHONOPTIMIZE": "1"}
    assert Runner(tmp_path / "home").run(code, env=env).ok().splitlines() == ["top says 3", "False"]


def test_wheel_for_another_platform(curator: Curator) -> None:
    """A pin without a wheel for the target is an error that lists the tags that there are."""
    target = "cp311-manylinux_2_34_x86_64"
    ran = curator.publish("only310==1.0", arguments=("--target", target))
    assert ran.returncode == 1
    assert (
        f"there is no wheel for {target}; there are wheels for cp310-cp310-manylinux_2_17_x86_64"
        in ran.stderr
    )


def test_ls_show_verify(curator: Curator) -> None:
    """``ls`` lists builds, ``show`` shows one in figures, ``verify`` finds a sound shelf sound."""
    curator.publish("base==1.0", "top==2.0").ok()
    assert curator.shelf_says("ls").ok().splitlines() == [f"base==1 {TARGET}", f"top==2 {TARGET}"]
    shown = curator.shelf_says("show", "Top==2.0.0").ok()
    assert "base>=1" in shown
    assert "top-2.0-py3-none-any.whl" in shown
    assert curator.shelf_says("verify").ok() == "2 builds checked, 0 problems"


def test_verify_finds_damage(curator: Curator) -> None:
    """``verify`` names package, object, expected and actual digest of whatever was changed."""
    curator.publish("base==1.0").ok()
    pack = next(curator.shelf.rglob("pack-*"))
    data = bytearray(pack.read_bytes())
    data[10] ^= 1
    pack.write_bytes(data)
    ran = curator.shelf_says("verify", "base==1.0")
    assert ran.returncode == 1
    digest = pack.name.partition("-")[2]
    assert re.search(
        rf"base==1: .*{pack.name} is damaged: expected sha256 {digest}, got [0-9a-f]{{64}}", ran.stderr
    )


def test_content_is_the_same_on_every_run(curator: Curator, wheels: Path, tmp_path: Path) -> None:
    """The same wheel gives the same content digest in another run, sandbox and folder."""
    curator.publish("base==1.0", "top==2.0").ok()
    other = Curator(wheels, tmp_path / "other")
    other.folder.mkdir()
    other.publish("base==1.0", "top==2.0", arguments=("--sandbox", "none")).ok()
    contents = [sorted(key for key in one.objects() if "/content-" in key) for one in (curator, other)]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 2


def test_provenance_says_whence(curator: Curator) -> None:
    """The provenance records the wheel's name and digest, the sandbox and the limits."""
    curator.publish("base==1.0").ok()
    key = next(key for key in curator.objects() if "/provenance-" in key)
    record = json.loads(zstandard.ZstdDecompressor().decompress(curator.objects()[key]))
    assert record["wheel"]["name"] == "base-1.0-py3-none-any.whl"
    assert re.fullmatch(r"[0-9a-f]{64}", record["wheel"]["sha256"])
    assert record["sandbox"] == "bubblewrap"
    assert record["limits"]["install"]["wall_seconds"] > 0


def test_target_names() -> None:
    """The default target is the running interpreter's, with the newest C library it can use."""
    assert Target.parse(TARGET).python == sys.version_info[:2]


def test_recipes(tmp_path: Path) -> None:
    """A file that a recipe names is there for C code after the package's first import; patterns that are for
    nothing are told.
    """
    files = {"lone/__init__.py": "", "lone/big.bin": bytes(range(256)) * 8192, "lone/model.bin": "model"}
    build_wheel(tmp_path / "wheels", "lone", "1.0", files)
    (tmp_path / "requirements.txt").write_text("lone==1.0\n")
    (tmp_path / "shelf-recipes.toml").write_text('[lone]\neager = ["*/model.bin", "none/*"]\n')
    links = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels")}
    where = ("--shelf", tmp_path / "shelf", "--lock", tmp_path / "cloudimport.lock")
    ran = run_shelf("publish", "-r", tmp_path / "requirements.txt", *where, env=links)
    ran.ok()
    assert "note: lone==1: 'none/*' of the recipes is none of its files" in ran.stderr
    out = Runner(tmp_path / "home").run(
        f"""
        import cloudimport, os
        cloudimport.install(lock={str(tmp_path / "cloudimport.lock")!r}, shelf={str(tmp_path / "shelf")!r})
        import lone
        import subprocess
        print(subprocess.check_output("ls $FOLDER", shell=True, env={{**os.environ,
            "FOLDER": os.path.dirname(lone.__file__)}}, text=True).split())
        """
    )
    assert out.ok() == "['model.bin']"


def test_yanked_pins(curator: Curator) -> None:
    """A yanked pin is published again only if that is asked for; the error has its line, reason and flag."""
    curator.publish("base==1.0", "top==2.0").ok()
    lock = curator.lock.read_bytes()
    assert curator.shelf_says("yank", "Base==1.0.0", "--reason", "a hole").ok() == "base==1 is yanked"
    assert curator.shelf_says("yank").ok() == "base==1: a hole"
    refused = curator.publish("top==2.0", "base==1.0")
    assert refused.returncode == 1
    assert refused.stderr.strip().splitlines()[-1] == (
        "shelf: error: requirements.txt:2: base==1 is yanked: a hole; take another version, or publish it "
        "all the same with --allow-yanked"
    )
    assert curator.lock.read_bytes() == lock
    allowed = curator.publish("top==2.0", "base==1.0", arguments=("--allow-yanked",))
    assert "0 published, 2 were there" in allowed.ok()
    assert "note: requirements.txt:2: base==1 is yanked: a hole" in allowed.stderr
    taken_back = curator.shelf_says("unyank", "base==1.0").ok()
    assert taken_back == "base==1 is no longer yanked; its reason was: a hole"
    curator.publish("top==2.0", "base==1.0").ok()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("yank", "base==1.0"), "say it with --reason"),
        (("yank", "--reason", "x"), "--reason is of which version?"),
        (("yank", "base==1.1", "--reason", "x"), "base==1.1 is not on"),
        (("yank", "base", "--reason", "x"), "'base' is not a pin"),
        (("unyank", "base==1.0"), "base==1 is not yanked on"),
    ],
)
def test_what_cannot_be_yanked(curator: Curator, arguments: tuple[str, ...], words: str) -> None:
    """What is missing, misspelt or not so is said in one line."""
    ran = curator.shelf_says(*arguments)
    assert ran.returncode == 1
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
