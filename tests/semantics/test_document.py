"""`docs/semantics.md` and the tests say the same."""

from __future__ import annotations

import ast
import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs/semantics.md"
#: The document's parts, in order.
PARTS = (
    "modules",
    "files",
    "ccode",
    "native",
    "metadata",
    "namespaces",
    "processes",
    "install",
    "boot",
    "observing",
    "confined",
)


def paragraphs() -> dict[str, list[str]]:
    """Return the docstrings of each part's tests, under that of its module."""
    found: dict[str, list[str]] = {}
    for part in PARTS:
        tree = ast.parse((Path(__file__).parent / f"test_{part}.py").read_text())
        tests = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        ]
        found[_flat(ast.get_docstring(tree) or "")] = [_flat(ast.get_docstring(node) or "") for node in tests]
    return found


def documented() -> dict[str, list[str]]:
    """Return the numbered paragraphs of the document under their headings; numbers run through."""
    found: dict[str, list[str]] = {}
    count, last = 0, ""
    for line in DOCUMENT.read_text().splitlines():
        heading, item = re.match(r"## (.*)", line), re.match(r"(\d+)\. (.*)", line)
        if heading:
            last = heading[1]
            found[last] = []
        elif item and last:
            count += 1
            assert int(item[1]) == count, line
            found[last].append(item[2])
    return {heading: texts for heading, texts in found.items() if texts}


def _flat(text: str) -> str:
    return " ".join(text.split())


def render() -> str:
    """Return the document's numbered part as the tests have it."""
    lines, count = [], 0
    for heading, texts in paragraphs().items():
        lines.append(f"## {heading}\n")
        for text in texts:
            count += 1
            lines.append(f"{count}. {text}")
        lines.append("")
    return "\n".join(lines)


def test_document_and_tests_agree() -> None:
    """Each paragraph is a test's docstring and each test's docstring a paragraph, in the same order."""
    files = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    assert files == {*PARTS, "document"}
    assert documented() == paragraphs(), f"write this into {DOCUMENT}:\n{render()}"


def test_every_test_says_what_it_is_for() -> None:
    """No two tests promise the same, and each ends its promise with a full stop."""
    texts = [text for part in paragraphs().values() for text in part]
    assert len(set(texts)) == len(texts)
    assert all(text.endswith(".") for text in texts)
