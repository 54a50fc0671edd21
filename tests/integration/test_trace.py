"""Tracing imports in the sandbox: the order is right, and what the package does stays in there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cloudimport.ids import Pin
from shelf_tools import trace as module
from shelf_tools.install import Installed, install
from shelf_tools.sandbox import TRACE_LIMITS, open_sandbox
from shelf_tools.trace import Trace, trace
from shelf_tools.view import View
from shelf_tools.watcher import Watcher
from tests.support.sandboxes import bubblewrap, others, running
from tests.support.wheels import build_wheel

C_OPEN = """\
import ctypes, os
libc = ctypes.CDLL(None)
def c_open(name):
    return libc.open(os.path.join(os.path.dirname(__file__), name).encode(), 0)
"""


def built(folder: Path, name: str, files: Mapping[str, str | bytes], **options: object) -> Installed:
    """Build a wheel of version 1.2 and install it."""
    target, interpreter = running()
    wheel = build_wheel(folder, name, "1.2", files)
    arguments = {"target": target, "interpreter": interpreter, "sandbox": bubblewrap(), **options}
    return install(wheel, Pin.of(name, "1.2"), into=folder / name, **arguments)  # type: ignore[arg-type]


def traced(
    tmp_path: Path,
    files: Mapping[str, str | bytes],
    modules: list[str],
    dependencies: Mapping[str, Installed] | None = None,
    **options: object,
) -> Trace:
    """Build, install and trace ``demo==1.2``."""
    demo = built(tmp_path, "demo", files)
    beside = {name: (done.tree, done.code) for name, done in (dependencies or {}).items()}
    arguments = {"interpreter": running()[1], "sandbox": bubblewrap(), **options}
    inner = arguments.pop("inner", ())
    code = arguments.pop("code", demo.code)
    return trace(Pin.of("demo", "1.2"), modules, inner, demo.tree, code, beside, **arguments)  # type: ignore[arg-type]


def test_order_is_that_of_first_use(tmp_path: Path) -> None:
    """Bytecode and data of the package and its dependencies come in the order in which they are read."""
    files = {
        "demo/__init__.py": "from demo import z\nimport other.deep\nfrom demo import a\n",
        "demo/z.py": "import os\nopen(os.path.join(os.path.dirname(__file__), 'data.txt')).read()\n",
        "demo/a.py": "from demo import z\n",
        "demo/unused.py": "",
        "demo/data.txt": "x",
    }
    other = built(tmp_path, "other", {"other/__init__.py": "", "other/deep.py": "", "other/unused.py": ""})
    found = traced(tmp_path, files, ["demo"], {"other": other})
    assert found.opened == (
        ("demo", "demo/__init__.py", "code"),
        ("demo", "demo/z.py", "code"),
        ("demo", "demo/data.txt", "file"),
        ("other", "other/__init__.py", "code"),
        ("other", "other/deep.py", "code"),
        ("demo", "demo/a.py", "code"),
    )
    assert (found.c_opened, found.failed, found.notes) == ((), {}, ())
    assert sorted(os.listdir(tmp_path / "demo")) == ["code", "tree"]


def test_who_imports_whom(tmp_path: Path) -> None:
    """Modules below the package say what they import while they run; failures are nobody's."""
    files = {
        "demo/__init__.py": "def later():\n    import demo.late\n",
        "demo/a.py": "from . import b\nfrom other import deep\nimport importlib\n"
        "importlib.import_module('demo.c')\nimport demo\ndemo.later()\n",
        "demo/b.py": "import demo.c\ntry:\n    import demo.broken\nexcept ValueError:\n    pass\n",
        "demo/broken.py": "from demo import late\nraise ValueError\n",
        "demo/c.py": "import os\nopen(os.path.join(os.path.dirname(__file__), 'data.txt')).read()\n",
        "demo/dies.py": "import os\nos._exit(3)\n",
        "demo/e.py": "from demo.a import deep\n",
        "demo/late.py": "",
        "demo/data.txt": "x",
    }
    other = built(tmp_path, "other", {"other/__init__.py": "", "other/deep.py": ""})
    inner = [f"demo.{name}" for name in ("a", "b", "broken", "c", "dies", "e", "late", "nothing")]
    found = traced(tmp_path, files, ["demo"], {"other": other}, inner=inner)
    assert [path for _, path, _ in found.opened] == ["demo/__init__.py"]
    assert [path for _, path, _ in found.reached] == [
        *("demo/__init__.py", "demo/a.py", "demo/b.py", "demo/c.py", "demo/data.txt", "demo/broken.py"),
        *("demo/late.py", "demo/dies.py", "demo/e.py"),
    ]
    assert (found.failed, found.notes) == ({}, ())
    mine = {path: set(by.get("demo", ())) for path, by in found.imports.items()}
    assert mine["demo/a.py"] == {"demo/__init__.py", "demo/b.py", "demo/c.py", "demo/late.py"}
    assert mine["demo/b.py"] == {"demo/c.py"}
    assert "demo/a.py" in mine["demo/e.py"]
    assert found.imports["demo/a.py"]["other"] == ("other/__init__.py", "other/deep.py")
    assert found.imports.keys() <= {f for f in files if f.endswith(".py")}


