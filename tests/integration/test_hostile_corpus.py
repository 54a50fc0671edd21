"""The corpus of hostile packages: each is refused or contained with a clear line, and nothing has changed.

The rows are in ``tests/integration/hostile``; docs/security.md shows them, and must be what they say. A
sample of a minute is tried in every run (``corpus.SAMPLE``); ``-m ''`` tries all of this file (six minutes).
After a change of rows run all, then write the page: ``python -m tests.integration.hostile.page``.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.hostile.corpus import ROWS, SAMPLE
from tests.integration.hostile.curator import attempt, make_innocent
from tests.integration.hostile.machine import adopting, descendants, list_after, list_machine
from tests.integration.hostile.page import PAGE, section, with_sections
from tests.integration.hostile.row import Row
from tests.support.sandboxes import bubblewrap


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf with an innocent package on it, and its wheel."""
    bubblewrap()
    return make_innocent(tmp_path_factory.mktemp("innocent"))


SAMPLED = {name for names in SAMPLE.values() for name in names}


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, id=row.name, marks=[] if row.name in SAMPLED else [pytest.mark.long]) for row in ROWS],
)
def test_row(row: Row, tmp_path: Path, innocent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row's packages are refused or contained; processes, files, mounts and shelf are as they were."""
    attempt(row, tmp_path, innocent, capsys)


def test_what_is_left_is_seen(tmp_path: Path) -> None:
    """The comparison that every row goes through tells of an orphan, of files, and of what has the mark."""
    (tmp_path / "changed").write_text("1")
    (tmp_path / "gone").write_text("1")
    orphan = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n"
    mark = f"mark-{os.getpid()}-seen"
    with adopting():
        before = list_machine([tmp_path], mark)
        assert before.differences(list_after(before, [tmp_path], mark)) == []
        subprocess.run([sys.executable, "-c", orphan], check=True)
        (tmp_path / "changed").chmod(0o4755)
        (tmp_path / "gone").unlink()
        (tmp_path / "new").symlink_to("changed")
        left = Path("/dev/shm", mark)
        left.touch()
        try:
            after = list_machine([tmp_path], mark)
        finally:
            left.unlink()
            for pid, _ in descendants().keys() - before.processes.keys():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    found = before.differences(after)
    assert [line.partition(":")[0].split()[0] for line in found] == [
        "process",
        "file",
        "file",
        "file",
        str(left),
    ]
    assert [Path(line.split()[1]).name for line in found[1:4]] == ["changed", "gone", "new"]


def test_page_is_the_corpus() -> None:
    """docs/security.md has the table that the corpus makes; `python -m tests.integration.hostile.page`."""
    text = PAGE.read_text(encoding="utf-8")
    assert with_sections(text) == text
    assert all(f"| {row.does} |" in section() for row in ROWS)


def test_names_are_unique() -> None:
    """No two rows have the same name or say that they do the same."""
    assert len({row.name for row in ROWS}) == len({row.does for row in ROWS}) == len(ROWS)
    assert {row.name for row in ROWS} >= SAMPLED
