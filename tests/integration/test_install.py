"""Installing wheels in the sandbox: pip's layout, the same bytes every time, hostile wheels refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import marshal
import os
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from types import CodeType

import pytest

from cloudimport.ids import Pin, Target
from shelf_tools.install import Installed, InstallError, code_file, install
from shelf_tools.interpreters import Interpreter
from shelf_tools.sandbox import INSTALL_LIMITS, Limits, open_sandbox
from tests.support.sandboxes import bubblewrap, others, running
from tests.support.wheels import build_wheel

FILES = {
    "demo/__init__.py": "x = 1\n",
    "demo/sub/late.py": "def f():\n    return __name__\n",
    "demo/data.txt": "data",
    "demo/__pycache__/x.cpython-311.pyc": b"stale",
    "demo-1.2.data/scripts/tool": "#!python -E\nprint(1)\n",
    "demo-1.2.data/scripts/shell": "#!/bin/sh\n",
    "demo-1.2.data/data/share/doc/read.me": "me",
    "demo-1.2.data/headers/demo.h": "int x;",
    "demo-1.2.data/purelib/demo/more.py": "y = 2\n",
}
ENTRY_POINTS = "[console_scripts]\ndemo-cli = demo.sub.late:f\n"


def put(wheel: Path, into: Path, pin: str = "demo==1.2", **options: object) -> Installed:
    """Install a wheel as ``pin`` for the running interpreter."""
    target, interpreter = running()
    arguments = {"target": target, "interpreter": interpreter, "sandbox": bubblewrap(), **options}
    return install(wheel, Pin.parse(pin), into=into, **arguments)  # type: ignore[arg-type]


def demo(tmp_path: Path, **options: object) -> Path:
    """Build the wheel that most tests install."""
    return build_wheel(
        tmp_path,
        "demo",
        "1.2",
        FILES,
        entry_points=ENTRY_POINTS,
        executable=["demo-1.2.data/scripts/tool"],
        **options,  # type: ignore[arg-type]
    )


def snapshot(tree: Path) -> dict[str, tuple[bytes, int]]:
    """Return contents and modes of the files below ``tree``."""
    return {
        str(path.relative_to(tree)): (path.read_bytes(), path.stat().st_mode & 0o7777)
        for path in tree.rglob("*")
        if path.is_file()
    }


def test_layout_is_pips(tmp_path: Path) -> None:
    """Files lie where ``pip install --target`` puts them, scripts with the placeholder shebang."""
    found = snapshot(put(demo(tmp_path), tmp_path / "out").tree)
    info = "demo-1.2.dist-info"
    assert sorted(found) == [
        "bin/demo-cli",
        "bin/shell",
        "bin/tool",
        f"{info}/INSTALLER",
        f"{info}/METADATA",
        f"{info}/RECORD",
        f"{info}/WHEEL",
        f"{info}/entry_points.txt",
        "demo/__init__.py",
        "demo/data.txt",
        "demo/more.py",
        "demo/sub/late.py",
        "include/python/demo/demo.h",
        "share/doc/read.me",
    ]
    assert found["bin/tool"] == (b"#!python\nprint(1)\n", 0o755)
    assert found["bin/shell"] == (b"#!/bin/sh\n", 0o644)
    assert found["bin/demo-cli"][0].startswith(b"#!python\n")
    assert b"from demo.sub.late import f" in found["bin/demo-cli"][0]
    assert found["bin/demo-cli"][1] == 0o755


def test_layout_equals_a_real_pip(tmp_path: Path) -> None:
    """pip itself installs the same files with the same bytes, its own marks and stale names aside."""
    wheel = demo(tmp_path)
    target = tmp_path / "pip"
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-compile", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(target), str(wheel)], check=True, cwd=tmp_path)
    theirs, ours = snapshot(target), snapshot(put(wheel, tmp_path / "out").tree)
    own_marks = {
        "demo-1.2.dist-info/" + name for name in ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")
    }
    # In a virtual environment pip puts headers elsewhere.
    inner = f"include/site/python{sys.version_info[0]}.{sys.version_info[1]}"
    theirs = {p.replace(inner, "include/python"): f for p, f in theirs.items() if p not in own_marks}
    theirs = {p: f for p, f in theirs.items() if "__pycache__" not in p}
    assert {p for p in ours if p not in own_marks} == set(theirs)
    for path, (data, mode) in theirs.items():
        if not path.startswith("bin/"):
            assert ours[path] == (data, mode), path


def test_record_is_what_is_installed(tmp_path: Path) -> None:
    """RECORD lists each installed file once, sorted, with its digest and size, and itself without."""
    tree = put(demo(tmp_path), tmp_path / "out").tree
    with open(tree / "demo-1.2.dist-info/RECORD", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == sorted(snapshot(tree))
    for path, digest, size in rows:
        data = (tree / path).read_bytes()
        if path.endswith("/RECORD"):
            assert (digest, size) == ("", "")
        else:
            plain = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={plain}", str(len(data)))


def test_code_is_the_targets_with_relative_names(tmp_path: Path) -> None:
    """Each source that compiles has its code object, named by its path, for the interpreter's magic."""
    done = put(demo(tmp_path), tmp_path / "out")
    assert done.code is not None
    sources = [p for p in snapshot(done.tree) if p.endswith(".py")]
    assert sorted(snapshot(done.code)) == sorted(p + ".code" for p in sources)
    code = marshal.loads(code_file(done.code, "demo/sub/late.py").read_bytes())
    assert isinstance(code, CodeType)
    assert code.co_filename == "demo/sub/late.py"
    assert done.magic == running()[1].magic


