"""How helper processes are started."""

from __future__ import annotations

import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from cloudimport.sources import helper

SCRIPT = "import sys\nif __name__ == '__main__':\n    print(sys.argv[1:], [p for p in sys.path if not p])\n"


@pytest.mark.parametrize("compiled", [True, False])
def test_a_script_runs_by_its_bytecode(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the Lambda layer, where nothing is to be compiled; without any it runs all the same."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    if compiled:
        py_compile.compile(
            str(script), doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
        )
        script.write_text("this is no Python (\n")
    monkeypatch.setattr(helper, "__file__", str(tmp_path / "helper.py"))
    command = helper.helper_command("script.py", "a", "-b")
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert command[0] == sys.executable
    assert ran.stdout == "['a', '-b'] []\n"