def test_modules_below_are_given_up(tmp_path: Path) -> None:
    """A package whose inner modules hang or die is published without what they import, and nobody hears."""
    files = {f"demo/m{n}.py": "import os, time\nos._exit(1)\n" for n in range(9)}
    files |= {
        "demo/__init__.py": "",
        "demo/a.py": "import demo.b\n",
        "demo/b.py": "",
        "demo/z.py": "import time\n",
    }
    inner = ["demo.a", *(f"demo.m{n}" for n in range(9)), "demo.z"]
    found = traced(tmp_path, files, ["demo"], inner=inner)
    assert (found.failed, found.notes) == ({}, ())
    assert found.imports["demo/a.py"] == {"demo": ("demo/b.py",)}
    assert ("demo", "demo/z.py", "code") not in found.reached


def test_sources_are_told_from_bytecode(tmp_path: Path) -> None:
    """Without code objects the sources are read, and a source that is looked at counts as a file."""
    files = {
        "demo/__init__.py": "import inspect, demo.x\ninspect.getsource(demo.x)\n",
        "demo/x.py": "y = 1\n",
    }
    found = traced(tmp_path, files, ["demo"])
    assert ("demo", "demo/x.py", "file") in found.opened
    assert ("demo", "demo/__init__.py", "file") not in found.opened
    assert found.c_opened == ()
    shutil.rmtree(tmp_path / "demo")
    found = traced(tmp_path, files, ["demo"], code=None)
    assert [(path, kind) for _, path, kind in found.opened] == [
        ("demo/__init__.py", "file"),
        ("demo/x.py", "file"),
    ]


def test_files_that_c_code_opens_are_found(tmp_path: Path) -> None:
    """A file that libc opens by itself is found, one that Python opens too is not, nor another package's."""
    files = {
        "demo/__init__.py": C_OPEN + "c_open('by-c.bin')\nopen(__file__[:-11] + 'by-python.bin').close()\n"
        "c_open('by-python.bin')\nimport other\n",
        "demo/by-c.bin": "1",
        "demo/by-python.bin": "2",
        "demo/by-nobody.bin": "3",
    }
    other = built(
        tmp_path, "other", {"other/__init__.py": C_OPEN + "c_open('theirs')\n", "other/theirs": "4"}
    )
    found = traced(tmp_path, files, ["demo"], {"other": other})
    assert found.c_opened == ("demo/by-c.bin",)
    assert ("other", "other/theirs", "file") in found.opened


COMPILER = shutil.which("cc")
EXTENSION = """\
#include <Python.h>
int helper(void);
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "ext", 0, -1, 0};
PyMODINIT_FUNC PyInit_ext(void) { helper(); return PyModule_Create(&definition); }
"""


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_native_files_are_in_order_and_linked_ones_are_not_eager(tmp_path: Path) -> None:
    """An extension module and what ld.so opens for it are in the order; a dlopen'ed plugin is eager too."""
    make = tmp_path / "make"
    make.mkdir()
    (make / "ext.c").write_text(EXTENSION)
    (make / "helper.c").write_text("int helper(void) { return 1; }")

    def cc(*arguments: str) -> None:
        subprocess.run([str(COMPILER), "-shared", "-fPIC", *arguments], check=True, cwd=make)

    cc("helper.c", "-o", "libhelper.so")
    cc("helper.c", "-o", "libplugin.so")
    include = sysconfig.get_path("include")
    cc("ext.c", f"-I{include}", "-L.", "-lhelper", "-Wl,-rpath,$ORIGIN/../demo.libs", "-o", "ext.abi3.so")
    files = {
        "demo/__init__.py": "import ctypes, demo.ext\nctypes.CDLL(__file__[:-11] + 'plugins/libplugin.so')\n",
        "demo/ext.abi3.so": (make / "ext.abi3.so").read_bytes(),
        "demo.libs/libhelper.so": (make / "libhelper.so").read_bytes(),
        "demo/plugins/libplugin.so": (make / "libplugin.so").read_bytes(),
    }
    found = traced(tmp_path, files, ["demo"])
    assert found.failed == {}
    assert [path for _, path, _ in found.opened] == [
        "demo/__init__.py",
        "demo/ext.abi3.so",
        "demo.libs/libhelper.so",
        "demo/plugins/libplugin.so",
    ]
    assert found.c_opened == ("demo/plugins/libplugin.so",)


