"""Every way in which popular packages, and their users, open data that lies inside a package."""

from __future__ import annotations

import ast
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.children import Ran, Runner
from tests.support.runtimes import install_packages, make_runtime, running_version
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

HERE = Path(__file__).parent / "opening"
#: Of these ways the helper finds all; without it, the ones that are found by other means.
WITHOUT_HELPER = 37
#: Seconds that one of them may take, on a busy machine with nothing in the cache.
_TIMEOUT = 300


def ways() -> list[str]:
    """Return the names of the functions of ``ways.py`` that take nothing."""
    functions = [n for n in ast.parse((HERE / "ways.py").read_text()).body if isinstance(n, ast.FunctionDef)]
    return [f.name for f in functions if not f.args.args and not f.args.vararg]


@dataclass
class World:
    """The same packages installed by pip, and on a shelf."""

    folder: Path
    plain: Path
    runtime: str

    def from_pip(self, name: str) -> str:
        """Run one way with the installed packages, in the interpreter that has nothing else."""
        runner = Runner(self._home(), self.runtime, [str(self.plain)], _TIMEOUT)
        return _normal(runner.run_script(HERE / "ways.py", name), str(self.plain))

    def from_shelf(self, name: str, **env: str) -> str:
        """Run one way with the shelf's packages and an empty cache."""
        home = self._home()
        settings = {"CLOUDIMPORT_LOCK": str(self.folder / "lock"), "WAYS": str(HERE / "ways.py"), **env}
        ran = Runner(home, self.runtime, [], _TIMEOUT).run_script(HERE / "from_shelf.py", name, env=settings)
        [*_, root] = sorted(str(path) for path in home.rglob("v1/trees/*/site")) or ["-"]
        return _normal(ran, root)

    def _home(self) -> Path:
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        return home


def _normal(ran: Ran, root: str) -> str:
    """Return what a program printed, or the last line of what it complained of."""
    said = ran.stdout if ran.returncode == 0 else f"{ran.stdout}{ran.stderr.splitlines()[-1:]}"
    return said.replace(root, "<root>")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Some eighty distributions, and one with samples of many formats."""
    folder = tmp_path_factory.mktemp("opening")
    folder.chmod(0o755)
    version = running_version()
    plain = install_packages(version, HERE / "requirements.txt", folder / "plain")
    runtime = make_runtime(version, folder / "runtime")
    world = World(folder, plain, runtime)
    maker = Runner(world._home(), runtime, [str(plain)], _TIMEOUT)
    maker.run_script(HERE / "samples.py", str(plain / "manyfiles/data")).ok()
    (plain / "manyfiles/__init__.py").touch()
    files = {
        f"manyfiles/data/{path.name}": path.read_bytes() for path in (plain / "manyfiles/data").iterdir()
    }
    build_wheel(folder / "wheels", "manyfiles", "1.0", {"manyfiles/__init__.py": "", **files})
    pins = folder / "requirements.txt"
    pins.write_text((HERE / "requirements.txt").read_text() + "manyfiles==1.0\n")
    links = f"{os.environ.get('PIP_FIND_LINKS', '')} {folder / 'wheels'}".strip()
    where = ("--shelf", folder / "shelf", "--lock", folder / "lock")
    published = run_shelf("publish", "-r", pins, "--level", "3", *where, env={"PIP_FIND_LINKS": links})
    assert "published" in published.ok(), published.stderr
    return world


@pytest.mark.long
@pytest.mark.network
@pytest.mark.timeout(5400)
def test_every_way(world: World) -> None:
    """All are found with the native helper, and give what they give under pip."""
    expected = {name: world.from_pip(name) for name in ways()}
    assert len(expected) >= 41
    assert [name for name, said in expected.items() if "Error" in said or not said.strip()] == []
    helped = {name: world.from_shelf(name) for name in expected}
    alone = {name: world.from_shelf(name, CLOUDIMPORT_NATIVE="0") for name in expected}
    found = [name for name in expected if alone[name] == expected[name]]
    sys.stdout.write(
        f"{len(expected)} ways of opening data; without the helper {len(found)}, not "
        f"{', '.join(sorted(expected.keys() - found))}\n"
    )
    assert helped == expected
    assert len(found) >= WITHOUT_HELPER
