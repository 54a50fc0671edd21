"""The corpus of hostile packages: each is refused or contained with a clear line, and nothing has changed.

The rows are in ``tests/integration/hostile``; docs/security.md shows them, and must be what they say.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.hostile.corpus import ROWS
from tests.integration.hostile.curator import attempt, make_innocent
from tests.integration.hostile.page import PAGE, section, with_section
from tests.integration.hostile.row import Row
from tests.support.sandboxes import bubblewrap


@pytest.fixture(scope="module")
def innocent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shelf with an innocent package on it, and its wheel."""
    bubblewrap()
    return make_innocent(tmp_path_factory.mktemp("innocent"))


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row.name, marks=[pytest.mark.long] if row.long else []) for row in ROWS]
)
def test_row(row: Row, tmp_path: Path, innocent: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The row's packages are refused or contained; processes, files, mounts and shelf are as they were."""
    attempt(row, tmp_path, innocent, capsys)


def test_page_is_the_corpus() -> None:
    """docs/security.md has the table that the corpus makes; `python -m tests.integration.hostile.page`."""
    text = PAGE.read_text(encoding="utf-8")
    assert with_section(text) == text
    assert all(f"| {row.does} |" in section() for row in ROWS)


def test_names_are_unique() -> None:
    """No two rows have the same name or say that they do the same."""
    assert len({row.name for row in ROWS}) == len({row.does for row in ROWS}) == len(ROWS)
