"""Records of a shelf: content, layout, pointers; bytes to values and back, no I/O.

docs/format.md, sections 2 and 5 to 9. Import budget: ``json``, ``hashlib`` on first use.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.ids import Target, check_digest, normalise_version

FORMAT = 1
#: Plain bytes of a block, at the most (docs/format.md, section 6).
BLOCK_SIZE = 1 << 20

KINDS = ("source", "bytecode", "native", "metadata", "script", "data")


def canonical(value: object) -> bytes:
    """Return ``value`` as canonical JSON (docs/format.md, section 2)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data``, hexadecimal."""
    import hashlib

    return hashlib.sha256(data).hexdigest()


def parse(data: bytes | str, kind: str, what: str) -> dict[str, Any]:
    """Return the record that ``data`` holds. Raises FormatError naming ``what``."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("kind") != kind:
        raise FormatError(f"{what} is not a cloudimport {kind} record")
    version = value.get("format")
    if type(version) is not int or version < 1:
        raise FormatError(f"{what} has no format version")
    if version > FORMAT:
        raise FormatError(f"{what} has format {version}, this cloudimport reads up to {FORMAT}: upgrade cloudimport")
    return value


#: Plain bytes of a record, at the most (docs/format.md, section 2).
RECORD_SIZE = 256 << 20


def is_size(value: object) -> bool:
    """Whether ``value`` is a size that a record object can have."""
    return type(value) is int and 0 <= value <= RECORD_SIZE


class Ref(NamedTuple):
    """A reference to a record object: digest of its plain bytes, stored and plain size in bytes.

    The stored size is advice: the same record may be stored by another zstd.
    """

    digest: str
    stored: int
    size: int

    @classmethod
    def parse(cls, value: object, what: str) -> Ref:
        """Return the reference in a record's field. Raises FormatError."""
        if not (isinstance(value, list) and len(value) == 3 and all(is_size(n) for n in value[1:])):
            raise FormatError(f"{what} is not a reference of digest, stored size and plain size")
        return cls(check_digest(value[0]), value[1], value[2])


class File(NamedTuple):
    """One installed file: path below the target folder, kind, mode bit, plain size in bytes, digest."""

    path: str
    kind: str
    executable: bool
    size: int
    digest: str


class Native(NamedTuple):
    """The dynamic section of a native file: ``DT_NEEDED``, ``DT_SONAME``, ``DT_RUNPATH`` or ``DT_RPATH``."""

    needed: tuple[str, ...]
    soname: str
    runpath: tuple[str, ...]


class Content(NamedTuple):
    """WHAT a build installs. ``files`` are sorted by the UTF-8 bytes of their paths."""

    name: str
    version: str
    target: str
    files: tuple[File, ...]
    requires: tuple[str, ...]
    requires_python: str
    extras: tuple[str, ...]
    native: dict[str, Native]

    def encode(self) -> bytes:
        """Return the canonical bytes, whose SHA-256 is the build's identity."""
        return canonical(
            {
                "format": FORMAT,
                "kind": "content",
                "name": self.name,
                "version": self.version,
                "target": self.target,
                "files": [list(file) for file in self.files],
                "requires": list(self.requires),
                "requires_python": self.requires_python,
                "extras": list(self.extras),
                "native": {
                    path: {"needed": list(n.needed), "soname": n.soname, "runpath": list(n.runpath)}
                    for path, n in self.native.items()
                },
            }
        )

    @classmethod
    def decode(cls, data: bytes, what: str = "content") -> Content:
        """Return the content that ``data`` holds. Raises FormatError."""
        record = parse(data, "content", what)
        try:
            files = tuple(File(p, k, bool(x), int(s), check_digest(d)) for p, k, x, s, d in record["files"])
            native = {
                path: Native(tuple(n["needed"]), n["soname"], tuple(n["runpath"]))
                for path, n in record["native"].items()
            }
            content = cls(
                record["name"],
                record["version"],
                record["target"],
                files,
                tuple(record["requires"]),
                record["requires_python"],
                tuple(record["extras"]),
                native,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise FormatError(f"{what} is not a well-formed content: {error!r}") from None
        for file in files:
            check_path(file.path, what)
        check_files(files, what)
        return content


def check_path(path: str, what: str) -> str:
    """Return ``path`` if docs/format.md, section 5 allows it. Raises FormatError naming ``what``."""
    parts = path.split("/")
    bad = (
        not path
        or any(part in ("", ".", "..", "__pycache__") or len(part.encode("utf-8", "surrogatepass")) > 255 for part in parts)
        or any(ord(c) < 32 or ord(c) == 127 or c == "\\" or 0xD800 <= ord(c) < 0xE000 for c in path)
        or len(path.encode("utf-8", "surrogatepass")) > 1024
    )
    if bad:
        raise FormatError(f"{what}: path {path[:200]!r} is not allowed")
    return path


def check_files(files: tuple[File, ...], what: str) -> None:
    """Check order, kinds and that no path is a folder of another. Raises FormatError."""
    folders: set[str] = set()
    for file in files:
        head = file.path.rpartition("/")[0]
        while head and head not in folders:
            folders.add(head)
            head = head.rpartition("/")[0]
    previous = b""
    for file in files:
        key = file.path.encode()
        if key <= previous:
            raise FormatError(f"{what}: files are not sorted or not distinct at {file.path!r}")
        if file.path in folders:
            raise FormatError(f"{what}: {file.path!r} is both a file and a folder")
        if file.kind not in KINDS or file.size < 0:
            raise FormatError(f"{what}: {file.path!r} has kind {file.kind!r} and size {file.size}")
        previous = key


class Pack(NamedTuple):
    """An object that holds blocks: version and target of the key, digest and size of the stored bytes."""

    version: str
    target: str
    digest: str
    size: int


class Block(NamedTuple):
    """One stored frame: pack number, offset and length in the pack, plain size, codec (0 raw, 1 zstd), digest."""

    pack: int
    offset: int
    length: int
    size: int
    codec: int
    digest: str


#: Extents, flattened: block, offset, length, block, offset, length, ...
Extents = tuple[int, ...]


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

    def encode(self) -> bytes:
        """Return the layout's canonical bytes."""
        record = {**self._asdict(), "format": FORMAT, "kind": "layout"}
        record["follow"] = [[name, list(paths)] for name, paths in self.follow.items()]
        return canonical(record)

    @classmethod
    def decode(cls, data: bytes, what: str = "layout") -> Layout:
        """Return the layout that ``data`` holds, with every number checked. Raises FormatError."""
        record = parse(data, "layout", what)
        try:
            layout = cls(
                record["name"],
                record["version"],
                record["target"],
                check_digest(record["content"]),
                record["order"],
                record["magic"],
                int(record["lead"]),
                tuple(_pack(*row) for row in record["packs"]),
                tuple(Block(*map(int, row[:5]), check_digest(row[5])) for row in record["blocks"]),
                tuple(tuple(map(int, row)) for row in record["files"]),
                {path: tuple(map(int, row)) for path, row in record["code"].items()},
                tuple(map(int, record["eager"])),
                {name: tuple(paths) for name, paths in record["follow"]},
            )
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError, ConfigurationError) as error:
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


