"""``--allow-sdist``: packages without a wheel are built in the sandbox; nothing of them runs elsewhere."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, running_targets
from shelf_tools.errand import Errand
from shelf_tools.inspect import Shelf
from shelf_tools.limits import BUILD_LIMITS
from shelf_tools.trees import fetch_wheels
from tests.integration.test_hostile import COMMAND
from tests.support.children import Ran, Runner
from tests.support.sandboxes import bubblewrap, copied_interpreter
from tests.support.sdists import build_sdist, own_backend
from tests.support.shelfcommand import publisher_environment, run_shelf
from tests.support.wheels import build_wheel

#: ``build_wheel`` of a backend compiles this; the wheel then has the library beside the module.
COMPILE = """\
import glob, subprocess, sys, sysconfig
open('n.c', 'w').write({code!r})
include = '-I' + sysconfig.get_path('include')
subprocess.run(['gcc', '-shared', '-fPIC', include, 'n.c', '-o', 'n.so', *{flags!r}], check=True)
PARTS['native' + sysconfig.get_config_var('EXT_SUFFIX')] = open('n.so', 'rb').read()
"""
MODULE = """\
#define PY_SSIZE_T_CLEAN
#include <Python.h>
{more}
static struct PyModuleDef module = {{PyModuleDef_HEAD_INIT, "native", 0, -1, 0}};
PyMODINIT_FUNC PyInit_native(void) {{ {first} return PyModule_Create(&module); }}
"""
PLAIN = MODULE.format(more="", first="")
#: pthread_create moved into libc with glibc 2.34 and has that version since.
THREADS = MODULE.format(
    more="#include <pthread.h>\nstatic void *f(void *x) { return x; }",
    first="pthread_t t; pthread_create(&t, 0, f, 0); pthread_join(t, 0);",
)
#: What a backend finds out about where it runs is its error.
PROBE = """\
import os, socket
def tried(what):
    try: return repr(what())
    except Exception as error: return type(error).__name__
raise RuntimeError(" ".join([
    tried(lambda: socket.create_connection(("127.0.0.1", 1), 1)), tried(lambda: open("/etc/shadow")),
    tried(lambda: os.listdir("/root")), tried(lambda: open("/usr/x", "w")),
    tried(lambda: open("/wheels/x", "w")), str("SECRET" in os.environ), str(os.getuid())]))
