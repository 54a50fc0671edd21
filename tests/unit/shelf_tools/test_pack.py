"""Laying bytes down in blocks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import FormatError
from cloudimport.format.content import Content
from cloudimport.format.records import BLOCK_SIZE, sha256
from cloudimport.ids import Pin, running_targets
from shelf_tools.order import arrange
from shelf_tools.pack import Packed, pack
from shelf_tools.scan import scan
from tests.support.shelves import metadata, write_tree

BIG = bytes(range(256)) * (BLOCK_SIZE // 128)


def prepare(folder: Path) -> Content:
    """Make a tree with small, equal, empty and large files."""
    files = {"a.py": "x = 1\n", "b.py": "x = 1\n", "empty.py": "", "big.bin": BIG, "elf.so": b"\x7fELF" + BIG}
    tree = write_tree(folder / "tree", {**files, **metadata("demo", "1.0")})
    return scan(tree, Pin.of("demo", "1.0"), running_targets()[0])


def lay(folder: Path, content: Content, opened: list[tuple[str, bool]]) -> Packed:
    """Pack a prepared tree."""
    packs = folder / "packs"
    packs.mkdir()
    order = arrange(content, (), opened, ())
    return pack(content, sha256(content.encode()), folder / "tree", None, "", order, {}, packs)


def test_extents_add_up(tmp_path: Path) -> None:
    """Each file's extents have its size; equal files lie once; large ones have blocks of their own."""
    content = prepare(tmp_path)
    layout = lay(tmp_path, content, []).layout
    rows = {file.path: extents for file, extents in zip(content.files, layout.files, strict=True)}
    for file in content.files:
        assert sum(rows[file.path][2::3]) == file.size
    assert rows["a.py"] == rows["b.py"]
    assert rows["empty.py"] == ()
    assert not set(rows["big.bin"][::3]) & set(rows["a.py"][::3])


def test_the_lead_comes_first(tmp_path: Path) -> None:
    """What a trace opened lies in the lead, and the lead in the first blocks; the rest does not."""
    content = prepare(tmp_path)
    layout = lay(tmp_path, content, [("b.py", False), ("elf.so", False)]).layout
    rows = {file.path: extents for file, extents in zip(content.files, layout.files, strict=True)}
    assert layout.order == "trace"
    assert max(rows["elf.so"][::3]) < layout.lead
    assert rows["b.py"][0] < layout.lead
    inside = [path for path, extents in rows.items() if extents and min(extents[::3]) < layout.lead]
    assert "demo-1.0.dist-info/METADATA" not in inside


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    """A file that changed after it was scanned is never published under the old digest."""
    content = prepare(tmp_path)
    (tmp_path / "tree" / "a.py").write_text("x = 2\n")
    with pytest.raises(FormatError, match=r"(a|b)\.py changed while it was published"):
        lay(tmp_path, content, [])
