"""For each limit, a package that passes it, and the line that the curator sees."""

from __future__ import annotations

import contextlib
import re
import socket
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cloudimport.ids import Pin, running_targets
from shelf_tools import install
from shelf_tools.inspect import Shelf
from shelf_tools.install import InstallError
from shelf_tools.limits import BUILD, FETCH, INSTALL, STAGES, TABLE, TRACE, Stage, StageLimits, parse
from tests.integration.hostile.page import PAGE as SECURITY
from tests.integration.hostile.row import pattern
from tests.integration.overuse import ALL, CODE, LOW, LOW_FETCH, LOW_INSTALL, Overuse, overuse, table
from tests.support.children import Ran
from tests.support.sandboxes import bubblewrap
from tests.support.sdists import build_sdist, own_backend
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

TARGET = running_targets()[0]


class Curator:
    """Publishes what lies in one folder, with limits of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index = folder, folder / "index"
        self.shelf = folder / "shelf"
        self.env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.index), "UV_OFFLINE": "1"}
        self.index.mkdir()

    def publish(self, *arguments: str, pins: tuple[str, ...]) -> Ran:
        """Publish pins."""
        (self.folder / "requirements.txt").write_text("".join(f"{pin}\n" for pin in pins))
        command = ("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), *arguments)
        return run_shelf(*command, env=self.env, cwd=self.folder)


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    bubblewrap()
    return Curator(tmp_path)


def flags(stage: Stage) -> list[str]:
    """Return the flags that set every limit of a stage low."""
    return [part for one in ALL if one.stage is stage for part in (one.flag, one.value)]


def missing(stage: Stage, said: str) -> list[str]:
    """Return the limits of a stage of which no line, with the package's name, has been said."""
    return [one.limit for one in ALL if one.stage is stage and not is_said(one, said)]


def is_said(one: Overuse, said: str) -> bool:
    """Whether a line is as it is documented, to its end; of address space the guard may have seen nothing."""
    lines = [pattern(one.seen)]
    if one.limit == "address-space":
        what = one.line.partition(" while")[0].removeprefix("used ")
        lines.append(pattern(f"…over-{one.limit}==1: …, or {what} ({one.flag})"))
    return any(re.search(f"^{line}$", said, re.MULTILINE) for line in lines)


def test_every_limit_is_tried() -> None:
    """A limit that is added to the table needs a package that passes it, in each stage that has it."""
    assert list(CODE) == list(LOW) == list(LOW_INSTALL) == [limit.name for limit in TABLE]
    assert set(LOW_FETCH) == {limit.name for limit in FETCH.table}
    assert {one.stage.name for one in ALL} == {stage.name for stage in STAGES}


def test_page_has_every_limit() -> None:
    """docs/security.md has the lines; `python -m tests.integration.hostile.page` writes them."""
    assert table() in SECURITY.read_text(encoding="utf-8")


def sampled(names: Iterable[str], *sample: str) -> list[Any]:
    """Return parameters of which those in ``sample`` are tried in every run."""
    return [pytest.param(name, marks=[] if name in sample else [pytest.mark.long]) for name in names]


@pytest.mark.parametrize("name", sampled(LOW_FETCH, "largest-file", "wall-time"))
def test_wheels_that_pass_a_limit_when_they_are_fetched(curator: Curator, name: str) -> None:
    """A wheel for which pip would take too much is an error that names the limit."""
    one = overuse(FETCH, name)
    wide = "".join(map(str, range(600_000)))  # 3 MB that are stored as they are
    files = {"over.py": "", **({"over.bin": wide} if name == "largest-file" else {})}
    wheel = build_wheel(curator.index, f"over-{name}", "1.0", files)
    if name == "memory":
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("over_memory-1.0.dist-info/LICENSE", bytes(512 << 20), zipfile.ZIP_DEFLATED)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        if name == "wall-time":
            curator.env = {"PIP_INDEX_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/"}
        ran = curator.publish(one.flag, one.value, pins=(f"over-{name}==1.0",))
    assert ran.returncode == 1
    assert is_said(one, ran.stderr), ran.stderr
    assert not any(curator.shelf.glob("packages/*"))


