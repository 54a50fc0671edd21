"""The interpreter's flags, and poor places to run in: the same results as with pip-installed packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.installed import REQUESTS, publish_installed
from tests.support.runtimes import make_runtime, running_version
from tests.support.shelves import MadeShelf

PROGRAM = """
import importlib.metadata, os, ssl, subprocess, sys, warnings
import requests, requests.adapters, certifi, idna
def where(module):
    return os.path.relpath(module.__file__, ROOT)
context = ssl.create_default_context(cafile=certifi.where())
print(requests.__version__, where(requests), where(idna), importlib.metadata.version("urllib3"))
print(len(context.get_ca_certs()) > 100, bool(requests.get.__doc__), sys.flags.optimize)
print(requests.Request("GET", "https://example.org/", params={"q": "a b"}).prepare().url)
import inspect
print(inspect.getsource(requests.get).splitlines()[0])
"""
FROM_SHELF = """
import sys
sys.path += {extra!r}
import cloudimport
ROOT = cloudimport.install(lock={lock!r}).root
"""
FROM_PIP = """
import sys
sys.path += {extra!r}
ROOT = {plain!r}
sys.path.insert(1, ROOT)
"""


@dataclass
class World:
    """A shelf, the same files as pip would leave them, and an interpreter that has the runtime."""

    folder: Path
    shelf: MadeShelf
    plain: Path
    python: str

    def both(
        self,
        *flags: str,
        env: dict[str, str] | None = None,
        before: tuple[str, ...] = (),
        python: str = "",
    ) -> str:
        """Run the program from pip's folder and from the shelf; what both print is the same."""
        said = {}
        site = str(next(Path(self.python).parents[1].glob("lib/python*/site-packages")))
        values = {"lock": str(self.shelf.lock), "plain": str(self.plain), "extra": [site]}
        for side, prelude in (("pip", FROM_PIP), ("shelf", FROM_SHELF)):
            script = self.folder / f"{side}.py"
            script.write_text(prelude.format(**values) + PROGRAM)
            script.chmod(0o644)
            done = subprocess.run(
                [*before, python or self.python, *flags, str(script)],
                capture_output=True,
                text=True,
                timeout=120,
                cwd="/",
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), **(env or {})},
                check=False,
            )
            assert done.returncode == 0, f"{side}: {done.stderr}"
            said[side] = done.stdout
        assert said["shelf"] == said["pip"]
        return said["shelf"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Requests and what it needs, for users other than this one as well."""
    folder = tmp_path_factory.mktemp("flags")
    shelf = MadeShelf(folder / "work")
    publish_installed(shelf, *REQUESTS)
    shelf.environment()
    plain = folder / "plain"
    for tree in sorted((folder / "work").glob("*/tree")):
        shutil.copytree(tree, plain, dirs_exist_ok=True)
    (folder / "home").mkdir()
    return World(folder, shelf, plain, make_runtime(running_version(), folder / "runtime"))


@pytest.mark.parametrize(
    "flags",
    [
        "-X importtime",
        "-W error",
        "-O",
        "-OO",
        "-I",
        "-E",
        "-s",
        "-S",
        "-B",
        "-X dev -W ignore",
        "-b",
        "-X utf8",
    ],
)
def test_flags(world: World, flags: str) -> None:
    """Whatever the flags, modules, metadata and data are those that pip's folder gives."""
    world.both(*flags.split())


def test_bytecode_settings(world: World, tmp_path: Path) -> None:
    """Variables that say where bytecode goes change nothing, and none is written below the site tree."""
    world.both(env={"PYTHONDONTWRITEBYTECODE": "1"})
    world.both(env={"PYTHONPYCACHEPREFIX": str(tmp_path / "prefix")})
    world.both(env={"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "1"})
    assert not [path for path in (world.folder / "home").rglob("__pycache__") if "trees" in str(path)]


SYSTEM_PYTHON = Path("/usr/bin/python3")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.skipif(
    SYSTEM_PYTHON.resolve().name != f"python{running_version()}",
    reason="other users can reach only the system's interpreter, which is of another version",
)
def test_other_user_without_a_home(world: World) -> None:
    """A user who can write to no HOME runs from a temporary folder."""
    temporary = Path(tempfile.gettempdir())
    for folder in (world.folder, *world.folder.parents):
        if folder == temporary:
            break
        folder.chmod(0o755)
    become = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    closed = world.folder / "closed"
    closed.mkdir(mode=0o755)
    for home in ("/nonexistent", str(closed)):
        world.both(env={"HOME": home}, before=become, python=str(SYSTEM_PYTHON))


@pytest.mark.skipif(not shutil.which("bwrap"), reason="apt-get install bubblewrap")
def test_read_only_root_with_a_small_temporary_folder(world: World) -> None:
    """With nothing to write to but 8 MB it works, as in Lambda, and with nothing at all."""
    home = str(world.folder / "home")
    inside = ("bwrap", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc")
    small = (*inside, "--size", str(8 << 20), "--tmpfs", home)
    world.both(env={"CLOUDIMPORT_CACHE": f"{home}/cache", "TMPDIR": home}, before=small)
    world.both(env={"TMPDIR": home}, before=small)
    nothing = {"HOME": "/nonexistent", "CLOUDIMPORT_CACHE": "/nonexistent/cache", "TMPDIR": "/nonexistent"}
    ran = subprocess.run(
        [
            *inside,
            world.python,
            "-c",
            FROM_SHELF.format(extra=[], lock=str(world.shelf.lock)) + "import idna",
        ],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], **nothing},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
