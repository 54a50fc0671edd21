"""``shelf export``: a shelf's environment as a folder that type checkers, editors and people read."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudimport.ids import running_targets
from tests.support.children import Ran, Runner
from tests.support.installed import REQUESTS, files_of, publish_installed
from tests.support.s3servers import S3Server
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.shelves import MadeShelf
from tests.support.wheels import build_wheel

COMMAND = (sys.executable, "-c", "import sys; from shelf_tools.cli import main; sys.exit(main())")
MARKER = ".shelf-export.json"
#: Files that differ from pip's on purpose: who installed, and what therefore is listed.
INSTALLERS = ("INSTALLER", "RECORD", "REQUESTED")
#: The two versions of one module have the same size: readers that go by sizes see no difference.
TYPED = {
    "1.0": "def greet(name: str) -> str: return name\n",
    "2.0": "def greet(name: int) -> int: return name\n",
}
MANY = 3000


def make_wheels(folder: Path) -> Path:
    """Write wheels: types in a source and a stub, native code, data, scripts, a namespace, two versions."""
    for version, source in TYPED.items():
        files: dict[str, str | bytes] = {
            "typed/__init__.py": source,
            "typed/py.typed": "",
            "typed/_native.bin": Path("/bin/true").read_bytes(),
            "typed/table.json": "{}",
            "typed/tests/test_it.py": "assert True\n",
        }
        build_wheel(folder, "typed", version, files, executable=["typed/_native.bin"])
    build_wheel(
        folder,
        "user-app",
        "1.0",
        {
            "space/app/__init__.py": "import typed\ndef main(): print('app of', typed.__name__)\n",
            "space/app/fast.pyi": "def double(number: int) -> int: ...\n",
            "space/app/fast.so.txt": "stands for native code",
            "user_app-1.0.data/scripts/own-script": "#!python\nprint('own script')\n",
        },
        executable=["user_app-1.0.data/scripts/own-script"],
        requires=["typed>=1"],
        entry_points="[console_scripts]\nuser-app = space.app:main\n",
    )
    return folder


class Curator:
    """A shelf with two environments, and their locks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = make_wheels(folder / "wheels")
        self.shelf = folder / "shelf"
        self.environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels)}
        for version in TYPED:
            requirements = folder / version / "requirements.txt"
            requirements.parent.mkdir()
            requirements.write_text(f"typed=={version}\nuser-app==1.0\n")
            command = ("publish", "-r", requirements, "--level", "3", "--shelf", self.shelf)
            run_shelf(*command, env=self.environ).ok()

    def lock(self, version: str) -> Path:
        """Return the lock of the environment with a version of ``typed``."""
        return self.folder / version / "cloudimport.lock"


@pytest.fixture(scope="module")
def curator(tmp_path_factory: pytest.TempPathFactory) -> Curator:
    """A curator who has published."""
    return Curator(tmp_path_factory.mktemp("curator"))


class User:
    """Exports to ``out``; home and cache lie in a folder of the test's own."""

    def __init__(self, curator: Curator, folder: Path) -> None:
        self.curator, self.folder = curator, folder
        self.out = folder / "out"
        self.cache = folder / "cache"

    def export(self, version: str = "1.0", *arguments: str, out: Path | None = None) -> Ran:
        """Export the environment with a version of ``typed``."""
        command = ("export", "--lock", self.curator.lock(version), "--cache", self.cache, *arguments)
        return run_shelf(*command, out or self.out, cwd=self.folder)

    def mypy(self, code: str) -> str:
        """Return what mypy says of a file, by way of one and the same cache."""
        file = self.folder / "checked.py"
        file.write_text(code)
        command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", "mypy", file.name]
        env = {**publisher_environment(), "MYPYPATH": str(self.out)}
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=env, timeout=120, check=False
        )
        return done.stdout + done.stderr

    def jedi(self, code: str) -> list[str]:
        """Return how jedi completes the end of a file, by way of one and the same cache."""
        script = """
            import json, jedi, sys
            project = jedi.Project(sys.argv[1], sys_path=[sys.argv[1]])
            found = jedi.Script(sys.argv[2], project=project, environment=jedi.InterpreterEnvironment())
            hints = [(c.name, c.get_type_hint() or "") for c in found.complete()]
            print(json.dumps([name + hint.partition(name)[2] for name, hint in hints]))
        """
        ran = Runner(self.folder / "home").run(script, str(self.out), code)
        return [name for name in json.loads(ran.ok()) if not name.startswith("_")]


