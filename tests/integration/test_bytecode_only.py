"""`shelf publish --bytecode-only`: a package without source is what pip has when the sources are deleted."""

from __future__ import annotations

import base64
import csv
import hashlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import running_targets
from shelf_tools.install import Installed
from shelf_tools.trees import without_source
from tests.support.children import Ran, Runner
from tests.support.runtimes import find_python, make_runtime
from tests.support.shelfcommand import run_shelf
from tests.support.wheels import build_wheel

SECRET = "SECRET_OF_THE_SOURCE"
FILES: dict[str, str | bytes] = {
    "private/__init__.py": f'"""The docstring."""\n# {SECRET}\nfrom private.inner import Thing, fail\n',
    "private/inner.py": f'''
# {SECRET}
class Thing:
    """A thing."""

    def method(self):
        return fail()


def fail():
    assert __debug__ or True
    raise ValueError("no")  # {SECRET}
''',
    "private/__main__.py": f"import sys, private\nprint('main', sys.argv[1:])  # {SECRET}\n",
    "private/late/__init__.py": f"# {SECRET}\n",
    "private/late/deep.py": f"from private import Thing\nVALUE = 7  # {SECRET}\n",
    "private/data.txt": "data\n",
    "private/stub.pyi": "x: int\n",
    "private/template.py": f"{{{{ not python }}}} {SECRET}\n",
    "alone.py": f"X = 1  # {SECRET}\ndef where():\n    return where.__code__.co_filename\n",
    "private-1.0.data/scripts/tool.py": f"#!python\nprint(1)  # {SECRET}\n",
}
ENTRY_POINTS = "[console_scripts]\nprivate-tool = private.inner:fail\n"

PROGRAM = """
import importlib.metadata, importlib.resources, inspect, linecache, os, pickle, pkgutil, runpy, subprocess
import sys, traceback
import private, private.late.deep, alone, public

for module in (private, private.inner, private.late, private.late.deep, alone):
    spec = module.__spec__
    print(module.__name__, module.__file__, module.__cached__, spec.origin, spec.cached, spec.has_location)
    print(spec.submodule_search_locations, module.__package__, module.__doc__)
    print(spec.loader.get_source(module.__name__), spec.loader.get_filename(module.__name__))
    print(spec.loader.is_package(module.__name__), spec.loader.get_data(module.__file__)[:4])
    bases = [base for base in type(spec.loader).__mro__ if not base.__module__.startswith("cloudimport")]
    print([base.__name__ for base in bases])
print(private.Thing.__doc__, alone.where())
print(private.fail.__code__.co_filename, private.Thing.method.__code__.co_filename)
for what in (private, private.Thing, private.fail, private.late.deep, alone.where):
    for ask in "getsource getsourcelines getsourcefile getfile getdoc".split():
        try:
            print(ask, getattr(inspect, ask)(what))
        except Exception as error:
            print(ask, type(error).__name__, error)
try:
    private.Thing().method()
except ValueError:
    print("".join(traceback.format_exc().splitlines(True)[2:]))
print(linecache.getlines(private.inner.__file__[:-1]), os.path.exists(private.inner.__file__[:-1]))
print(sorted(os.listdir(os.path.dirname(private.__file__))))
print([(m.name, m.ispkg) for m in pkgutil.walk_packages(private.__path__, "private.")])
print(importlib.resources.files("private").joinpath("data.txt").read_text())
scripts = importlib.metadata.entry_points(group="console_scripts")
print(importlib.metadata.version("private"), [script.name for script in scripts if "private" in script.name])
print(pickle.loads(pickle.dumps(private.Thing())).__class__, importlib.reload(private.late.deep).VALUE)
print(runpy.run_module("private.late.deep")["VALUE"])
print(subprocess.run([sys.executable, "-m", "private", "a"], capture_output=True, text=True).stdout)
print(inspect.getsource(public.visible))
try:
    import private.template
except ImportError as error:
    print(type(error).__name__, error)
"""
FROM_SHELF = "import cloudimport\nROOT = cloudimport.install().root\n"
FROM_PIP = "import os, sys\nROOT = {plain!r}\nsys.path.insert(1, ROOT)\nos.environ['PYTHONPATH'] = ROOT\n"


