"""A build's identity is its content's digest, and nothing but what it installs goes into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from cloudimport.format import codec
from cloudimport.ids import Pin
from shelf_tools import builds as builds_module
from shelf_tools import pack as pack_module
from shelf_tools.builds import read_build, verify_build
from shelf_tools.indexing import Built
from tests.support.shelves import MadeShelf

FILES: dict[str, str | bytes] = {
    "pkg/__init__.py": "from pkg import b, a\nX = 1\n" * 50,
    "pkg/a.py": "def f():\n    return 'a'\n" * 80,
    "pkg/b.py": "def g():\n    return 'b'\n" * 80,
    "pkg/data.bin": bytes(range(256)) * 3000,
    "pkg/empty.txt": "",
}


def publish(folder: Path, **options: Any) -> Built:
    """Publish the files to a shelf of its own and check it, as readers will."""
    folder.mkdir()
    level = options.pop("level", 3)
    shelf = MadeShelf(folder, level=level)
    built = shelf.add("pkg", "1.0", FILES, **options)
    pin = Pin.parse("pkg==1")
    assert verify_build(shelf.source, pin, str(shelf.target)) == []
    assert read_build(shelf.source, pin, str(shelf.target)) == built
    return built


def _other_zstd(level: int) -> Callable[..., bytes]:
    def compress(data: bytes, **_: Any) -> bytes:
        return zstandard.ZstdCompressor(level=level, write_checksum=True).compress(data)

    return compress


def test_content_digest_is_the_same_however_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run, another zstd level, another zstd, another trace, no bytecode: one content digest."""
    traced = [("pkg/__init__.py", True), ("pkg/b.py", True), ("pkg/data.bin", False)]
    found = {
        "once": publish(tmp_path / "1"),
        "again": publish(tmp_path / "2"),
        "level 19": publish(tmp_path / "3", level=19),
        "level 1": publish(tmp_path / "4", level=1),
        "another trace": publish(tmp_path / "5", opened=traced),
        "without bytecode": publish(tmp_path / "6", bytecode=False),
    }
    for module in (pack_module, builds_module):
        monkeypatch.setattr(module, "compress", _other_zstd(7))
    found["another zstd"] = publish(tmp_path / "7", opened=traced[::-1])
    assert {name: built.content_digest for name, built in found.items()} == dict.fromkeys(
        found, found["once"].content_digest
    )
    assert found["once"].layout_digest == found["again"].layout_digest
    assert len({built.layout_digest for built in found.values()}) == len(found) - 1


@pytest.mark.parametrize("change", ["bytes", "path", "mode", "requires"])
def test_content_digest_changes_with_what_is_installed(tmp_path: Path, change: str) -> None:
    """Another byte, another path, another mode or another requirement is another content."""
    (tmp_path / "a").mkdir()
    plain = MadeShelf(tmp_path / "a").add("pkg", "1", FILES)
    other: dict[str, str | bytes] = dict(FILES)
    if change == "bytes":
        other["pkg/a.py"] = str(FILES["pkg/a.py"]).replace("'a'", "'A'", 1)
    if change == "path":
        other["pkg/c.py"] = other.pop("pkg/a.py")
    if change == "mode":
        other["bin/tool"] = "#!/bin/sh\n"
    (tmp_path / "b").mkdir()
    requires = ["x"] if change == "requires" else []
    changed = MadeShelf(tmp_path / "b").add("pkg", "1", other, requires=requires)
    assert changed.content_digest != plain.content_digest


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20])
@pytest.mark.parametrize("level", [-5, 1, 9, 19, 22])
def test_frames_of_another_implementation_are_read(size: int, level: int) -> None:
    """What python-zstandard writes, with and without a checksum, the runtime's codec reads."""
    data = (b"cloudimport %d " % level * (size // 10 + 1))[:size]
    for checksum in (False, True):
        frame = zstandard.ZstdCompressor(level=level, write_checksum=checksum).compress(data)
        assert codec.decompress(frame, size) == data


def test_our_frames_carry_their_size_and_need_no_dictionary(tmp_path: Path) -> None:
    """What the curator writes follows section 2 of the format, as another implementation sees it."""
    (tmp_path / "s").mkdir()
    shelf = MadeShelf(tmp_path / "s")
    built = shelf.add("pkg", "1.0", FILES)
    prefix = f"packages/pkg/1/{shelf.target}/"
    stored = shelf.source.read(f"{prefix}layout-{built.layout_digest}")
    plain = zstandard.ZstdDecompressor().decompress(stored)
    assert plain == built.layout.encode()
    pack = shelf.source.read(f"{prefix}pack-{built.layout.packs[0].digest}")
    for block in built.layout.blocks:
        frame = pack[block.offset : block.offset + block.length]
        if block.codec == codec.ZSTD:
            parameters = zstandard.get_frame_parameters(frame)
            assert parameters.content_size == block.size
            assert parameters.dict_id == 0
