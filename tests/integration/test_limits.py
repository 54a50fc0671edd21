"""For each limit, a package that passes it, and the line that the curator sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.ids import Pin
from shelf_tools.inspect import Shelf
from shelf_tools.limits import TABLE, StageLimits
from tests.support.children import Ran
from tests.support.sandboxes import bubblewrap
from tests.support.sdists import build_sdist, own_backend
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

#: What a module, or a build, does to pass each limit.
CODE = {
    "memory": "import time\nx = []\nwhile True: x.append(bytearray(1 << 20)); time.sleep(0.002)",
    "address-space": (
        "import mmap, os, time\nx = []\n"
        "f = os.open('/tmp/x', os.O_RDWR | os.O_CREAT)\nos.truncate(f, 1 << 21)\n"
        "while True: x.append(mmap.mmap(f, 1 << 21, prot=mmap.PROT_READ)); time.sleep(0.001)"
    ),
    "cpu-time": "while True: pass",
    "wall-time": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\ntime.sleep(600)"
    ),
    "processes": "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(60)",
    "open-files": "x = [open('/dev/null') for _ in range(2000)]",
    "largest-file": "f = open('/tmp/x', 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 16))",
    "output": "for n in range(99): open('/out/%d' % n, 'wb').write(bytes(1 << 20))",
    "files": "for n in range(10**6): open('/tmp/%d' % n, 'wb').close()",
    "scratch": "for n in range(99): open('/tmp/%d' % n, 'wb').write(bytes(1 << 20))",
}
#: Values that take little to pass, each of them by its own package alone.
LOW = {
    "memory": ("192MiB", "used more than 192 MiB of memory"),
    "address-space": ("1GiB", "used more than 1 GiB of address space"),
    "cpu-time": ("2", "took more than 2 s of processor time"),
    "wall-time": ("20s", "took longer than 20 s"),
    "processes": ("30", "had more than 30 processes and threads"),
    "open-files": ("1500", "had more than 1500 open files"),
    "largest-file": ("2MiB", "wrote a file of more than 2 MiB"),
    "output": ("4MiB", "wrote more than 4 MiB of output"),
    "files": ("300", "made more than 300 files and folders"),
    "scratch": ("8MiB", "wrote more than 8 MiB of temporary files"),
}


class Curator:
    """Publishes what lies in one folder, with limits of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder, folder / "index"
        self.shelf = folder / "shelf"
        self.index.mkdir()

    def publish(self, *arguments: str, pins: tuple[str, ...]) -> Ran:
        """Publish pins."""
        (self.folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "UV_OFFLINE": "1"}
        command = ("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), *arguments)
        return run_shelf(*command, env=env, cwd=self.folder)


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    bubblewrap()
    return Curator(tmp_path)


def flags(stage: str) -> list[str]:
    """Return the flags that set every limit of a stage low."""
    return [part for name, (value, _) in LOW.items() for part in (f"--{stage}-{name}", value)]


def line(stage: str, name: str, doing: str) -> str:
    """Return what the curator has to read; a guess has a word more in front."""
    return f"{LOW[name][1]} while it was {doing} (--{stage}-{name})"


def missing(stage: str, doing: str, said: str) -> list[str]:
    """Return the limits of which no line, with the package's name, has been said."""
    lines = [text for text in said.splitlines() if "over" in text]
    return [
        name
        for name in LOW
        if not any(f"over-{name}==1" in text and text.endswith(line(stage, name, doing)) for text in lines)
    ]


def test_every_limit_is_tried() -> None:
    """A limit that is added to the table needs a package that passes it."""
    assert list(CODE) == list(LOW) == [limit.name for limit in TABLE]


def test_imports_that_pass_a_limit(curator: Curator) -> None:
    """A package that takes too much when it is imported is published, and its note names the limit."""
    for name, code in CODE.items():
        build_wheel(curator.index, f"over-{name}", "1.0", {f"over_{name.replace('-', '_')}.py": code})
    ran = curator.publish(*flags("trace"), pins=tuple(f"over-{name}==1.0" for name in CODE))
    assert "10 published" in ran.ok()
    assert missing("trace", "imported", ran.stderr) == [], ran.stderr


def test_builds_that_pass_a_limit(curator: Curator) -> None:
    """A package that takes too much when it is built is an error, and its line names the limit."""
    for name, code in CODE.items():
        build_sdist(curator.index, f"over-{name}", "1.0", own_backend("over", before=code))
    allowed = [part for name in CODE for part in ("--allow-sdist", f"over-{name}")]
    ran = curator.publish(*flags("build"), *allowed, pins=tuple(f"over-{name}==1.0" for name in CODE))
    assert ran.returncode == 1
    assert missing("build", "built", ran.stderr) == [], ran.stderr
    assert ran.stderr.count("shelf: error: ") == len(CODE)
    assert not any(curator.shelf.glob("packages/*"))


#: Generated code that the compiler needs long for, and much memory.
WIDE = "x = [" + "{'a': [1, 2, (3, 4)], 'b': f'{len([])}'}, " * 60_000 + "]\n"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("memory", "64MiB", "used more than 64 MiB of memory"),
        ("address-space", "80MiB", "used more than 80 MiB of address space"),
        ("cpu-time", "1", "took more than 1 s of processor time"),
        ("wall-time", "1s", "took longer than 1 s"),
        ("processes", "2", "had more than 2 processes and threads"),
        ("open-files", "5", "had more than 5 open files"),
        ("largest-file", "1MiB", "wrote a file of more than 1 MiB"),
        ("output", "1MiB", "wrote more than 1 MiB of output"),
        ("files", "5", "made more than 5 files and folders"),
    ],
)
def test_installs_that_pass_a_limit(curator: Curator, name: str, value: str, said: str) -> None:
    """A wheel that takes too much to be unpacked and compiled is an error, or a note on what stays source.

    Temporary files are no part of it: nothing is written there, since no code of the package runs.
    """
    files = {"over/data.bin": bytes(4 << 20), **{f"over/wide{n}.py": WIDE for n in range(4)}}
    build_wheel(curator.index, "over", "1.0", files)
    ran = curator.publish(f"--install-{name}", value, pins=("over==1.0",))
    assert f"{said} while it was installed (--install-{name})" in ran.stderr
    assert "over==1: " in ran.stderr
    if ran.returncode:
        assert not any(curator.shelf.glob("packages/*"))