def test_same_wheel_gives_the_same_tree(tmp_path: Path) -> None:
    """Another time, sandbox, umask and time zone change no byte and no mode."""
    wheel = demo(tmp_path)
    first = snapshot(put(wheel, tmp_path / "1").tree)
    time.sleep(1.1)
    old = os.umask(0o077)
    try:
        again = snapshot(put(wheel, tmp_path / "2").tree)
        bare = snapshot(put(wheel, tmp_path / "3", sandbox=open_sandbox("none")).tree)
    finally:
        os.umask(old)
    without = put(wheel, tmp_path / "4", interpreter=None)
    assert first == again == bare == snapshot(without.tree)
    assert (without.code, without.magic) == (None, "")


@pytest.mark.parametrize(("target", "interpreter"), others(), ids=lambda value: str(value).split(" (")[0])
def test_same_wheel_gives_the_same_tree_under_other_interpreters(
    tmp_path: Path, target: Target, interpreter: Interpreter
) -> None:
    """A pure wheel's tree does not depend on the interpreter that installs it; its code does."""
    wheel = demo(tmp_path)
    other = put(wheel, tmp_path / "2", target=target, interpreter=interpreter)
    assert snapshot(put(wheel, tmp_path / "1").tree) == snapshot(other.tree)
    assert other.magic == interpreter.magic
    assert other.code is not None
    assert len(snapshot(other.code)) == 3


def test_source_that_does_not_compile_is_a_note(tmp_path: Path) -> None:
    """A source in another dialect, or that makes the compiler give up, is installed and noted."""
    files = {
        "demo/__init__.py": "",
        "demo/two.py": "print 1\n",
        "demo/zero.py": b"x = 1\0\n",
        "demo/latin.py": b"x = '\xe9'\n",
        "demo/deep.py": "(" * 5000 + ")" * 5000,
        "demo/good.py": "x = 1\n",
    }
    done = put(build_wheel(tmp_path, "demo", "1.2", files), tmp_path / "out")
    assert done.code is not None
    assert sorted(snapshot(done.code)) == ["demo/__init__.py.code", "demo/good.py.code"]
    noted = {note.split(":")[0] for note in done.notes if "does not compile" in note}
    assert noted == {"demo/two.py", "demo/zero.py", "demo/latin.py", "demo/deep.py"}


def test_source_that_is_too_much_for_the_compiler_loses_only_itself(tmp_path: Path) -> None:
    """When compiling one source takes too much, the others of its batch still have code."""
    files = {f"demo/m{n}.py": f"x = {n}\n" for n in range(20)}
    files["demo/bomb.py"] = "x = -" + "~" * 200_000 + "1\n"
    done = put(build_wheel(tmp_path, "demo", "1.2", files), tmp_path / "out")
    assert done.code is not None
    assert set(snapshot(done.code)) >= {f"demo/m{n}.py.code" for n in range(20)}
    assert not code_file(done.code, "demo/bomb.py").exists()


def test_executable_pth_is_neutralised_and_reported(tmp_path: Path) -> None:
    """A ``.pth`` that site would execute is kept as data and named; a plain one is no news."""
    files = {"demo.pth": "import os; os.system('true')\n", "paths.pth": "# just\ndemo\n", "demo/x.py": ""}
    done = put(build_wheel(tmp_path, "demo", "1.2", files), tmp_path / "out")
    assert done.notes == ("demo.pth: executable .pth, kept as data, never executed",)
    assert (done.tree / "demo.pth").exists()


def test_files_missing_from_record_are_installed_and_reported(tmp_path: Path) -> None:
    """A wheel whose RECORD is incomplete installs as under pip, with a note and a complete RECORD."""
    done = put(demo(tmp_path, unrecorded=["demo/data.txt"]), tmp_path / "out")
    assert any("demo/data.txt is not mentioned in RECORD" in note for note in done.notes)
    assert "demo/data.txt,sha256=" in (done.tree / "demo-1.2.dist-info/RECORD").read_text()


