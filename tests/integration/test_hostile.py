"""Hostile wheels through the whole command: they are published or refused, and nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.test_sandbox import DAEMON, gone, left
from tests.support.children import Ran
from tests.support.sandboxes import bubblewrap
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.wheels import build_wheel

METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
COMMAND = ["-c", "import sys; from shelf_tools.cli import main; sys.exit(main())"]
#: What a module finds out about where it runs is the text of its exception, and so a note.
PROBE = """\
import os, socket
def tried(what):
    try: return repr(what())
    except Exception as error: return type(error).__name__
raise RuntimeError(" ".join([
    tried(lambda: socket.create_connection(("127.0.0.1", 1), 1)), tried(lambda: open("/etc/shadow")),
    tried(lambda: os.listdir("/root")), tried(lambda: open(__file__, "w")), tried(lambda: os.kill(1, 9)),
    str(b"PWD" in open("/proc/1/environ", "rb").read()), str("SECRET" in os.environ)]))
"""
FORGER = """\
import json, os
lines = [["open", "../../etc/passwd"], ["native", "/etc/shadow"], ["end", "forger", ""], ["open", ["x"]], 7]
for fd in range(3, 16):
    try:
        for line in lines: os.write(fd, json.dumps(line).encode() + b"\\n")
        os.write(fd, b"[" * 100000 + b"\\n" + b"9" * 5000 + b"\\n\\xff\\n")
        os.write(fd, bytes(30 << 20))
    except OSError: pass