def test_module_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    """An exception is reported with its text, bounded and printable; the next module is imported."""
    files = {
        "bad.py": "raise RuntimeError('\\x1b[31m' + 'no ' * 1000)\n",
        "exits.py": "import sys\nsys.exit(3)\n",
        "good.py": "",
    }
    found = traced(tmp_path, files, ["bad", "exits", "missing", "good"])
    assert found.failed["bad"].startswith("RuntimeError:  [31mno no")
    assert len(found.failed["bad"]) <= 300
    assert found.failed["exits"] == "SystemExit: 3"
    assert found.failed["missing"] == "ModuleNotFoundError: No module named 'missing'"
    assert "good" not in found.failed
    assert [path for _, path, _ in found.opened] == ["bad.py", "exits.py", "good.py"]
    assert all(note.startswith("demo==1.2: ") and "\n" not in note for note in found.notes)
    assert len(found.notes) == 3


@pytest.mark.parametrize(
    "death",
    [
        "import os; os._exit(0)",
        "import os; os._exit(5)",
        "import ctypes; ctypes.string_at(0)",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os\nwhile True: os.close(1) if False else os.abort()",
    ],
)
def test_module_that_ends_the_process_loses_only_itself(tmp_path: Path, death: str) -> None:
    """After ``os._exit``, a crash or a signal the other modules are still imported."""
    files = {"first.py": "", "dies.py": death + "\n", "last.py": ""}
    found = traced(tmp_path, files, ["first", "dies", "last"])
    assert list(found.failed) == ["dies"]
    assert found.failed["dies"].startswith("the process ended with status")
    assert [path for _, path, _ in found.opened] == ["first.py", "dies.py", "last.py"]


def test_module_that_hangs_is_noted(tmp_path: Path) -> None:
    """A module that hangs loses its share of the time, and the next one is still imported."""
    files = {"hangs.py": "import time\ntime.sleep(600)\n", "last.py": ""}
    found = traced(tmp_path, files, ["hangs", "last"], limits=replace(TRACE_LIMITS, wall_seconds=4))
    late = "killed after 2 s, half of what was left of --trace-wall-time"
    assert found.failed == {"hangs": late}
    assert found.notes == (f"demo==1.2: hangs cannot be imported in the sandbox: {late}",)
    assert ("demo", "last.py", "code") in found.opened


def test_module_that_hangs_for_good_ends_at_the_wall_limit(tmp_path: Path) -> None:
    """A module that blocks its alarm is killed at the wall limit; the rest is not tried, and said so."""
    hangs = (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\ntime.sleep(600)\n"
    )
    files = {"hangs.py": hangs, "last.py": ""}
    found = traced(tmp_path, files, ["hangs", "last"], limits=replace(TRACE_LIMITS, wall_seconds=2))
    assert found.failed == {
        "hangs": "took longer than 2 s while it was imported (--trace-wall-time)",
        "last": "not tried: the time for tracing was used up",
    }


def test_lies_from_inside_change_nothing(tmp_path: Path) -> None:
    """Reports that a module forges name nothing outside the trees, and noise does no harm."""
    forged = """\
import os
noise = b'{"x": 1}\\n[1]\\n["open", "../../etc/passwd"]\\n["open", "no/such"]\\n["native", 5]\\n["end"]\\n'
noise += b'[' * 100000 + b'\\n'
for fd in range(3, 20):
    try: os.write(fd, noise + b'["end", "other", ""]\\n["begin", "elsewhere"]\\n["open", "demo_data"]\\n')
    except OSError: pass
print("to stdout"); os.system("echo to stdout")
"""
    found = traced(tmp_path, {"liar.py": forged, "last.py": "", "demo_data": ""}, ["liar", "last"])
    assert {path for _, path, _ in found.opened} == {"liar.py", "last.py"}
    assert found.failed == {}


