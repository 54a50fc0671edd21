"""What documents and code say of one another: modules, files and figures are there under these names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cloudimport.format.records import BLOCK_SIZE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("top", ["cloudimport", "shelf_tools"])
def test_the_architecture_names_every_module(top: str) -> None:
    """Each module and each package that lies directly in ``top`` has its place in the table of layers."""
    layers = (DOCS / "architecture.md").read_text().partition("\n## Layers\n")[2].partition("\n## ")[0]
    column = 1 if top == "cloudimport" else 2
    said = "".join(row.split("|")[column] for row in layers.splitlines() if row.startswith("|"))
    named = set(re.findall(r"`(\w+)(?:\.c)?`", said))
    modules = {path.stem for path in (ROOT / top).glob("*.py")} - {"__init__"}
    packages = {path.parent.name for path in (ROOT / top).glob("*/__init__.py")}
    assert len(modules) > 8
    assert sorted((modules | packages) - named) == []


def test_documents_that_are_named_are_there() -> None:
    """A document, or a decision's number, that code refers to."""
    numbers = {path.name[:4] for path in (DOCS / "decisions").glob("*.md")}
    missing, seen = [], 0
    for path in (
        one for top in ("cloudimport", "shelf_tools", "lambda_layer") for one in (ROOT / top).rglob("*.py")
    ):
        text = path.read_text()
        for name in re.findall(r"docs/[\w/.-]+\.md", text):
            seen += 1
            missing += [] if (ROOT / name).is_file() else [f"{path.relative_to(ROOT)}: {name}"]
        for number in re.findall(r"docs/decisions/(\d{4})\b(?!-)", text):
            seen += 1
            missing += [] if number in numbers else [f"{path.relative_to(ROOT)}: decision {number}"]
    assert seen > 20
    assert missing == []


def test_the_format_says_how_large_a_block_is() -> None:
    """Where blocks are introduced, and where a layout's rows are."""
    text = (DOCS / "format.md").read_text()
    assert f"up to {BLOCK_SIZE >> 20} MiB of file bytes" in text
    assert f"A plain size is at least 1 and at most {BLOCK_SIZE:,}." in text