"""


class Curator:
    """Publishes wheels of version 1.0 to a folder shelf."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shelf = folder / "shelf"
        self.env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder / "wheels"), "SECRET": "1"}
        self._pins: list[str] = []

    def wheel(self, name: str, files: Mapping[str, str | bytes], **options: object) -> None:
        """Make a wheel and put it on the list."""
        build_wheel(self.folder / "wheels", name, "1.0", files, **options)  # type: ignore[arg-type]
        self._pins.append(f"{name}==1.0\n")

    def command(self, *arguments: str) -> tuple[str, ...]:
        """Write the list; return the arguments that publish it."""
        (self.folder / "requirements.txt").write_text("".join(self._pins))
        return ("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), *arguments)

    def publish(self, *arguments: str) -> Ran:
        """Publish the list."""
        return run_shelf(*self.command(*arguments), env=self.env, cwd=self.folder)

    def verify(self) -> str:
        """Return what ``shelf verify`` says."""
        return run_shelf("verify", "--shelf", self.shelf).ok()


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    bubblewrap()
    return Curator(tmp_path)


def test_hostile_imports(curator: Curator) -> None:
    """Code that looks around, forges reports, floods, ends the process or leaves a daemon stays inside."""
    mark = f"mark-{os.getpid()}-hostile"
    curator.wheel("probe", {"probe.py": PROBE})
    curator.wheel("forger", {"forger.py": FORGER})
    curator.wheel("flood", {"flood.py": "import os\nfor _ in range(300): os.write(2, b'x' * (1 << 20))\n"})
    curator.wheel("killer", {"killer.py": "import os\nos.kill(os.getppid(), 9)\nos.kill(0, 9)\n"})
    curator.wheel("daemon", {"daemon.py": DAEMON.format(seconds=0).replace("#", "") + f"mark = '{mark}'\n"})
    curator.wheel("many", {f"many{n}.py": "raise RuntimeError('\\x9b31m')\n" for n in range(100)})
    ran = curator.publish()
    assert "6 published" in ran.ok()
    assert "PermissionError FileNotFoundError FileNotFoundError OSError None False False" in ran.stderr
    assert "killer cannot be imported in the sandbox: the process ended with status 137" in ran.stderr
    assert ran.stderr.count("note: many==1: many") == 20
    assert "note: many==1: and 80 more notes" in ran.stderr
    assert "\x9b" not in ran.stderr
    assert gone(mark)
    assert curator.verify() == "6 builds checked, 0 problems"


def test_odd_wheels(curator: Curator) -> None:
    """Folders with names of files that matter, and the marks of an installer, do no harm."""
    curator.wheel("folders", {"x.pth/y.py": "", "folders-1.0.data/purelib/y/z.dist-info/METADATA/x": ""})
    marks = {f"marks-1.0.dist-info/{name}": "{}" for name in ("direct_url.json", "REQUESTED")}
    curator.wheel("marks", {"marks.py": "", **marks})
    ran = curator.publish()
    assert "2 published" in ran.ok()
    for name in ("direct_url.json", "REQUESTED"):
        assert f"note: marks==1: 'marks-1.0.dist-info/{name}' is left out" in ran.stderr
    assert curator.verify() == "2 builds checked, 0 problems"


def test_entry_points_that_make_no_sense(curator: Curator) -> None:
    """A script without a function is refused, and the line says where it stands."""
    curator.wheel("scripts", {"scripts.py": ""}, entry_points="[console_scripts]\nfoo = os\n")
    ran = curator.publish()
    assert ran.returncode == 1
    assert "refused: entry_points.txt is not valid" in ran.stderr


def test_metadata_steers_no_terminal(curator: Curator) -> None:
    """``show`` shows requirements as they are, brackets too, without what a terminal or rich would obey."""
    requires = "Provides-Extra: e\nRequires-Dist: rich-one[e] ; extra == 'e'\nRequires-Python: >=3\x9b31m\n"
    curator.wheel("rich-one", {"r.py": ""}, metadata=METADATA.format(name="rich-one") + requires)
    curator.publish().ok()
    assert "rich-one[e] ; extra == 'e'" in run_shelf("show", "rich-one==1", "--shelf", curator.shelf).ok()


def test_restrictive_umask(curator: Curator) -> None:
    """A curator whose new files nobody else may read traces all the same."""
    curator.wheel("demo", {"demo/__init__.py": "from demo import deep\n", "demo/deep.py": ""})
    old = os.umask(0o077)
    try:
        ran = curator.publish()
    finally:
        os.umask(old)
    assert "1 published" in ran.ok()
    assert "cannot be imported" not in ran.stderr


def test_package_that_writes_into_its_folder_without_a_sandbox(curator: Curator) -> None:
    """Without a sandbox, what a package writes into its own folder while it is traced is not published."""
    code = "open(__file__.replace('__init__.py', 'cache.txt'), 'w').write('new')\n"
    curator.wheel("demo", {"demo/__init__.py": code, "demo/cache.txt": "old"})
    curator.publish("--sandbox", "none").ok()
    assert curator.verify() == "1 build checked, 0 problems"


def test_full_temporary_folder(curator: Curator) -> None:
    """A disk that fills up while wheels are installed is one line that names the pin."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20)); " + COMMAND[1]
    )
    curator.wheel("large", {"large.bin": bytes(8 << 20)})
    done = subprocess.run(
        [sys.executable, "-c", code, *curator.command()],
        env=publisher_environment(curator.env),
        cwd=curator.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if "error" in line]
    assert done.returncode == 1
    assert len(lines) == 1
    assert "large==1" in lines[0]


@pytest.mark.parametrize("executor", ["processes", "threads"])
def test_interrupted(curator: Curator, executor: str) -> None:
    """Ctrl-C lets what runs end, begins nothing more and leaves nothing in the temporary folder."""
    for number in range(6):
        curator.wheel(f"slow{number}", {f"slow{number}.py": "import time\ntime.sleep(3)\n"})
    temporary = curator.folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *curator.command("--jobs", "1", "--executor", executor)],
        env=publisher_environment({**curator.env, "TMPDIR": str(temporary)}),
        cwd=curator.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "publish" not in process.stderr.readline():
        assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert time.monotonic() - began < 10
    assert list(temporary.iterdir()) == []


ORPHAN = """\
import sys
from tests.integration.test_sandbox import PUBLISHER
from shelf_tools import process
real = process.run
def run(argv, **options):
    if "bwrap" in argv:
        print(flush=True)
    return real(argv, **options)
process.run = run
exec(PUBLISHER)
"""


def test_publisher_that_dies_while_a_sandbox_starts() -> None:
    """Whatever moment of a sandbox's start its publisher is killed at, its processes end by themselves."""
    mark = f"mark-{os.getpid()}-start"
    for milliseconds in range(2, 70, 3):
        publisher = subprocess.Popen(
            [sys.executable, "-c", ORPHAN, DAEMON.format(seconds=600) + f"#{mark}"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
        )
        assert publisher.stdout is not None
        for _ in range(2):  # the probe of open_sandbox, and the run
            publisher.stdout.readline()
        time.sleep(milliseconds / 1000)
        publisher.kill()
        publisher.wait()
        publisher.stdout.close()
        assert gone(mark), [(pid, what_is(pid)) for pid in left(mark)]


def what_is(pid: int) -> str:
    """Return what there is to say of a process that should not be there."""
    said = []
    for name in ("cmdline", "stat", "wchan"):
        try:
            said.append(
                (Path("/proc") / str(pid) / name).read_text(errors="replace").replace("\0", " ")[-300:]
            )
        except OSError as error:
            said.append(str(error))
    return " | ".join(said)