@dataclass
class Curator:
    """Two wheels, and a shelf to publish them to."""

    folder: Path
    wheels: Path
    python: str = sys.executable

    def publish(self, *arguments: str, shelf: str = "shelf") -> Ran:
        """Publish both."""
        (self.folder / "requirements.txt").write_text("private==1.0\npublic==1.0\n")
        env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "UV_OFFLINE": "1"}
        options = ["-r", "requirements.txt", "--shelf", shelf, "--level", "3", *arguments]
        return run_shelf("publish", *options, env=env, cwd=self.folder)

    def run(self, program: str, *flags: str, plain: Path | None = None) -> str:
        """Run a program from the shelf, or from ``plain``; the root's path is replaced."""
        script = self.folder / "handler" / "main.py"
        script.parent.mkdir(exist_ok=True)
        prelude = FROM_PIP.format(plain=str(plain)) if plain else FROM_SHELF
        script.write_text(prelude + program + "\nprint('ROOT', ROOT)\n")
        env = {
            "CLOUDIMPORT_LOCK": str(self.folder / "cloudimport.lock"),
            "CLOUDIMPORT_SHELF": str(self.folder / "shelf"),
        }
        runner = Runner(self.folder / "home", self.python)
        said = _run(runner, script, flags, env).ok()
        body, _, root = said.rpartition("ROOT ")
        return body.replace(root, "<root>")


