"""The compiler's side of the script that installs inside the sandbox."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from shelf_tools.inside import install_wheel


def test_source_that_kills_the_compiler_loses_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash while a batch is compiled costs the one source that crashes; the others are tried again."""
    names = [f"m{n:03}.py" for n in range(120)]
    for name in names:
        (tmp_path / name).write_text("x = 1\n")
    real = install_wheel.compile_one

    def crash(root: str, code: str, path: str) -> str:
        if path in ("m003.py", "m077.py"):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(root, code, path)

    monkeypatch.setattr(install_wheel, "compile_one", crash)
    (tmp_path / "code").mkdir()
    bad = install_wheel.compile_all(str(tmp_path), str(tmp_path / "code"), names, 2)
    assert set(bad) == {"m003.py", "m077.py"}
    assert bad["m003.py"].startswith("the compiler died")
    assert len(list((tmp_path / "code").iterdir())) == 118


def test_script_text_of_an_entry_point_is_fixed(tmp_path: Path) -> None:
    """The text is part of a build's identity: a change changes content digests and needs a new format."""
    tree = install_wheel.Tree(str(tmp_path / "tree"), "demo")
    tree.write_script("demo", "demo.cli", "Main.run", "console")
    assert (tmp_path / "tree/bin/demo").read_text() == (
        "#!python\n"
        "import sys\n"
        "from demo.cli import Main\n"
        'if __name__ == "__main__":\n'
        '    sys.argv[0] = sys.argv[0].removesuffix(".exe")\n'
        "    sys.exit(Main.run())\n"
    )
