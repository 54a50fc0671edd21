"""Temporary folders of killed processes are removed by the next, those in use never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from shelf_tools.workfolder import work_folder
from tests.support.children import REPOSITORY

HOLD = """
import sys, time
from shelf_tools.workfolder import work_folder
with work_folder("test") as folder:
    (folder / "file").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for temporary files of the test's own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_folder_is_private_and_goes(tmp_path: Path) -> None:
    """The folder is its owner's alone while it is used, and gone afterwards."""
    with work_folder("test") as folder:
        assert folder.parent == tmp_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert os.listdir(tmp_path) == []


def test_folders_of_killed_processes_go(tmp_path: Path) -> None:
    """A folder that a living process uses stays; once that is killed, the next user removes it."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", HOLD], env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        with work_folder("test"):
            assert (left / "file").exists()
        child.send_signal(signal.SIGKILL)
    assert left.exists()
    with work_folder("test"):
        assert not left.exists()