def _run(runner: Runner, script: Path, flags: Sequence[str], env: dict[str, str]) -> Ran:
    if flags:
        env = {**env, "PYTHONOPTIMIZE": str(len(flags))}
    return runner.run_script(script, env=env)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package to hide and one that may be seen."""
    folder = tmp_path_factory.mktemp("wheels")
    build_wheel(folder, "private", "1.0", FILES, entry_points=ENTRY_POINTS)
    build_wheel(folder, "public", "1.0", {"public.py": "def visible():\n    return 1\n"})
    return folder


@pytest.fixture
def curator(wheels: Path, tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    return Curator(tmp_path, wheels)


def plain_sourceless(folder: Path, wheels: Path, python: str = sys.executable) -> Path:
    """Install with pip, compile beside the sources, delete those of the one package."""
    plain = folder / "plain"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    links = ["--find-links", str(wheels), "--target", str(plain)]
    subprocess.run([*pip, *links, "private==1.0", "public==1.0"], check=True)
    private = [plain / "private", plain / "alone.py"]
    compiling = [python, "-m", "compileall", "-q", "-b", *map(str, private)]
    subprocess.run(compiling, check=False, capture_output=True)  # one does not compile
    for path in (*private[0].rglob("*.py"), private[1]):
        path.unlink()
    return plain


def test_as_pip_has_it_without_sources(curator: Curator) -> None:
    """Modules, tracebacks, `inspect`, resources, metadata, `-m` and `-O` are what they are under pip.

    Docstrings stay, the other package keeps its source, and no source lies anywhere on the shelf.
    """
    said = curator.publish("--bytecode-only", "Private")
    said.ok()
    assert "private/template.py: left out, without bytecode in its place: it does not compile" in said.stderr
    assert "bin/tool.py: left out, without bytecode in its place: a script is no module" in said.stderr
    assert "stays source" not in said.stderr
    plain = plain_sourceless(curator.folder, curator.wheels)
    ours, theirs = curator.run(PROGRAM), curator.run(PROGRAM, plain=plain)
    assert ours == theirs
    assert "could not get source code" in ours
    assert "OSError" in ours
    assert "<root>/private/inner.py" in ours
    assert "The docstring." in ours
    assert "def visible" in ours
    assert curator.run(PROGRAM, "O") == curator.run(PROGRAM, "O", plain=plain)
    assert curator.run(PROGRAM, "O", "O") == curator.run(PROGRAM, "O", "O", plain=plain)


@pytest.mark.long
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_as_pip_has_it_on_other_interpreters(curator: Curator, version: str) -> None:
    """So they are under every Python that a curator publishes for."""
    python = find_python(version)
    if python is None:
        pytest.skip(f"there is no CPython {version} on this machine")
    curator.python = make_runtime(version, curator.folder / "runtime")
    target = running_targets()[0]._replace(python=(3, int(version[2:])))
    curator.publish("--bytecode-only", "private", "--target", str(target)).ok()
    plain = plain_sourceless(curator.folder, curator.wheels, python)
    ours, theirs = curator.run(PROGRAM), curator.run(PROGRAM, plain=plain)
    assert ours == theirs
    assert "could not get source code" in ours


def test_no_source_on_the_shelf(curator: Curator) -> None:
    """An export of the environment has no `.py` file of the package, no line of its source; RECORD fits."""
    curator.publish("--bytecode-only", "private==1.0").ok()
    run_shelf("export", "out", "--shelf", "shelf", "--lock", "cloudimport.lock", cwd=curator.folder).ok()
    out = curator.folder / "out"
    names = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {name for name in names if name.endswith(".py")} == {"public.py"}
    assert {"private/__init__.pyc", "private/late/deep.pyc", "alone.pyc", "private/stub.pyi"} <= names
    for name in names:
        assert SECRET.encode() not in (out / name).read_bytes(), name
    with open(out / "private-1.0.dist-info/RECORD", newline="") as file:
        rows = {path: (digest, size) for path, digest, size in csv.reader(file)}
    own = {name for name in names if name.startswith(("private", "alone", "bin/"))}
    assert set(rows) == own
    for name, (digest, size) in rows.items():
        data = (out / name).read_bytes()
        if not name.startswith("bin/") and not name.endswith("/RECORD"):
            encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={encoded}", str(len(data))), name
    assert run_shelf("verify", "--shelf", "shelf", cwd=curator.folder).returncode == 0


def test_the_trace_sees_bytecode(curator: Curator) -> None:
    """The modules that the import needs lead, as those with source do."""
    curator.publish("--bytecode-only", "private").ok()
    shown = run_shelf("show", "private==1.0", "--shelf", "shelf", cwd=curator.folder).ok()
    assert "trace" in shown


def test_a_shelf_that_has_the_source_refuses(curator: Curator) -> None:
    """A pin that is there with its source stays so: one clear line; the other way round is noted."""
    curator.publish().ok()
    refused = curator.publish("--bytecode-only", "private")
    assert refused.returncode == 1
    wanted = (
        f"shelf: error: private==1 for {running_targets()[0]} is on the shelf with its source, and a build "
        "never changes: publish --bytecode-only to a shelf that does not have it, or another version"
    )
    assert [line for line in refused.stderr.splitlines() if line.startswith("shelf: error")] == [wanted]
    curator.publish("--bytecode-only", "private", shelf="other").ok()
    curator.publish("--bytecode-only", "private", shelf="other").ok()
    noted = curator.publish(shelf="other")
    noted.ok()
    assert "private==1: it is on the shelf without source, and is used so" in noted.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobody", "--bytecode-only nobody: the requirements have no such pin"),
        ("private==2", "--bytecode-only private==2: the requirements have no such pin"),
    ],
)
def test_names_that_are_not_there(curator: Curator, name: str, said: str) -> None:
    """A name that the list does not have is an error: nothing is published with source by a slip."""
    refused = curator.publish("--bytecode-only", name)
    assert refused.returncode == 1
    assert f"shelf: error: {said}" in refused.stderr
    assert not (curator.folder / "shelf/packages").exists()


def test_without_an_interpreter(tmp_path: Path) -> None:
    """A target whose interpreter is not on this machine has no bytecode, so nothing can be published."""
    target = running_targets()[0]
    with pytest.raises(ConfigurationError, match=f"--bytecode-only needs an interpreter of {target}"):
        without_source(Installed(tmp_path, None, "", ()), target)


def test_bytecode_of_another_python(curator: Curator) -> None:
    """An interpreter with another magic number says which package, and what it takes."""
    curator.publish("--bytecode-only", "private").ok()
    program = """
import _imp, importlib._bootstrap_external as machinery, importlib.util
machinery.MAGIC_NUMBER = b"\\x01\\x02\\r\\n"
machinery._RAW_MAGIC_NUMBER = int.from_bytes(machinery.MAGIC_NUMBER, "little")
import cloudimport.importer.loader as loader
loader.MAGIC_NUMBER, loader._MAGIC = machinery.MAGIC_NUMBER, machinery.MAGIC_NUMBER.hex()
import public  # has its source
print(public.visible())
try:
    import private
except ModuleNotFoundError:
    raise
except ImportError as error:
    print(error.name, error.path[-12:], error)
"""
    said = curator.run(program)
    assert said.startswith("1\nprivate __init__.pyc bad magic number in 'private': ")
    assert ": private==1 has no source, and its bytecode is not of this Python" in said