def test_memory_of_all_processes_counts(curator: Curator) -> None:
    """Processes that stay below the limit each, and pass it together, are ended."""
    code = (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x') * (60 << 20)\n        time.sleep(60)\ntime.sleep(60)"
    )
    build_wheel(curator.index, "over-memory", "1.0", {"over.py": code})
    ran = curator.publish("--trace-memory", "192MiB", "--trace-wall-time", "40", pins=("over-memory==1.0",))
    ran.ok()
    assert line("trace", "memory", "imported") in ran.stderr
    assert "probably" not in ran.stderr


def test_memory_that_is_shared_counts_once(curator: Curator) -> None:
    """Processes that were forked from a large one have its memory, once."""
    code = (
        "import os, time\nx = bytearray(b'x') * (100 << 20)\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        time.sleep(2)\n        os._exit(0)\nfor _ in range(8): os.wait()"
    )
    build_wheel(curator.index, "wide", "1.0", {"wide.py": code})
    ran = curator.publish("--trace-memory", "300MiB", pins=("wide==1.0",))
    assert "1 published" in ran.ok()
    assert "cannot be imported" not in ran.stderr


def test_a_package_that_copes_with_a_limit_is_left_alone(curator: Curator) -> None:
    """What the kernel refuses at a limit is no reason to end a package that can do without."""
    code = (
        "import threading, time\ndone = threading.Event()\nmade = 0\ntry:\n"
        "    while made < 100:\n        threading.Thread(target=done.wait, daemon=True).start()\n"
        "        made += 1\n"
        "except RuntimeError: pass\ntime.sleep(1)\ndone.set()\nassert made < 40"
    )
    build_wheel(curator.index, "coping", "1.0", {"coping.py": code})
    ran = curator.publish("--trace-processes", "40", pins=("coping==1.0",))
    assert "1 published" in ran.ok()
    assert "cannot be imported" not in ran.stderr


def test_without_a_sandbox_sums_are_limited_too(curator: Curator) -> None:
    """Where nothing else counts them, the guard ends a run with too many processes."""
    code = (
        "import os, time\nfor _ in range(60):\n    if os.fork() == 0:\n        time.sleep(30)\n"
        "        os._exit(0)\ntime.sleep(30)"
    )
    build_wheel(curator.index, "over-processes", "1.0", {"over.py": code})
    ran = curator.publish("--trace-processes", "40", "--sandbox", "none", pins=("over-processes==1.0",))
    ran.ok()
    assert "had more than 40 processes and threads while it was imported (--trace-processes)" in ran.stderr
    assert "probably" not in ran.stderr


def test_config_file_and_flags(curator: Curator) -> None:
    """Limits of ``shelf.toml`` hold, a flag wins over them, and provenance says which held."""
    build_wheel(curator.index, "demo", "1.0", {"demo.py": ""})
    (curator.folder / "shelf.toml").write_text(
        "[limits.install]\nmemory = '1GiB'\nprocesses = 33\n[limits.trace]\nwall-time = '2min'\n"
    )
    curator.publish("--install-memory", "700M", "--trace-files", "77", pins=("demo==1.0",)).ok()
    (shown,) = Shelf(str(curator.shelf), {}).show(Pin.parse("demo==1"))
    expected = StageLimits.of(
        {"install": {"memory": 700 << 20}, "trace": {"files": 77}},
        {"install": {"memory": 1, "processes": 33}, "trace": {"wall-time": 120}},
    )
    assert shown.provenance["limits"] == {"install": vars(expected.install), "trace": vars(expected.trace)}
    assert expected.install.memory_bytes == 700 << 20
    (curator.folder / "shelf.toml").write_text("[limits.install]\nmemroy = 1\n")
    ran = curator.publish(pins=("demo==1.0",))
    assert ran.returncode == 1
    assert "limits.install: there are the keys memory, address-space" in ran.stderr


def test_wrong_values_are_refused_at_once(curator: Curator) -> None:
    """A flag's value that is no size is wrong usage, with an example."""
    ran = curator.publish("--build-memory", "lots", pins=("demo==1.0",))
    assert ran.returncode == 2
    assert "--build-memory: 'lots' is no bytes: write such as 2GiB or 512MiB" in ran.stderr
