"""Laying a build's bytes down in blocks and packs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

from cloudimport.errors import FormatError
from cloudimport.format.content import Content
from cloudimport.format.layout import Block, Layout, Pack
from cloudimport.format.records import BLOCK_SIZE, Extents
from shelf_tools.collect import code_file
from shelf_tools.compressing import compress
from shelf_tools.order import Item, Order

#: zstd level of the lead's blocks, which every cold start fetches, and of the others, at the most
#: (docs/decisions/0018).
LEVEL = 19
_LEVEL_REST = 9
#: Plain bytes of a block: of one that several files share, and of a native file, which is needed whole.
_SHARED_BLOCK, _NATIVE_BLOCK = 1 << 20, BLOCK_SIZE
#: Files from this size on (bytes) have blocks of their own; native files from the smaller size on, so
#: that their blocks need not be kept once the file is materialised.
_OWN_BLOCKS = 256 << 10
_OWN_BLOCKS_NATIVE = 64 << 10
#: A pack is split beyond this many stored bytes, so that an upload can be repeated in parts.
_PACK_BYTES = 256 << 20


class Packed(NamedTuple):
    """A layout and the files of its packs, in the layout's order."""

    layout: Layout
    packs: tuple[Path, ...]


class _Writer:
    """Writes blocks to packs below a folder."""

    def __init__(self, folder: Path, level: int) -> None:
        self._folder, self.level = folder, level
        self._blocks: list[Block | None] = []
        self.packs: list[tuple[Path, str, int]] = []
        self._open_block = bytearray()
        self._open_number = 0
        self._stream: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self._offset = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks; none may be open."""
        return tuple(block for block in self._blocks if block is not None)

    def add(self, data: bytes) -> list[int]:
        """Put a small item into the open block, which has its number already; return its extents."""
        if len(self._open_block) + len(data) > _SHARED_BLOCK:
            self.flush()
        if not self._open_block:
            self._open_number = self._reserve()
        at = len(self._open_block)
        self._open_block += data
        return [self._open_number, at, len(data)]

    def add_alone(self, pieces: Iterator[bytes]) -> list[int]:
        """Give each piece a block of its own; return their extents."""
        extents: list[int] = []
        for piece in pieces:
            number = self._reserve()
            extents += [number, 0, len(piece)]
            self._write(number, piece)
        return extents

    def flush(self) -> None:
        """Close the open block, if it holds anything."""
        if self._open_block:
            self._write(self._open_number, bytes(self._open_block))
            self._open_block.clear()

    def _reserve(self) -> int:
        self._blocks.append(None)
        return len(self._blocks) - 1

    def _write(self, number: int, plain: bytes) -> None:
        frame = compress(plain, level=self.level)
        codec, stored = (1, frame) if len(frame) < len(plain) else (0, plain)
        if self._stream is None or self._offset + len(stored) > _PACK_BYTES:
            self._next_pack()
        assert self._stream is not None
        self._stream.write(stored)
        self._digest.update(stored)
        digest = hashlib.sha256(stored).hexdigest()
        self._blocks[number] = Block(len(self.packs), self._offset, len(stored), len(plain), codec, digest)
        self._offset += len(stored)

    def _next_pack(self) -> None:
        self.close()
        self._stream = open(self._folder / f"pack-{len(self.packs)}", "wb")  # noqa: SIM115
        self._digest, self._offset = hashlib.sha256(), 0

    def close(self) -> None:
        """Finish the pack that is being written."""
        if self._stream is not None:
            self._stream.close()
            self.packs.append((Path(self._stream.name), self._digest.hexdigest(), self._offset))
            self._stream = None


def pack(
    content: Content,
    content_digest: str,
    tree: Path,
    code: Path | None,
    magic: str,
    order: Order,
    follow: dict[str, tuple[str, ...]],
    imports: dict[str, dict[str, tuple[str, ...]]],
    into: Path,
    level: int = LEVEL,
    traced: str = "",
) -> Packed:
    """Write a build's packs below ``into`` and return its layout; ``level`` is the lead's (zstd).

    ``traced`` is the target whose trace gave the order, if that is another one.

    Raises OSError, and FormatError if a file is no longer what was scanned.
    """
    files: dict[int, Extents] = {}
    codes: dict[str, Extents] = {}
    known: dict[str, Extents] = {}
    lead = 0
    with closing(_Writer(into, level)) as writer:
        for position, item in enumerate(order.items):
            if position == order.lead:
                writer.flush()
                lead = len(writer.blocks)
                writer.level = min(level, _LEVEL_REST)
            if item.is_code:
                assert code is not None
                path = content.files[item.file].path
                codes[path] = tuple(_lay(writer, code_file(code, path)))
            else:
                files[item.file] = _lay_file(writer, content, item, tree, known)
        writer.flush()
    if order.lead >= len(order.items):
        lead = len(writer.blocks)
    packs = tuple(Pack(content.version, content.target, digest, size) for _, digest, size in writer.packs)
    layout = Layout(
        content.name,
        content.version,
        content.target,
        content_digest,
        "trace" if order.traced else "static",
        magic if codes else "",
        lead,
        packs,
        writer.blocks,
        tuple(files[at] for at in range(len(content.files))),
        codes,
        tuple(order.eager),
        follow,
        imports,
        traced if order.traced else "",
    )
    layout.check()
    return Packed(layout, tuple(path for path, _, _ in writer.packs))


def _lay_file(
    writer: _Writer, content: Content, item: Item, tree: Path, known: dict[str, Extents]
) -> Extents:
    """Lay a file down, unless a file with the same bytes lies already."""
    file = content.files[item.file]
    if file.size == 0:
        return ()
    if file.digest not in known:
        is_native = file.kind == "native"
        known[file.digest] = tuple(_lay(writer, tree / file.path, is_native, file.digest))
    return known[file.digest]


def _lay(writer: _Writer, path: Path, is_native: bool = False, expected: str = "") -> list[int]:
    """Lay a file's bytes down. Raises FormatError if they are not those that were scanned."""
    digest = hashlib.sha256()
    if path.stat().st_size < (_OWN_BLOCKS_NATIVE if is_native else _OWN_BLOCKS):
        data = path.read_bytes()
        digest.update(data)
        extents = writer.add(data)
    else:
        size = _NATIVE_BLOCK if is_native else _SHARED_BLOCK
        extents = writer.add_alone(_pieces(path, size, digest))
    if expected and digest.hexdigest() != expected:
        raise FormatError(f"{path.name} changed while it was published: expected sha256 {expected}")
    return extents


def _pieces(path: Path, size: int, digest: hashlib._Hash) -> Iterator[bytes]:
    with open(path, "rb") as stream:
        while piece := stream.read(size):
            digest.update(piece)
            yield piece
