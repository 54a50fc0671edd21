"""Well-known distributions from many fields, chosen when all was built: their modules and first examples."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.runtimes import install_packages, make_runtime, running_version
from tests.support.shelfcommand import run_shelf

HERE = Path(__file__).parent / "examples"
#: Seconds for one of them on a busy machine with nothing in the cache: librosa compiles for a minute.
_TIMEOUT = 900
GROUPS = {
    "nature": "rdkit astropy netcdf4 pysam timezonefinder",
    "signs": "librosa spacy statsmodels pygame reportlab lark jedi black",
    "work": "quantlib pulp z3_solver confluent_kafka celery twisted distributed",
}
_ADDRESS = re.compile(r"0x[0-9a-f]{6,}")


@dataclass
class World:
    """A group installed by pip, and on a shelf."""

    folder: Path
    plain: Path
    runtime: str

    def run(self, side: str, what: str, name: str) -> object:
        """Run an example, or import all modules, in a fresh interpreter with an empty cache."""
        home = self.folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        path, env = [str(self.plain)], {}
        if side == "shelf":
            path, env = [], {"CLOUDIMPORT_LOCK": str(self.folder / "lock")}
        runner = Runner(home, self.runtime, path, _TIMEOUT)
        ran = runner.run_script(HERE / "run_example.py", what, name, env=env, cwd=home)
        said = ran.stdout.strip().splitlines()[-1] if ran.returncode == 0 else json.dumps(ran.stderr[-3000:])
        [*_, root] = sorted(str(p) for p in home.rglob("v1/trees/*/site")) or [str(self.plain)]
        return json.loads(_ADDRESS.sub("0x…", said.replace(root, "<root>")))


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter with the runtime alone."""
    folder = tmp_path_factory.mktemp("runtime")
    folder.chmod(0o755)
    return make_runtime(running_version(), folder)


@pytest.fixture(scope="module", params=GROUPS)
def world(request: pytest.FixtureRequest, runtime: str, tmp_path_factory: pytest.TempPathFactory) -> World:
    """One group on both sides."""
    version, folder = running_version(), tmp_path_factory.mktemp(request.param)
    folder.chmod(0o755)
    pins = HERE / f"requirements-{request.param}-{version}.txt"
    if not pins.exists():
        pytest.skip(f"their pins are for other Pythons than {version}")
    run_shelf(
        "publish", "-r", pins, "--level", "3", "--shelf", folder / "shelf", "--lock", folder / "lock"
    ).ok()
    return World(folder, install_packages(version, pins, folder / "plain"), runtime)


def test_all_are_run() -> None:
    """Each function of the examples belongs to a group."""
    tree = ast.parse((HERE / "examples.py").read_text())
    functions = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and not n.args.args]
    assert sorted(name for name in functions if name[0] != "_") == sorted(" ".join(GROUPS.values()).split())


@pytest.mark.long
@pytest.mark.network
@pytest.mark.timeout(7200)
def test_modules_and_example(world: World) -> None:
    """They come to the same as under pip."""
    different = {}
    for name in GROUPS[re.sub(r"\d+$", "", world.folder.name)].split():
        for what in ("modules", "example"):
            theirs, ours = (world.run(side, what, name) for side in ("pip", "shelf"))
            assert isinstance(theirs, dict), f"{name} fails under pip: {theirs}"
            count = f"{list(theirs.values()).count('ok')} of {len(theirs)}" if what == "modules" else ""
            sys.stdout.write(f"{name} {what} {count} {'same' if ours == theirs else 'DIFFERENT'}\n")
            if ours != theirs:
                different[f"{name} {what}"] = (theirs, ours)
    assert different == {}