def test_imports_that_pass_a_limit(curator: Curator) -> None:
    """A package that takes too much when it is imported is published, and its note names the limit."""
    for name, (_, code) in CODE.items():
        build_wheel(curator.index, f"over-{name}", "1.0", {f"over_{name.replace('-', '_')}.py": code})
    ran = curator.publish(*flags(TRACE), pins=tuple(f"over-{name}==1.0" for name in CODE))
    assert "10 published" in ran.ok()
    assert missing(TRACE, ran.stderr) == [], ran.stderr


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("memory", "processes", "scratch"), id="sample"),
        pytest.param(tuple(CODE), id="all", marks=pytest.mark.long),
    ],
)
def test_builds_that_pass_a_limit(curator: Curator, names: tuple[str, ...]) -> None:
    """A package that takes too much when it is built is an error, and its line names the limit."""
    for name in names:
        build_sdist(curator.index, f"over-{name}", "1.0", own_backend("over", before=CODE[name][1]))
    allowed = [part for name in names for part in ("--allow-sdist", f"over-{name}")]
    ran = curator.publish(*flags(BUILD), *allowed, pins=tuple(f"over-{name}==1.0" for name in names))
    assert ran.returncode == 1
    assert not set(missing(BUILD, ran.stderr)) & set(names), ran.stderr
    assert ran.stderr.count("shelf: error: ") == len(names)
    assert not any(curator.shelf.glob("packages/*"))


#: Generated code that the compiler needs long for, and much memory.
WIDE = "x = [" + "{'a': [1, 2, (3, 4)], 'b': f'{len([])}'}, " * 60_000 + "]\n"


@pytest.mark.parametrize(
    "name", sampled([name for name in LOW_INSTALL if name != "scratch"], "memory", "wall-time", "files")
)
def test_installs_that_pass_a_limit(curator: Curator, name: str) -> None:
    """A wheel that takes too much to be unpacked and compiled is an error, or a note on what stays source."""
    one = overuse(INSTALL, name)
    files = {"over/data.bin": bytes(4 << 20), **{f"over/wide{n}.py": WIDE for n in range(4)}}
    build_wheel(curator.index, f"over-{name}", "1.0", files)
    ran = curator.publish(one.flag, one.value, pins=(f"over-{name}==1.0",))
    assert is_said(one, ran.stderr), ran.stderr
    if ran.returncode:
        assert not any(curator.shelf.glob("packages/*"))


def test_an_installer_that_passes_the_limit_on_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No code of a wheel's runs while it is installed; one that has taken the installer over is held too."""
    one = overuse(INSTALL, "scratch")
    wheel = build_wheel(tmp_path, "over-scratch", "1.0", {"over.py": ""})
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "install_wheel.py").write_text(CODE["scratch"][1])
    monkeypatch.setattr(install, "scripts", lambda *_: contextlib.nullcontext(inside))
    limits = StageLimits.of({"install": {"scratch": parse(TABLE[-1], one.value)}}).install
    sandbox, into = bubblewrap(), tmp_path / "into"
    with pytest.raises(InstallError) as caught:
        install.install(wheel, Pin.parse("over-scratch==1"), TARGET, None, sandbox, limits, into=into)
    assert is_said(one, str(caught.value))


def test_memory_of_all_processes_counts(curator: Curator) -> None:
    """Processes that stay below the limit each, and pass it together, are ended."""
    code = (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = bytearray(b'x') * (60 << 20)\n        time.sleep(60)\ntime.sleep(60)"
    )
    build_wheel(curator.index, "over-memory", "1.0", {"over.py": code})
    ran = curator.publish("--trace-memory", "192MiB", "--trace-wall-time", "40", pins=("over-memory==1.0",))
    ran.ok()
    assert overuse(TRACE, "memory").line in ran.stderr
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