def test_what_a_report_says_of_imports_is_bounded(tmp_path: Path) -> None:
    """Of forged imports only so many are kept, each once: whoever reads an index pays for them."""
    owners = {f"m{n}.py": "demo" for n in range(400)}
    view = View(tmp_path, tmp_path, {}, owners, {})
    lines = [json.dumps(["imports", a, b]).encode() for a in owners for b in owners]
    said = module._Said()
    for _ in range(2):
        assert module._read(b"\n".join(lines), [], view, said, str) == (None, 0)
    assert sum(map(len, said.imports.values())) == module._MOST_PAIRS < len(lines)


def test_lines_of_a_report_are_bounded(tmp_path: Path) -> None:
    """A report of very many lines is not read to its end; the module in flight is what it was."""
    noise = b"[]\n" * module._MOST_LINES
    begin, end = b'["begin", "demo"]\n', b'["end", "demo", ""]\n'
    view = View(tmp_path, tmp_path, {}, {}, {})
    assert module._read(begin + noise + end, ["demo"], view, module._Said(), str) == ("demo", 0)
    assert module._read(begin + noise[:30] + end, ["demo"], view, module._Said(), str) == (None, 1)


def test_opening_everything_again_and_again_is_bounded(tmp_path: Path) -> None:
    """A flood of events ends in each file once, in order, whether or not the queue overflows."""
    files: dict[str, str | bytes] = {f"demo/d{n:03}": "" for n in range(300)}
    files["demo/__init__.py"] = (
        "import os\nhere = os.path.dirname(__file__)\nnames = sorted(os.listdir(here))\n"
        "for _ in range(200):\n for name in names: os.close(os.open(here + '/' + name, 0))\n"
    )
    found = traced(tmp_path, files, ["demo"])
    data = [path for _, path, _ in found.opened if path.startswith("demo/d")]
    assert data == sorted(data)
    assert len(data) == len(set(data)) == 300


def test_overflow_is_told(tmp_path: Path) -> None:
    """When the kernel's queue overflows the watcher says so and goes on."""
    for n in range(2):
        (tmp_path / f"f{n}").touch()
    watcher = Watcher({"file": tmp_path})
    release = threading.Event()
    real = watcher._work
    watcher._thread = threading.Thread(target=lambda: (release.wait(60), real()))
    with watcher:
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for n in range(most + 10):
            os.close(os.open(tmp_path / f"f{n % 2}", os.O_RDONLY))
        release.set()
    assert not watcher.complete
    assert watcher.opened == [("file", "f0"), ("file", "f1")]


def test_traces_that_share_a_dependency_do_not_see_each_other(tmp_path: Path) -> None:
    """Two traces at the same time over one dependency's tree each see their own reads."""
    other = built(tmp_path, "other", {"other/__init__.py": "", "other/a.py": "", "other/b.py": ""})
    found: dict[str, Trace] = {}

    def work(letter: str) -> None:
        files = {
            "demo/__init__.py": f"import time\ntime.sleep(0.5)\nimport other.{letter}\ntime.sleep(0.5)\n"
        }
        found[letter] = traced(tmp_path / letter, files, ["demo"], {"other": other})

    threads = [threading.Thread(target=work, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for letter in "ab":
        assert [path for _, path, _ in found[letter].opened][1:] == [
            "other/__init__.py",
            f"other/{letter}.py",
        ]


def test_no_interpreter_is_a_note(tmp_path: Path) -> None:
    """Without an interpreter of the target nothing is traced, and the trace says so."""
    found = traced(tmp_path, {"demo.py": ""}, ["demo"], interpreter=None)
    assert found == Trace((), (), {}, ("demo==1.2: not traced: no interpreter of the target is at hand",))


def test_unconfined_traces_the_same(tmp_path: Path) -> None:
    """Without a sandbox, asked for by name, the order is the same."""
    files = {"demo/__init__.py": C_OPEN + "import demo.x\nc_open('data')\n", "demo/x.py": "", "demo/data": ""}
    inside = traced(tmp_path / "1", files, ["demo"])
    outside = traced(tmp_path / "2", files, ["demo"], sandbox=open_sandbox("none"))
    assert inside == outside
    assert inside.c_opened == ("demo/data",)


def test_other_interpreters_trace_the_same(tmp_path: Path) -> None:
    """The order does not depend on the interpreter's version."""
    files = {"demo/__init__.py": C_OPEN + "import demo.x\nc_open('data')\n", "demo/x.py": "", "demo/data": ""}
    expected = traced(tmp_path, files, ["demo"])
    for target, interpreter in others():
        done = built(tmp_path / str(target), "demo", files, target=target, interpreter=interpreter)
        found = trace(
            Pin.of("demo", "1.2"), ["demo"], (), done.tree, done.code, {}, interpreter, bubblewrap()
        )
        assert found == expected, target