def check_extents(row: Extents, sizes: list[int], what: str) -> None:
    """Check one flattened row of extents against the blocks' plain sizes. Raises FormatError."""
    if len(row) % 3:
        raise FormatError(f"{what}: extents come in threes")
    for at in range(0, len(row), 3):
        block, offset, length = row[at : at + 3]
        if not (0 <= block < len(sizes) and offset >= 0 and length > 0 and offset + length <= sizes[block]):
            raise FormatError(f"{what}: an extent does not lie in its block: {row[at : at + 3]}")


def _pack(version: str, target: str, digest: str, size: int) -> Pack:
    """Return a pack's row. Raises ValueError unless version and target are in their normal form."""
    if normalise_version(version) != version or str(Target.parse(target)) != target:
        raise ValueError(f"{version!r} or {target!r} is not in its normal form")
    return Pack(version, target, check_digest(digest), int(size))


class BuildPointer(NamedTuple):
    """``build.json``: the one pointer of a build (docs/format.md, section 7)."""

    name: str
    version: str
    target: str
    content: Ref
    layout: Ref
    provenance: Ref

    def encode(self) -> bytes:
        """Return the pointer's canonical bytes."""
        return canonical({**self._asdict(), "format": FORMAT, "kind": "build"})

    @classmethod
    def decode(cls, data: bytes, what: str) -> BuildPointer:
        """Return the pointer that ``data`` holds. Raises FormatError."""
        record = parse(data, "build", what)
        refs = (Ref.parse(record.get(part), f"{what}: {part}") for part in ("content", "layout", "provenance"))
        try:
            return cls(record["name"], record["version"], record["target"], *refs)
        except KeyError as error:
            raise FormatError(f"{what} lacks {error}") from None


class EnvironmentPointer(NamedTuple):
    """``envs/<requirements digest>.json``: environment indexes per target (docs/format.md, section 9).

    ``history`` has, per target, the indexes that were replaced: deployed lockfiles pin them.
    """

    requirements: tuple[str, ...]
    targets: dict[str, Ref]
    history: dict[str, tuple[Ref, ...]]

    def encode(self) -> bytes:
        """Return the pointer's canonical bytes."""
        targets = {
            target: {"index": ref, "history": list(self.history.get(target, ()))}
            for target, ref in self.targets.items()
        }
        return canonical(
            {"format": FORMAT, "kind": "environment", "requirements": list(self.requirements), "targets": targets}
        )

    @classmethod
    def decode(cls, data: bytes, what: str) -> EnvironmentPointer:
        """Return the pointer that ``data`` holds. Raises FormatError."""
        record = parse(data, "environment", what)
        try:
            rows = {str(Target.parse(t)): row for t, row in record["targets"].items()}
            targets = {t: Ref.parse(row["index"], f"{what}: {t}") for t, row in rows.items()}
            history = {
                t: tuple(Ref.parse(old, f"{what}: {t}") for old in row.get("history", ())) for t, row in rows.items()
            }
            return cls(tuple(map(str, record["requirements"])), targets, history)
        except (KeyError, AttributeError, TypeError, ConfigurationError) as error:
            raise FormatError(f"{what} is not a well-formed environment: {error!r}") from None

    def merged(self, target: str, ref: Ref) -> EnvironmentPointer:
        """Return this pointer with ``target``'s index set to ``ref`` and the one it had kept as history."""
        old = self.targets.get(target)
        kept = self.history.get(target, ())
        if old is not None and old.digest not in {r.digest for r in kept} | {ref.digest}:
            kept = (*kept, old)
        kept = tuple(r for r in kept if r.digest != ref.digest)
        return EnvironmentPointer(
            self.requirements, {**self.targets, target: ref}, {**self.history, target: kept}
        )
