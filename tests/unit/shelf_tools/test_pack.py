"""Laying bytes down in blocks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import zstandard

from cloudimport.errors import FormatError
from cloudimport.format.content import Content
from cloudimport.format.layout import Layout
from cloudimport.format.records import BLOCK_SIZE, sha256
from cloudimport.ids import Pin, running_targets
from shelf_tools.compressing import compress
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


def lay(folder: Path, content: Content, opened: list[tuple[str, bool]], level: int = 3) -> Packed:
    """Pack a prepared tree."""
    packs = folder / f"packs-{level}"
    packs.mkdir()
    order = arrange(content, (), opened, ())
    return pack(content, sha256(content.encode()), folder / "tree", None, "", order, {}, {}, packs, level)


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


def test_sizes_of_blocks(tmp_path: Path) -> None:
    """Native files lie in blocks of 4 MiB, others in blocks of 1 MiB at the most."""
    content = prepare(tmp_path)
    layout = lay(tmp_path, content, []).layout
    sizes: dict[str, list[int]] = {}
    for file, extents in zip(content.files, layout.files, strict=True):
        sizes[file.path] = [layout.blocks[number].size for number in extents[::3]]
    assert sizes["elf.so"] == [BLOCK_SIZE, BLOCK_SIZE, 4]
    assert sizes["big.bin"] == [1 << 20] * 8
    assert sizes["a.py"][0] <= 1 << 20


def test_the_lead_is_compressed_hardest(tmp_path: Path) -> None:
    """A higher level makes the lead smaller, and changes nothing else."""
    words = (b"%d " % (number * number) for number in range(200_000))
    tree = write_tree(tmp_path / "tree", {"lead.bin": b"".join(words), **metadata("demo", "1.0")})
    (tree / "rest.bin").write_bytes((tree / "lead.bin").read_bytes() + b"!")
    content = scan(tree, Pin.of("demo", "1.0"), running_targets()[0])
    low, high = (lay(tmp_path, content, [("lead.bin", False)], level).layout for level in (9, 19))
    assert low.lead == high.lead

    def stored(layout: Layout, part: slice) -> int:
        return sum(block.length for block in layout.blocks[part])

    assert stored(high, slice(high.lead)) < 0.97 * stored(low, slice(low.lead))
    assert stored(high, slice(high.lead, None)) == stored(low, slice(low.lead, None))


@pytest.mark.parametrize("size", [1, 1 << 20, 4 << 20])
def test_a_frame_needs_little_memory_to_be_read(size: int) -> None:
    """Whoever decompresses a block of whatever size keeps no more than 2 MiB of it at hand."""
    data = random.Random(7).randbytes(size // 2) + bytes(size - size // 2)
    frame = compress(data, 3)
    reader = zstandard.ZstdDecompressor(max_window_size=2 << 20).stream_reader(frame)
    assert reader.read() == data
    assert zstandard.get_frame_parameters(frame).content_size == size