@pytest.fixture
def user(curator: Curator, tmp_path: Path) -> User:
    """A user with a folder of their own."""
    return User(curator, tmp_path)


def files_in(folder: Path) -> dict[str, Path]:
    """Return every file below a folder by its path in it."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}


def beside(folder: Path) -> list[str]:
    """Return what lies hidden beside a folder."""
    return sorted(path.name for path in folder.parent.iterdir() if path.name.startswith(".shelf-export"))


def test_the_files_that_pip_installs(user: User) -> None:
    """An export has the files of ``pip install --target``, byte for byte, with their execute bits."""
    assert "2 packages, " in user.export().ok()
    plain = user.folder / "plain"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
    command += ["--target", str(plain), "typed==1.0", "user-app==1.0"]
    subprocess.run(command, check=True, env=publisher_environment(user.curator.environ), timeout=120)
    ours, theirs = files_in(user.out), files_in(plain)
    assert set(ours) - {MARKER} == {path for path in theirs if not path.endswith("/REQUESTED")}
    for path in set(ours) - {MARKER}:
        mode = stat.S_IMODE(ours[path].stat().st_mode)
        assert mode == (0o555 if theirs[path].stat().st_mode & 0o100 else 0o444), path
        if path == "bin/user-app":  # its text depends on pip's version, what it does does not
            assert ours[path].read_bytes().split(b"\n")[0] == theirs[path].read_bytes().split(b"\n")[0]
        elif not path.endswith(INSTALLERS):
            assert ours[path].read_bytes() == theirs[path].read_bytes(), path
    env = {**publisher_environment(), "PYTHONPATH": str(user.out), "PYTHONDONTWRITEBYTECODE": "1"}
    said = [
        subprocess.run([user.out / "bin" / name], env=env, capture_output=True, text=True, check=True).stdout
        for name in ("user-app", "own-script")
    ]
    assert said == ["app of typed\n", "own script\n"]


def test_mypy(user: User) -> None:
    """mypy finds the types of sources and stubs in an export, and reports a wrong call."""
    user.export().ok()
    said = user.mypy(
        "import typed\nfrom space.app import fast\n"
        "reveal_type(typed.greet('x'))\nreveal_type(fast.double(2))\ntyped.greet(3)\nfast.treble(2)\n"
    )
    assert 'checked.py:3: note: Revealed type is "str"' in said.replace("builtins.", "")
    assert 'checked.py:4: note: Revealed type is "int"' in said.replace("builtins.", "")
    assert 'checked.py:5: error: Argument 1 to "greet" has incompatible type "int"; expected "str"' in said
    assert 'checked.py:6: error: Module has no attribute "treble"' in said
    assert "Found 2 errors in 1 file" in said


def test_jedi(user: User) -> None:
    """jedi completes modules and names from an export, with their types."""
    user.export().ok()
    assert user.jedi("import typed\ntyped.gr") == ["greet(name: str) -> str"]
    assert user.jedi("from space.app.fast import dou") == ["double(number: int) -> int"]
    assert [name.partition("(")[0] for name in user.jedi("import space.app.")] == ["fast"]


def test_readers_see_that_an_export_was_replaced(user: User) -> None:
    """What mypy and jedi keep of the earlier export is not taken for the new one: its files are newer.

    So are those that another export had long before.
    """
    user.export("2.0", out=user.folder / "earlier").ok()
    user.export("1.0").ok()
    assert "Success" in user.mypy("import typed\ntyped.greet('x')\n")
    assert user.jedi("import typed\ntyped.gr") == ["greet(name: str) -> str"]
    user.export("2.0").ok()
    assert 'incompatible type "str"; expected "int"' in user.mypy("import typed\ntyped.greet('x')\n")
    assert user.jedi("import typed\ntyped.gr") == ["greet(name: int) -> int"]


@pytest.mark.parametrize("version", TYPED)
def test_stubs_only(user: User, version: str) -> None:
    """With ``--stubs-only`` there are sources, stubs, py.typed and METADATA, and checkers need no more."""
    user.export("1.0").ok()
    user.export(version, "--stubs-only").ok()
    assert sorted(files_in(user.out)) == sorted(
        [
            MARKER,
            "space/app/__init__.py",
            "space/app/fast.pyi",
            f"typed-{version}.dist-info/METADATA",
            "typed/__init__.py",
            "typed/py.typed",
            "typed/tests/test_it.py",
            "user_app-1.0.dist-info/METADATA",
        ]
    )
    wrong = "3" if version == "1.0" else "'x'"
    assert "Found 1 error" in user.mypy(f"import typed\ntyped.greet({wrong})\n")
    assert user.jedi("import typed\ntyped.gr")[0].startswith("greet(")


def test_somebody_elses_folder_is_refused(user: User) -> None:
    """A folder with other files, a file, and a mount point are left as they are, with one clear line."""
    user.out.mkdir()
    (user.out / "thesis.txt").write_text("two years")
    file = user.folder / "file"
    file.write_text("mine")
    for place, why in ((user.out, "has files of somebody else"), (file, "is no folder")):
        ran = user.export(out=place)
        assert ran.returncode == 1
        lines = [line for line in ran.stderr.splitlines() if "error" in line]
        assert len(lines) == 1
        assert f"{place} {why}" in lines[0]
    assert "/ is a mount point" in user.export(out=Path("/")).stderr
    assert (user.out / "thesis.txt").read_text() == "two years"
    assert file.read_text() == "mine"
    assert beside(user.out) == []


def test_an_empty_folder_and_a_link_are_taken(user: User) -> None:
    """An empty folder is filled; through a symbolic link the folder that it names is."""
    user.out.mkdir()
    link = user.folder / "link"
    link.symlink_to("out")
    user.export(out=link).ok()
    assert link.is_symlink()
    user.export("2.0", out=link).ok()
    assert (user.out / "typed/__init__.py").read_text() == TYPED["2.0"]


def test_replaced_at_once(user: User) -> None:
    """While an export is replaced there is, at every moment, one whole export at its place."""
    user.export("1.0").ok()
    seen = set()
    for version in ("2.0", "1.0", "2.0"):
        command = ("export", "--lock", user.curator.lock(version), "--cache", user.cache, user.out)
        process = subprocess.Popen(
            [*COMMAND, *map(str, command)],
            env=publisher_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None:
            assert user.out.is_dir()
            try:
                seen.add((user.out / "typed/__init__.py").read_text())
            except FileNotFoundError:
                pass  # between its folder and it, the whole went away; the next look finds the new one
        assert process.returncode == 0
    assert seen == set(TYPED.values())
    assert beside(user.out) == []


def test_second_export_replaces(user: User) -> None:
    """A second export takes away what is no longer of the environment, and keeps what is the same file."""
    user.export("1.0").ok()
    same, other = user.out / "space/app/__init__.py", user.out / "typed/__init__.py"
    before = same.stat(), other.stat()
    (user.out / "space/app/left.py").write_text("somebody wrote this here")
    user.export("2.0").ok()
    assert same.stat().st_ino == before[0].st_ino
    assert same.stat().st_mtime_ns == before[0].st_mtime_ns
    assert other.stat().st_ino != before[1].st_ino
    assert not (user.out / "space/app/left.py").exists()
    assert not (user.out / "typed-1.0.dist-info").exists()


def test_exports_share_files_with_one_another_and_with_nothing_else(user: User) -> None:
    """Two exports are the same files once on the disk; no file that the runtime runs is among them."""
    user.export().ok()
    second = user.folder / "second"
    assert "17 of them shared" in user.export(out=second).ok()
    ours = files_in(user.out)
    shared = {path for path in ours if ours[path].stat().st_ino == (second / path).stat().st_ino}
    assert set(ours) - shared == {MARKER, "bin/own-script", "bin/user-app"}
    code = """
        import cloudimport, os
        env = cloudimport.install()
        import typed, space.app
        for folder, _, names in os.walk(env.root):
            for name in names:
                path = os.path.join(folder, name)
                with open(path):
                    print(os.stat(path).st_ino, oct(os.stat(path).st_mode))
    """
    env = {"CLOUDIMPORT_LOCK": str(user.curator.lock("1.0")), "CLOUDIMPORT_CACHE": str(user.cache)}
    said = Runner(user.folder / "home").run(code, env=env).ok().splitlines()
    inodes, modes = {int(line.split()[0]) for line in said}, {line.split()[1] for line in said}
    assert len(inodes) == 19
    assert inodes.isdisjoint(path.stat().st_ino for path in ours.values())
    assert modes == {"0o100644", "0o100755"}


def test_who_writes_over_an_export_changes_no_import(user: User) -> None:
    """A file that somebody changed in an export is as before for imports, and after the next export."""
    user.export().ok()
    file = user.out / "typed/__init__.py"
    file.chmod(0o644)
    file.write_text(TYPED["2.0"])
    env = {"CLOUDIMPORT_LOCK": str(user.curator.lock("1.0")), "CLOUDIMPORT_CACHE": str(user.cache)}
    code = (
        "import cloudimport\ncloudimport.install()\nimport inspect, typed\nprint(inspect.getsource(typed))\n"
    )
    assert Runner(user.folder / "home").run(code, env=env).ok() == TYPED["1.0"].strip()
    second = user.folder / "second"
    for out in (second, user.out):
        user.export(out=out).ok()
        assert (out / "typed/__init__.py").read_text() == TYPED["1.0"]
        assert stat.S_IMODE((out / "typed/__init__.py").stat().st_mode) == 0o444


def test_what_no_export_has_leaves_the_cache(user: User) -> None:
    """Of exports that were removed nothing stays in the cache, once there is another one."""
    user.export("1.0").ok()
    for path in files_in(user.out).values():
        path.unlink()
    (user.out / MARKER).touch()
    user.export("2.0", "--stubs-only").ok()
    kept = files_in(user.cache / "v1/exports").values()
    assert {path.stat().st_ino for path in kept} == {
        path.stat().st_ino for name, path in files_in(user.out).items() if name != MARKER
    }


def test_another_file_system_and_a_full_one(user: User) -> None:
    """On another file system files are written anew; a full one is one line, and leaves what was there."""
    bubblewrap()
    small = user.folder / "small"
    small.mkdir()
    script = """
        import os, subprocess, sys
        small, *command = sys.argv[1:]
        def export(version):
            arguments = [*command, small + "/out", "--lock", os.environ[version]]
            done = subprocess.run(arguments, capture_output=True, text=True)
            print((done.stderr + done.stdout).strip().splitlines()[-1])
        export("FIRST")
        export("FIRST")
        with open(small + "/ballast", "wb", 0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
        export("SECOND")
        print(open(small + "/out/typed/__init__.py").read().strip())
        print(sorted(os.listdir(small)))
    """
    command = [*COMMAND, "export", "--cache", str(user.cache)]
    (user.folder / "full.py").write_text("\n".join(line[8:] for line in script.splitlines()))
    done = subprocess.run(
        ["bwrap", "--dev-bind", "/", "/", "--size", str(1 << 20), "--tmpfs", str(small),
         sys.executable, str(user.folder / "full.py"), str(small), *command],
        env={**publisher_environment(), "FIRST": str(user.curator.lock("1.0")),
             "SECOND": str(user.curator.lock("2.0"))},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    first, again, full, text, listed = done.stdout.splitlines()
    assert "19 files" in first
    assert ", 0 of them shared" in first
    assert ", 17 of them shared" in again
    assert full.startswith(f"shelf: error: {small}/out: the disk is full")
    assert text == TYPED["1.0"].strip()
    assert listed == "['ballast', 'out']"


def test_defaults(user: User) -> None:
    """With nothing said it is the lock in the current folder; with ``-r`` and ``--shelf`` what they say."""
    env = {"CLOUDIMPORT_CACHE": str(user.cache)}
    here = user.curator.lock("1.0").parent
    run_shelf("export", user.out, env=env, cwd=here).ok()
    assert (user.out / "typed/__init__.py").read_text() == TYPED["1.0"]
    listed = ("-r", user.curator.lock("2.0").with_name("requirements.txt"), "--shelf", user.curator.shelf)
    run_shelf("export", user.out, *listed, env=env, cwd=here).ok()
    assert (user.out / "typed/__init__.py").read_text() == TYPED["2.0"]
    ran = run_shelf("export", user.out, env=env, cwd=user.folder)
    assert ran.returncode == 1
    assert f"neither cloudimport.lock nor requirements.txt is in {user.folder}" in ran.stderr
    ran = user.export("1.0", "--target", "lambda-python3.14-arm64")
    assert ran.returncode == 1
    assert f"was published for {running_targets()[0]}" in ran.stderr


def test_warm_and_offline(user: User) -> None:
    """With a lock and a warm cache the shelf may be gone."""
    user.export().ok()
    lock = user.folder / "cloudimport.lock"
    lock.write_text(user.curator.lock("1.0").read_text())
    arguments = ("--lock", lock, "--shelf", user.folder / "gone", "--cache", user.cache)
    run_shelf("export", user.folder / "second", *arguments).ok()
    run_shelf("export", user.folder / "stubs", "--stubs-only", *arguments).ok()


def test_from_s3(tmp_path: Path, moto: S3Server) -> None:
    """An environment on S3 is exported as one in a folder, whatever its packages are."""
    made = MadeShelf(tmp_path, f"s3://{moto.make_bucket('exported')}/shelf", moto.environ)
    publish_installed(made, *REQUESTS)
    made.environment()
    out = tmp_path / "out"
    arguments = ("export", out, "--lock", made.lock, "--cache", tmp_path / "cache")
    assert "5 packages" in run_shelf(*arguments, env=moto.environ).ok()
    exported = {path: file.read_bytes() for path, file in files_in(out).items() if path != MARKER}
    assert exported == {path: data for name in REQUESTS for path, data in files_of(name).items()}


class Large:
    """An export of many files, stopped on its way."""

    def __init__(self, folder: Path) -> None:
        self.made = MadeShelf(folder / "made")
        self.out = folder / "parent" / "out"
        self.cache = folder / "cache"
        self.out.parent.mkdir()
        self.publish("a")

    def publish(self, variant: str) -> None:
        """Publish a package of many files; each is another one in another variant."""
        files = {f"many/m{n}.py": f"x = {n} + len({variant * 9!r})\n" for n in range(MANY)}
        self.made.add("many", f"1.{ord(variant)}", files, bytecode=False)
        self.made.environment(f"many==1.{ord(variant)}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command's arguments."""
        return ("export", str(self.out), "--lock", str(self.made.lock), "--cache", str(self.cache))

    def stop(self, by: signal.Signals, files: int) -> tuple[int, str]:
        """Export, and send a signal when so many files are written; return status and what was said."""
        process = subprocess.Popen(
            [*COMMAND, *self.arguments],
            env=publisher_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and self._written() < files:
            time.sleep(0.0005)
        process.send_signal(by)
        _, said = process.communicate(timeout=60)
        return process.returncode, said

    def _written(self) -> int:
        counts = [0]
        for name in beside(self.out):
            try:
                counts.append(len(os.listdir(self.out.parent / name / "many")))
            except OSError:
                pass
        return max(counts)

    def modules(self) -> int:
        """Return how many modules the export has."""
        return len(os.listdir(self.out / "many"))


@pytest.fixture
def large(tmp_path: Path) -> Large:
    """A shelf with a large package."""
    (tmp_path / "made").mkdir()
    return Large(tmp_path)


def test_killed(large: Large) -> None:
    """Killed in the middle, nothing is visible at its place, or what was there; the next one tidies up."""
    for files in (1, 500, 2000):
        status, _ = large.stop(signal.SIGKILL, files)
        assert status == -signal.SIGKILL
        assert not large.out.exists()
    assert len(beside(large.out)) >= 1
    run_shelf(*large.arguments).ok()
    assert large.modules() == MANY
    assert beside(large.out) == []
    text = (large.out / "many/m7.py").read_text()
    large.publish("b")
    status, _ = large.stop(signal.SIGKILL, 1000)
    assert status == -signal.SIGKILL
    assert (large.modules(), (large.out / "many/m7.py").read_text()) == (MANY, text)
    assert len(beside(large.out)) == 1
    run_shelf(*large.arguments).ok()
    assert (large.out / "many/m7.py").read_text() != text
    assert beside(large.out) == []


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(large: Large, by: signal.Signals) -> None:
    """Ctrl-C, or SIGTERM, leaves nothing behind and says one line."""
    status, said = large.stop(by, 500)
    assert status == 130, said
    assert said.splitlines()[-1].startswith("shelf: interrupted; nothing half-done is visible")
    assert "Traceback" not in said
    assert list(large.out.parent.iterdir()) == []


def test_two_at_once(large: Large) -> None:
    """Two exports to one folder at the same time leave one of them there, whole."""
    running = [
        subprocess.Popen(
            [*COMMAND, *large.arguments],
            env=publisher_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert large.modules() == MANY
    assert beside(large.out) == []