"""


class Curator:
    """Publishes what lies in one folder, an index of wheels and source distributions."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.index, self.shelf = folder, folder / "index", folder / "shelf"
        self.index.mkdir()
        self.env = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.index),
            "UV_OFFLINE": "1",
            "SECRET": "1",
            "UV_CACHE_DIR": str(folder / "uv"),
        }

    def command(self, *lines: str, arguments: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Write the list, return the arguments that publish it with all of it allowed to be built."""
        (self.folder / "requirements.txt").write_text("".join(f"{line}\n" for line in lines))
        allowed = [part for line in lines for part in ("--allow-sdist", line.partition("=")[0])]
        return ("publish", "-r", "requirements.txt", "--shelf", str(self.shelf), *allowed, *arguments)

    def publish(self, *lines: str, arguments: tuple[str, ...] = ()) -> Ran:
        """Publish the list."""
        return run_shelf(*self.command(*lines, arguments=arguments), env=self.env, cwd=self.folder)

    def sdist(self, name: str, **options: str) -> Path:
        """Put a source distribution of version 1.0 with a backend of its own on the index."""
        return build_sdist(self.index, name, "1.0", own_backend(name, **options))

    def error(self, *lines: str, arguments: tuple[str, ...] = ()) -> str:
        """Publish what cannot be published; return the one line that says why. Nothing is on the shelf."""
        ran = self.publish(*lines, arguments=arguments)
        assert ran.returncode == 1, ran.stderr
        (said,) = [line for line in ran.stderr.splitlines() if "shelf: error:" in line]
        assert not any(self.shelf.glob("packages/*"))
        return said.removeprefix("shelf: error: requirements.txt:1: ")


@pytest.fixture
def curator(tmp_path: Path) -> Curator:
    """A curator with a folder of its own."""
    bubblewrap()
    return Curator(tmp_path)


def test_without_the_flag_it_is_an_error_that_names_it(curator: Curator) -> None:
    """A package that has only a source distribution is not built unasked."""
    curator.sdist("only")
    (curator.folder / "requirements.txt").write_text("only==1.0\n")
    ran = run_shelf(
        "publish", "-r", "requirements.txt", "--shelf", curator.shelf, "--allow-sdist", "other",
        env=curator.env, cwd=curator.folder,
    )  # fmt: skip
    assert ran.returncode == 1
    assert (
        "only==1: there is no wheel of this version, only a source distribution: --allow-sdist only"
        in ran.stderr
    )


def test_wheels_of_other_targets_and_a_source_distribution_are_both_named(curator: Curator) -> None:
    """An error on a wheel for others says that it could be built."""
    build_wheel(curator.index, "only", "1.0", {"only.py": ""}, tag="cp39-cp39-win_amd64")
    curator.sdist("only")
    (curator.folder / "requirements.txt").write_text("only==1.0\n")
    ran = run_shelf(
        "publish", "-r", "requirements.txt", "--shelf", curator.shelf, env=curator.env, cwd=curator.folder
    )
    assert (
        "there are wheels for cp39-cp39-win_amd64; there is a source distribution: --allow-sdist only"
        in ran.stderr
    )


def test_built_published_and_imported(curator: Curator, tmp_path: Path) -> None:
    """What was built is imported from the shelf; provenance says what it was built of, and within what."""
    sdist = curator.sdist("made", source="VALUE = 7\n")
    ran = curator.publish("made==1.0")
    assert "1 published" in ran.ok()
    assert (
        "note: made==1: there is no wheel of this version, only a source distribution: its source is tried"
        in ran.stderr
    )
    code = "import cloudimport; cloudimport.install(); import made; print(made.VALUE)"
    lock = {"CLOUDIMPORT_LOCK": str(curator.folder / "cloudimport.lock")}
    assert Runner(tmp_path / "home").run(code, env=lock).ok() == "7"
    (shown,) = Shelf(str(curator.shelf), {}).show(Pin.parse("made==1"))
    build = shown.provenance["build"]
    digest = hashlib.sha256(sdist.read_bytes()).hexdigest()
    assert build["sdist"] == {
        "name": "made-1.0.tar.gz",
        "sha256": digest,
        "size": sdist.stat().st_size,
        "url": sdist.as_uri(),
        "index": f"{curator.index.as_uri()}/",
    }
    assert (build["backend"], build["requires"]) == ("backend", [])
    assert shown.provenance["limits"]["build"] == vars(BUILD_LIMITS)
    assert shown.provenance["wheel"]["name"] == "made-1.0-py3-none-any.whl"
    assert run_shelf("verify", "--shelf", curator.shelf).ok() == "1 build checked, 0 problems"
    assert "0 published, 1 were there" in curator.publish("made==1.0").ok()


def test_an_interpreter_that_is_given_builds(curator: Curator) -> None:
    """``--python`` is what builds too, before any other of its version."""
    given = copied_interpreter(curator.folder / "python")
    curator.sdist("made")
    curator.publish("made==1.0", arguments=("--python", str(given))).ok()
    (shown,) = Shelf(str(curator.shelf), {}).show(Pin.parse("made==1"))
    assert shown.provenance["build"]["interpreter"].endswith(f"({given})")
    assert shown.provenance["tools"]["interpreter"] == shown.provenance["build"]["interpreter"]
    # A worker that does not see the curator's files builds for itself.
    errand = Errand(
        "run", running_targets()[0], str(curator.shelf), "bubblewrap", 3, allow_sdist=frozenset({"made"}),
        pythons=(given,), environ=publisher_environment(curator.env),
    )  # fmt: skip
    wheels, _ = fetch_wheels(errand, parse_lines(["made==1.0"]), curator.folder / "wheels", [])
    build = wheels[Pin("made", "1")].build
    assert build is not None
    assert build["interpreter"] == shown.provenance["build"]["interpreter"]


def test_a_wheel_is_preferred(curator: Curator) -> None:
    """A package that may be built is not, where it has a wheel."""
    curator.sdist("both", before="raise RuntimeError")
    build_wheel(curator.index, "both", "1.0", {"both.py": ""})
    assert "its source is tried" not in curator.publish("both==1.0").stderr


def test_build_requirements_are_fetched_before_and_recorded(curator: Curator) -> None:
    """Build requirements come in as wheels, scripts on PATH; provenance has their hashes."""
    tool = build_wheel(
        curator.index, "tool", "2.0", {"tool.py": "def main(): print('tooled')\n"},
        entry_points="[console_scripts]\nrun-tool = tool:main\n",
    )  # fmt: skip
    more = build_wheel(curator.index, "more", "3.0", {"more.py": "X = 5\n"}, requires=["deep>=1"])
    deep = build_wheel(curator.index, "deep", "1.5", {"deep.py": ""})
    build_wheel(curator.index, "more", "4.0", {"more.py": "X = 6\n"})
    before = (
        "import more, deep, subprocess\n"
        "said = subprocess.check_output(['run-tool'], text=True).strip()\n"
        "PARTS['wanting.py'] = 'X = %r\\n' % ((more.X, said),)"
    )
    curator.sdist("wanting", before=before, requires="['more<4']", system_requires="['tool']")
    assert "1 published" in curator.publish("wanting==1.0").ok()
    (shown,) = Shelf(str(curator.shelf), {}).show(Pin.parse("wanting==1"))
    recorded = {one["name"]: one["sha256"] for one in shown.provenance["build"]["requires"]}
    assert recorded == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tool, more, deep)
    }
    code = "import cloudimport; cloudimport.install(); import wanting; print(wanting.X)"
    lock = {"CLOUDIMPORT_LOCK": str(curator.folder / "cloudimport.lock")}
    assert Runner(curator.folder / "home").run(code, env=lock).ok() == "(5, 'tooled')"


def test_build_requirement_that_is_not_to_be_had(curator: Curator) -> None:
    """What cannot be resolved to wheels is an error that names package and requirement; nothing is built."""
    curator.sdist("wanting", system_requires="['nowhere>=3']")
    said = curator.error("wanting==1.0")
    assert said.startswith("wanting==1: what it needs to be built cannot be resolved: ")
    assert "nowhere" in said
    curator.sdist("source")
    curator.sdist("wanting", system_requires="['source']")  # it has no wheel, and may not be built for that
    assert "cannot be resolved" in curator.error("wanting==1.0")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"before": "raise RuntimeError('no luck')"}, "bad-1.0.tar.gz does not build: RuntimeError: no luck"),
        ({"wheel_name": "other"}, "the build made a wheel of other==1"),
        ({"requires": "['more>=%r' % __import__('time').time()]"}, "asks for something else each time"),
        ({"requires": "['nowhere-3']"}, "what it needs to be built cannot be resolved: "),
        ({"requires": """['more; sys_platform != "\\n-f /etc"']"""}, "is not valid"),
        ({"requires": "['x @ file:///etc/passwd']"}, "is a URL, which is not fetched"),
        ({"system_requires": "['./local']"}, "its build requirement './local' is not valid"),
        (
            {"system_requires": "['--extra-index-url=http://x/']"},
            "its build requirement '--extra-index-url=http://x/' is not valid",
        ),
        ({"system_requires": "3"}, "build-system.requires has to be a list of strings"),
        ({"system_requires": "[["}, "its pyproject.toml is not valid"),
        ({"before": "return '../../x'"}, "bad-1.0.tar.gz does not build: FileNotFoundError"),
        ({"before": PROBE}, "PermissionError FileNotFoundError FileNotFoundError OSError OSError False 1000"),
        ({"before": "import os; os.kill(os.getppid(), 9)"}, "does not build: exit status 137"),
    ],
)
def test_builds_that_fail_or_lie(curator: Curator, options: dict[str, str], said: str) -> None:
    """Each is one line that names the package; the shelf stays as it was."""
    build_wheel(curator.index, "more", str(10**11), {"more.py": ""})
    curator.sdist("bad", **options)
    assert said in curator.error("bad==1.0")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"../../evil.py": ""}, "is refused: "),
        ({"pyproject.toml": b"\xff"}, "its pyproject.toml is not UTF-8"),
        ({"pyproject.toml": "x" * (2 << 20)}, "its pyproject.toml is too large"),
    ],
)
def test_archives_that_are_refused(curator: Curator, members: dict[str, str | bytes], said: str) -> None:
    """What is no source distribution is refused, and read in the sandbox only."""
    build_sdist(curator.index, "bad", "1.0", members)
    assert said in curator.error("bad==1.0")


def test_archive_that_is_none(curator: Curator) -> None:
    """Bytes that are no archive are refused."""
    (curator.index / "bad-1.0.tar.gz").write_bytes(b"never an archive")
    assert "bad-1.0.tar.gz is refused: " in curator.error("bad==1.0")


def test_hashes_of_the_list_are_enforced(curator: Curator) -> None:
    """A source distribution has to have the hash in the list, like a wheel."""
    digest = hashlib.sha256(curator.sdist("made").read_bytes()).hexdigest()
    wrong = curator.error(f"made==1.0 --hash=sha256:{'0' * 64}")
    assert f"does not have the hash in the list: expected {'0' * 64}, got {digest}" in wrong
    assert "1 published" in curator.publish(f"made==1.0 --hash=sha256:{digest}").ok()


def native(code: str, *flags: str) -> str:
    """Return what ``build_wheel`` does to compile an extension module."""
    return COMPILE.format(code=code, flags=flags)


def test_native_code_is_built_and_imported(curator: Curator) -> None:
    """A compiler of the machine works in the sandbox; what it made is imported from the shelf."""
    curator.sdist("ext", before=native(PLAIN))
    assert "1 published" in curator.publish("ext==1.0").ok()
    code = "import cloudimport; cloudimport.install(); import native; print(native.__name__)"
    lock = {"CLOUDIMPORT_LOCK": str(curator.folder / "cloudimport.lock")}
    assert Runner(curator.folder / "home").run(code, env=lock).ok() == "native"


def test_the_same_build_gives_the_same_content(curator: Curator) -> None:
    """Built twice in the same environment, a package has the same identity, native code and all."""
    curator.sdist("ext", before=native(PLAIN))
    digests = []
    for shelf in ("one", "two"):
        curator.shelf = curator.folder / shelf
        curator.publish("ext==1.0").ok()
        digests.append(Shelf(str(curator.shelf), {}).show(Pin.parse("ext==1"))[0].content)
    assert digests[0] == digests[1]


def test_native_code_has_to_fit_the_target(curator: Curator) -> None:
    """What needs a newer C library, or a library that nobody brings, is refused for such a target."""
    target = f"cp3{sys.version_info[1]}-manylinux_2_17_x86_64"
    curator.sdist("ext", before=native(THREADS, "-pthread"))
    said = curator.error("ext==1.0", arguments=("--target", target))
    assert "which was built on this machine, needs GLIBC_2.34, and cp3" in said
    alone = native(PLAIN, "-Wl,--no-as-needed", "-L.", "-lown").replace(
        "open('n.c'", "open('o.c', 'w').write('int own;')\nsubprocess.run(['gcc', '-shared', '-fPIC', 'o.c',"
        " '-Wl,-soname,libown.so.7', '-o', 'libown.so'], check=True)\nopen('n.c'", 1,
    )  # fmt: skip
    curator.sdist("ext", before=alone)
    assert "needs libown.so.7, which is neither in the wheel nor on every system" in curator.error("ext==1.0")
    curator.sdist("ext", before=native(PLAIN))
    assert "1 published" in curator.publish("ext==1.0", arguments=("--target", target)).ok()


def test_targets_of_another_machine_take_pure_packages_only(curator: Curator) -> None:
    """What is built here serves another machine if it has no native code."""
    other = f"cp3{sys.version_info[1]}-manylinux_2_28_aarch64"
    curator.sdist("pure")
    assert "1 published" in curator.publish("pure==1.0", arguments=("--target", other)).ok()
    curator.sdist("ext", before=native(PLAIN))  # its tag says that it is pure
    ran = curator.publish("ext==1.0", arguments=("--target", other))
    assert ran.returncode == 1
    assert "is for x86_64, and cp3" in ran.stderr


def test_interrupted_build(curator: Curator) -> None:
    """Ctrl-C ends a build at once, and nothing of it is left."""
    curator.sdist("slow", before="import time; time.sleep(600)")
    temporary = curator.folder / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, *COMMAND, *curator.command("slow==1.0")],
        env=publisher_environment({**curator.env, "TMPDIR": str(temporary)}),
        cwd=curator.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "its source is tried" not in process.stderr.readline():
        assert process.poll() is None
    time.sleep(2)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert time.monotonic() - began < 10
    assert list(temporary.iterdir()) == []


def test_without_a_sandbox(curator: Curator) -> None:
    """Asked for by name, no sandbox builds too."""
    curator.sdist("made")
    assert "1 published" in curator.publish("made==1.0", arguments=("--sandbox", "none")).ok()


@pytest.mark.network
def test_real_setuptools(curator: Curator) -> None:
    """Projects of setuptools build: a setup.py alone, and one with a pyproject.toml and native code."""
    for name in ("PIP_NO_INDEX", "UV_OFFLINE"):
        del curator.env[name]
    setup = (
        "from setuptools import setup\nsetup(name='legacyproject', version='1.0', py_modules=['legacy'])\n"
    )
    build_sdist(curator.index, "legacyproject", "1.0", {"setup.py": setup, "legacy.py": "x = 1\n"})
    table = "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'\n"
    setup = (
        "from setuptools import Extension, setup\n"
        "setup(name='nativeproject', version='1.0', ext_modules=[Extension('native', ['native.c'])])\n"
    )
    files = {"pyproject.toml": table, "setup.py": setup, "native.c": PLAIN}
    build_sdist(curator.index, "nativeproject", "1.0", files)
    ran = curator.publish("legacyproject==1.0", "nativeproject==1.0")
    assert "2 published" in ran.ok()
    (shown,) = Shelf(str(curator.shelf), {}).show(Pin.parse("nativeproject==1"))
    assert [one["name"].partition("-")[0] for one in shown.provenance["build"]["requires"]] == ["setuptools"]
