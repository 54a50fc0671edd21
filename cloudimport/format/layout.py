"""WHERE a build's bytes lie: the layout record, and the pointer of a build. Pure.

docs/format.md, sections 6 and 7.
"""

from __future__ import annotations

from cloudimport.errors import FormatError
from cloudimport.format.records import (
    BLOCK_SIZE,
    FORMAT,
    MALFORMED,
    Extents,
    Ref,
    canonical,
    check_extents,
    check_magic,
    check_path,
    identity,
    integer,
    integers,
    one_of,
    parse,
    signatures_of,
    text,
    texts,
)
from cloudimport.ids import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from cloudimport.format.signing import Signature
else:
    from cloudimport.tuples import NamedTuple

ORDERS = ("trace", "static")


class Pack(NamedTuple):
    """An object that holds blocks: version and target of the key, digest and size of the stored bytes."""

    version: str
    target: str
    digest: str
    size: int


class Block(NamedTuple):
    """One stored frame: pack, offset and length in it, plain size, codec (0 raw, 1 zstd), digest."""

    pack: int
    offset: int
    length: int
    size: int
    codec: int
    digest: str


class Layout(NamedTuple):
    """WHERE a content's bytes and bytecode lie (docs/format.md, section 6)."""

    name: str
    version: str
    target: str
    content: str
    order: str
    magic: str
    lead: int
    packs: tuple[Pack, ...]
    blocks: tuple[Block, ...]
    files: tuple[Extents, ...]
    code: dict[str, Extents]
    eager: tuple[int, ...]
    follow: dict[str, tuple[str, ...]]
    imports: dict[str, dict[str, tuple[str, ...]]] = {}  # noqa: RUF012 (nobody changes a record)

    def encode(self) -> bytes:
        """Return the layout's canonical bytes."""
        record = {**self._asdict(), "format": FORMAT, "kind": "layout"}
        record["follow"] = [[name, list(paths)] for name, paths in self.follow.items()]
        if not self.imports:
            del record["imports"]
        return canonical(record)

    @classmethod
    def decode(cls, data: bytes, what: str = "layout") -> Layout:
        """Return the layout that ``data`` holds, with every number checked. Raises FormatError."""
        record = parse(data, "layout", what)
        try:
            whose = identity(record["name"], record["version"], record["target"])
            layout = cls(
                *whose,
                check_digest(record["content"]),
                one_of(record["order"], ORDERS),
                check_magic(record["magic"]),
                integer(record["lead"]),
                tuple(_pack(whose[0], *row) for row in record["packs"]),
                tuple(_block(*row) for row in record["blocks"]),
                tuple(tuple(integers(row)) for row in record["files"]),
                {check_path(path, what): tuple(integers(row)) for path, row in record["code"].items()},
                tuple(integers(record["eager"])),
                {text(name): texts(paths) for name, paths in record["follow"]},
                {text(path): _by_name(others) for path, others in record.get("imports", {}).items()},
            )
        except MALFORMED as error:
            raise FormatError(f"{what} is not a well-formed layout: {error!r}") from None
        layout.check(what)
        return layout

    def check(self, what: str = "layout") -> None:
        """Check that blocks lie in their packs and extents in their blocks. Raises FormatError."""
        for block in self.blocks:
            inside = (
                0 <= block.pack < len(self.packs)
                and block.offset >= 0
                and block.length > 0
                and block.offset + block.length <= self.packs[block.pack].size
                and 0 < block.size <= BLOCK_SIZE
                and (block.length == block.size if block.codec == 0 else block.length < block.size)
                and block.codec in (0, 1)
            )
            if not inside:
                raise FormatError(f"{what}: a block does not lie in its pack: {block}")
        sizes = [block.size for block in self.blocks]
        for row in (*self.files, *self.code.values()):
            check_extents(row, sizes, what)
        if not 0 <= self.lead <= len(self.blocks) or any(not 0 <= f < len(self.files) for f in self.eager):
            raise FormatError(f"{what}: the lead or an eager mark is out of range")


def _by_name(others: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return paths by the name of the package that has them. Raises ValueError."""
    return {text(name): texts(paths) for name, paths in others.items()}


def _pack(name: str, version: object, target: object, digest: object, size: object) -> Pack:
    """Return a pack's row. Raises ValueError unless version and target are in their normal form."""
    return Pack(*identity(name, version, target)[1:], check_digest(digest), integer(size))


def _block(pack: Any, offset: Any, length: Any, size: Any, codec: Any, digest: Any) -> Block:
    """Return a block's row. Raises ValueError."""
    pack, offset, length, size, codec = integers([pack, offset, length, size, codec])
    return Block(pack, offset, length, size, codec, check_digest(digest))


class BuildPointer(NamedTuple):
    """``build.json``: the one pointer of a build (docs/format.md, section 7)."""

    name: str
    version: str
    target: str
    content: Ref
    layout: Ref
    provenance: Ref
    signatures: tuple[Signature, ...] = ()

    def encode(self) -> bytes:
        """Return the pointer's canonical bytes."""
        record = {**self._asdict(), "format": FORMAT, "kind": "build"}
        if not self.signatures:
            del record["signatures"]
        return canonical(record)

    @classmethod
    def decode(cls, data: bytes, what: str) -> BuildPointer:
        """Return the pointer that ``data`` holds. Raises FormatError."""
        record = parse(data, "build", what)
        content, layout, provenance = (
            Ref.parse(record.get(part), f"{what}: {part}") for part in ("content", "layout", "provenance")
        )
        try:
            whose = identity(record["name"], record["version"], record["target"])
            return cls(*whose, content, layout, provenance, signatures_of(record))
        except MALFORMED as error:
            raise FormatError(f"{what} is not a well-formed build: {error!r}") from None