@pytest.mark.parametrize(
    ("files", "options", "reason"),
    [
        ({"../evil.py": ""}, {}, "leaves the folder"),
        ({"/etc/evil.py": ""}, {}, "refused: "),
        ({"demo/../../evil.py": ""}, {}, "leaves the folder"),
        ({"demo/a\\b.py": ""}, {}, "leaves the folder"),
        ({"demo-1.2.data/scripts/../../x": ""}, {}, "refused: "),
        ({"demo-1.2.data/nowhere/x": ""}, {}, "not contained in a valid .data"),
        ({"demo/x": "", "demo/x/y": ""}, {}, "a file and a folder"),
        ({"other-1.2.dist-info/METADATA": ""}, {}, "exactly one .dist-info"),
        ({"demo/x\ny.py": ""}, {"unrecorded": ["demo/x\ny.py"]}, "is not allowed"),
        ({"demo/x.py": ""}, {"entry_points": "[console_scripts]\n../../x = demo:f\n"}, "leaves the folder"),
        ({"demo/x.py": ""}, {"record": "a,b\n"}, "refused: "),
    ],
)
def test_hostile_wheels_are_refused(
    tmp_path: Path, files: dict[str, str], options: dict[str, object], reason: str
) -> None:
    """A wheel that would write elsewhere, or makes no sense, is refused with one line naming the pin."""
    wheel = build_wheel(tmp_path, "demo", "1.2", files, **options)  # type: ignore[arg-type]
    with pytest.raises(InstallError, match=reason) as caught:
        put(wheel, tmp_path / "out")
    assert str(caught.value).startswith("demo==1.2 (demo-1.2-py3-none-any.whl")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    """A damaged archive is refused, cut or with a wrong checksum."""
    wheel = demo(tmp_path)
    data = wheel.read_bytes()
    for bad in (b"", b"PK", data[: len(data) // 2], data[:47] + bytes(4) + data[51:]):
        wheel.write_bytes(bad)
        with pytest.raises(InstallError, match="refused: "):
            put(wheel, tmp_path / "out")


def test_archive_links_are_plain_files(tmp_path: Path) -> None:
    """A zip entry that says that it is a link becomes a file with the link's text, as under pip."""
    wheel = build_wheel(tmp_path, "demo", "1.2", {"demo/x.py": ""})
    with zipfile.ZipFile(wheel, "a") as archive:
        item = zipfile.ZipInfo("demo/link")
        item.external_attr = 0o120777 << 16
        archive.writestr(item, "/etc/shadow")
    tree = put(wheel, tmp_path / "out").tree
    assert not (tree / "demo/link").is_symlink()
    assert (tree / "demo/link").read_bytes() == b"/etc/shadow"


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (
            replace(INSTALL_LIMITS, output_bytes=1 << 20),
            r"demo==1.2: wrote more than 1 MiB of output while it was installed \(--install-output\)",
        ),
        (
            replace(INSTALL_LIMITS, file_bytes=1 << 20),
            r"wrote a file of more than 1 MiB while it was installed \(--install-largest-file\)",
        ),
        (
            replace(INSTALL_LIMITS, output_files=5),
            r"made more than 5 files and folders while it was installed \(--install-files\)",
        ),
        (
            replace(INSTALL_LIMITS, wall_seconds=0),
            r"took longer than 0 s while it was installed \(--install-wall-time\)",
        ),
    ],
)
def test_limits_are_errors_that_say_which(tmp_path: Path, limits: Limits, reason: str) -> None:
    """A zip bomb, too many files, or too long a time end in one line that names the limit."""
    wheel = build_wheel(tmp_path, "demo", "1.2", {**FILES, "demo/bomb": bytes(8 << 20)})
    with pytest.raises(InstallError, match=reason):
        put(wheel, tmp_path / "out", limits=limits)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ("Metadata-Version: 2.1\nName: other\nVersion: 1.2\n", "says that it is other==1.2"),
        ("Metadata-Version: 2.1\nName: demo\nVersion: 2.2\n", "says that it is demo==2.2"),
        ("Metadata-Version: 2.1\n", "METADATA is not valid"),
    ],
)
def test_wheel_that_is_another_pin_is_refused(tmp_path: Path, metadata: str, reason: str) -> None:
    """What METADATA says must be the pin, whatever the file is called."""
    wheel = build_wheel(tmp_path, "demo", "1.2", {"demo/x.py": ""}, metadata=metadata)
    with pytest.raises(InstallError, match=reason):
        put(wheel, tmp_path / "out")


def test_names_are_compared_normalised(tmp_path: Path) -> None:
    """Spelling of name and version does not matter (PEP 503, PEP 440)."""
    wheel = build_wheel(tmp_path, "Demo_Pkg", "1.2", {"demo/x.py": ""})
    assert put(wheel, tmp_path / "out", pin="demo-pkg==1.2").notes == ()
