"""The own test suites of packages, run from the shelf: the same tests pass and fail as under pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.children import Runner
from tests.support.runtimes import install_packages, make_runtime, running_version
from tests.support.shelfcommand import run_shelf

HERE = Path(__file__).parent / "suites"
#: Seconds for one run of one suite on a busy machine.
_TIMEOUT = 3000
#: What is run of each package that ships its tests: what takes a minute or two.
SHIPPED = {
    "numpy": ("--pyargs", "numpy._core", "numpy.lib", "numpy.linalg", "numpy.random", "-m", "not slow"),
    "pandas": ("--pyargs", "pandas.tests.indexing", "pandas.tests.reshape", "pandas.tests.strings"),
    "scipy": ("--pyargs", "scipy.linalg.tests.test_basic", "scipy.interpolate.tests.test_interpolate"),
    "sklearn": ("--pyargs", "sklearn.tree.tests", "sklearn.linear_model.tests.test_base"),
    "networkx": ("--pyargs", "networkx.algorithms", "networkx.classes", "networkx.readwrite"),
    "sympy": ("--pyargs", "sympy.core", "sympy.printing", "sympy.sets"),
}
#: What carries its tests in its source distribution: the folder of tests there.
CARRIED = {"jinja2": "tests", "attrs": "tests", "requests": "tests"}


@dataclass
class World:
    """The same packages installed by pip and on a shelf, for one interpreter."""

    folder: Path
    plain: Path
    runtime: str

    def run(self, name: str, side: str, arguments: tuple[str, ...]) -> dict[str, str]:
        """Run a suite; return what came of each test."""
        home = self.folder / "runs" / f"{name}-{side}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        env = {"MPLBACKEND": "Agg", "HYPOTHESIS_DATABASE_FILE": str(home / "examples")}
        if side == "shelf":
            env["CLOUDIMPORT_LOCK"] = str(self.folder / "lock")
        path = [] if side == "shelf" else [str(self.plain)]
        report = home / "report.xml"
        # The same folder for both, since some tests print where they are.
        where = self.folder / "where"
        shutil.rmtree(where, ignore_errors=True)
        if (self.folder / name).is_dir():
            shutil.copytree(self.folder / name, where)
        else:
            where.mkdir()
        runner = Runner(home, self.runtime, path, _TIMEOUT)
        ran = runner.run_script(HERE / "run_suite.py", str(report), *arguments, env=env, cwd=where)
        assert report.exists(), ran.stdout[-3000:] + ran.stderr[-3000:]
        return _outcomes(report)


def _outcomes(report: Path) -> dict[str, str]:
    """Return the outcome of each test in a JUnit report."""
    found: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case} & {"failure", "error", "skipped"}
        name = f"{case.get('classname')}::{case.get('name')}"
        found[name] = "+".join(sorted([*tags, *found.get(name, "").split("+")])).strip("+") or "passed"
    return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """The packages, and what their tests need."""
    version, folder = running_version(), tmp_path_factory.mktemp("suites")
    folder.chmod(0o755)
    pins = HERE / f"requirements-{version}.txt"
    where = ("--shelf", folder / "shelf", "--lock", folder / "lock")
    run_shelf("publish", "-r", pins, "--level", "3", *where).ok()
    # As deep as a site tree: pytest names tests by their parameters, and shortens long paths there.
    plain = install_packages(version, pins, folder / "plain" / ("deep" * 16) / "site")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(plain)], check=False, capture_output=True)
    for name, tests in CARRIED.items():
        [pin] = [line for line in pins.read_text().splitlines() if line.startswith(f"{name}==")]
        _unpack_tests(pin, tests, folder / name)
    return World(folder, plain, make_runtime(version, folder / "runtime"))


def _unpack_tests(pin: str, tests: str, into: Path) -> None:
    """Put the tests of a source distribution and its settings of pytest into a folder."""
    download = [sys.executable, "-m", "pip", "--no-input", "download", "--quiet", "--no-deps"]
    archives = into.with_name(f"{into.name}-archive")
    done = subprocess.run(
        [*download, "--no-binary", ":all:", "--dest", str(archives), pin],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    [archive] = archives.iterdir()
    with tarfile.open(archive) as tar:
        tar.extractall(archives / "unpacked", filter="data")
    [root] = (archives / "unpacked").iterdir()
    into.mkdir()
    shutil.copytree(root / tests, into / tests)
    for name in ("conftest.py", "pyproject.toml"):
        if (root / name).exists():
            shutil.copy(root / name, into)


@pytest.mark.long
@pytest.mark.network
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", [*SHIPPED, *CARRIED])
def test_suite(world: World, name: str) -> None:
    """The outcomes are those under pip, test by test."""
    arguments = SHIPPED.get(name) or (CARRIED[name],)
    theirs = world.run(name, "pip", arguments)
    ours = world.run(name, "shelf", arguments)
    for side, outcomes in (("pip", theirs), ("shelf", ours)):
        counts = Counter(outcomes.values())
        sys.stdout.write(f"{name} {side}: " + ", ".join(f"{n} {k}" for k, n in sorted(counts.items())) + "\n")
    different = {test: (theirs.get(test), ours.get(test)) for test in theirs.keys() | ours.keys()}
    assert {test: both for test, both in different.items() if both[0] != both[1]} == {}
    assert sum(outcome == "passed" for outcome in ours.values()) > 100
