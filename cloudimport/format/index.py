"""The environment index: answers every look-up of an environment without I/O (docs/format.md, section 10).

The header is parsed at once, a build's section on its first use, so that a cold start pays for
the builds that it imports. Import budget: ``zlib``.
"""

from __future__ import annotations

import zlib
from itertools import accumulate, chain

from cloudimport.errors import FormatError
from cloudimport.format import jsontext
from cloudimport.format.keys import build_prefix
from cloudimport.format.records import (
    BLOCK_SIZE,
    MALFORMED,
    RECORD_SIZE,
    Extents,
    Ref,
    check_extents,
    check_magic,
    check_path,
    identity,
    integer,
    integers,
    parse,
    text,
    texts,
)
from cloudimport.ids import Pin, Target, check_digest, normalise_name, normalise_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, NamedTuple, Protocol

    class Kept(Protocol):
        """Keeps the columns of an index's sections between processes."""

        def get(self, build: int) -> dict[str, Any] | None:
            """Return the columns of a build's section, or None."""

        def put(self, build: int, columns: dict[str, Any]) -> None:
            """Keep them, if that can be."""
else:
    from cloudimport.tuples import NamedTuple

#: 1980-01-01, the oldest time that zip archives can hold.
_EPOCH_NS = 315_532_800 * 10**9


class BlockRef(NamedTuple):
    """A block that can be fetched: object key, byte range of the stored frame, plain size, codec.

    ``digest`` is that of the stored bytes; ``exclusive`` says that all plain bytes belong to one
    native file.
    """

    digest: str
    key: str
    offset: int
    length: int
    size: int
    codec: int
    exclusive: bool


class Module(NamedTuple):
    """An importable module: path without suffix, kind letter, its file, extents of its code object."""

    stem: str
    kind: str
    file: int
    code: Extents


class _Rows:
    """Rows of integers, end to end: a list for each would be visited by every garbage collection."""

    def __init__(self, flat: tuple[int, ...], ends: tuple[int, ...]) -> None:
        self.flat, self._ends = flat, ends

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Extents:
        return self.flat[self._ends[number] : self._ends[number + 1]]


class Section:
    """One build's files, modules and blocks.

    ``columns`` are those of ``checked``: tuples of numbers or text, and dicts of such, which garbage
    collection leaves alone. What goes through whole columns was checked there; a block, an extent and a
    closure are when they are asked for, so that importing one module does not pay for a thousand.
    ``files_of`` returns how many files another build of the environment has.
    """

    def __init__(
        self, build: int, pin: Pin, content: str, columns: dict[str, Any], files_of: Callable[[int], int]
    ) -> None:
        self.build, self.pin, self.content = build, pin, content
        self._what = f"index section of {pin}"
        self._files_of = files_of
        self._folders: dict[str, tuple[list[str], list[str]]] | None = None
        self._natives: dict[int, int] | None = None
        self._refs: dict[int, BlockRef] = {}
        self._code_blocks: list[int] | None = None
        self.paths = _lines(columns["paths"])
        self.index = dict(zip(self.paths, range(len(self.paths)), strict=True))
        self.kinds: str = columns["kinds"]
        self.sizes: tuple[int, ...] = columns["sizes"]
        self.extents = _Rows(*columns["extents"])
        self.eager: tuple[int, ...] = columns["eager"]
        self.executable: frozenset[int] = columns["executable"]
        self._native_digests: dict[str, str] = columns["native_digests"]
        self.packs: tuple[tuple[str, int], ...] = columns["packs"]
        self._blocks: tuple[int, ...] = columns["blocks"]
        self._block_sizes = self._blocks[3::5]
        self._block_digests: str = columns["block_digests"]
        self._exclusive: frozenset[int] = columns["exclusive"]
        self._stems = _lines(columns["modules"])
        self.modules = dict(zip(self._stems, range(len(self._stems)), strict=True))
        self._module_kinds: str = columns["module_kinds"]
        self._module_files: tuple[int, ...] = columns["module_files"]
        self._code = _Rows(*columns["code"])
        self.prefetch: tuple[tuple[int, tuple[int, ...]], ...] = columns["prefetch"]
        self._imports: str = columns["imports"]
        self._import_lines: list[str] | None = None
        self._closure: dict[str, tuple[int, ...]] = columns["closure"]

    def module(self, stem: str) -> Module | None:
        """Return the module at a path without suffix, or None."""
        row = self.modules.get(stem)
        return None if row is None else self._module(stem, row)

    def _module(self, stem: str, row: int) -> Module:
        return Module(stem, self._module_kinds[row], self._module_files[row], self._code[row])

    def module_at(self, row: int) -> Module | None:
        """Return the module of a row, or None: whoever has the row may have it from elsewhere."""
        if not 0 <= row < len(self._module_files):
            return None
        return self._module(self._stems[row], row)

    def imports(self, row: int) -> list[tuple[int, int]]:
        """Return (build, row) of the modules that a module is known to import. A hint, so nothing is raised.

        The packages that it lies in come first, for they run before it.
        """
        if self._import_lines is None:
            self._import_lines = self._imports.split("\n") if self._imports else []
        found: list[tuple[int, int]] = []
        stem = self._stems[row]
        while stem := stem.rpartition("/")[0]:
            above = self.modules.get(stem)
            if above is not None:
                found.insert(0, (self.build, above))
        for item in self._import_lines[row].split(" ") if self._import_lines else ():
            build, _, number = item.rpartition(":")
            if number and ":" not in build and len(item) < _LONGEST_IMPORT:
                found.append((int(build) if build else self.build, int(number)))
        return found

    def digest(self, file: int) -> str:
        """Return the digest of a native file's plain bytes, "" for other files (their blocks are checked)."""
        digest = self._native_digests.get(str(file), "")
        if not digest and self.kinds[file] == "n":
            raise FormatError(f"{self._what}: {self.paths[file]} has no digest")
        return digest and check_digest(digest)

    def stamp(self, file: int) -> int:
        """Return the modification time (ns) that marks a materialised file as this build's, unchanged."""
        return _EPOCH_NS + zlib.crc32(f"{self.content}/{self.paths[file]}".encode()) % 10**9

    def modules_in(self, folder: str) -> list[tuple[str, bool]]:
        """Return (name, is package) for each module directly in a folder ("" is the root)."""
        start = f"{folder}/" if folder else ""
        rows = (
            (stem[len(start) :], self._module_kinds[row] in "pfq")
            for stem, row in self.modules.items()
            if stem.startswith(start)
        )
        return [(name, is_package) for name, is_package in rows if "/" not in name]

    @property
    def block_count(self) -> int:
        """How many blocks the build has."""
        return len(self._blocks) // 5

    def block(self, number: int) -> BlockRef:
        """Return block ``number``. Raises FormatError if there is none or it does not lie in its pack."""
        found = self._refs.get(number)
        if found is None:
            found = self._refs[number] = self._block(number)
        return found

    def _block(self, number: int) -> BlockRef:
        if not 0 <= number < self.block_count:
            raise FormatError(f"{self._what}: there is no block {number}")
        pack, offset, length, size, codec = self._blocks[5 * number : 5 * number + 5]
        key, pack_size = self.packs[pack] if pack < len(self.packs) else ("", 0)
        if length <= 0 or offset + length > pack_size or not 0 < size <= BLOCK_SIZE:
            raise FormatError(f"{self._what}: block {number} does not lie in its pack")
        if codec not in (0, 1) or (length != size if codec == 0 else length >= size):
            raise FormatError(f"{self._what}: block {number} has sizes that its codec cannot have")
        digest = check_digest(self._block_digests[64 * number : 64 * number + 64])
        return BlockRef(digest, key, offset, length, size, codec, number in self._exclusive)

    def code_from(self, number: int) -> Iterator[BlockRef]:
        """Yield the blocks after ``number`` that hold code objects, in their order."""
        if self._code_blocks is None:
            self._code_blocks = sorted(set(self._code.flat[::3]))
        for block in self._code_blocks:
            if block > number:
                yield self.block(block)

    def native_of(self, number: int) -> int | None:
        """Return the native file that all bytes of a block belong to, or None."""
        if number not in self._exclusive:
            return None
        if self._natives is None:
            natives = (file for file, kind in enumerate(self.kinds) if kind == "n")
            self._natives = {block: file for file in natives for block in self.extents[file][::3]}
        return self._natives.get(number)

    def pieces(self, extents: Extents) -> list[tuple[BlockRef, int, int]]:
        """Return (block, offset, length) for a row of extents. Raises FormatError if one is out of range."""
        check_extents(extents, self._block_sizes, self._what)
        return [
            (self.block(extents[at]), extents[at + 1], extents[at + 2]) for at in range(0, len(extents), 3)
        ]

    def closure(self, file: int) -> list[tuple[int, int]]:
        """Return (build, file) of the native files that ``file`` needs, dependencies first.

        Raises FormatError if one of them is not there.
        """
        try:
            flat = self._closure.get(str(file), ())
            pairs = list(zip(flat[::2], flat[1::2], strict=True))
            for build, other in pairs:
                integer(other, self._files_of(build))
        except MALFORMED as error:
            raise FormatError(
                f"{self._what}: what {self.paths[file]} needs is not well-formed: {error!r}"
            ) from None
        return pairs

    def folder(self, path: str) -> tuple[list[str], list[str]] | None:
        """Return names of (files, folders) directly in ``path`` ("" is the root); None if it is no folder."""
        if self._folders is None:
            folders = _folders(self.paths)
            if not folders.keys().isdisjoint(self.index):
                raise FormatError(f"{self._what}: a path is both a file and a folder")
            self._folders = folders
        return self._folders.get(path)

    def folders(self) -> list[str]:
        """Return the path of every folder, parents first."""
        self.folder("")
        return sorted(folder for folder in self._folders or () if folder)


def checked(data: bytes, pin: Pin, builds: int) -> dict[str, Any]:
    """Return the columns of a section's plain bytes, in an environment of ``builds``. Raises FormatError.

    They are of the types that ``marshal`` has: reading them so takes a tenth of the time.
    """
    what = f"index section of {pin}"
    try:
        record = jsontext.loads(data)
        return {
            **_file_columns(record, what),
            **_block_columns(record, pin),
            **_module_columns(record),
            "prefetch": tuple(
                (integer(other, builds), tuple(integers(runs))) for other, runs in record["prefetch"]
            ),
            "imports": _import_column(record),
            "closure": {text(file): tuple(integers(flat)) for file, flat in record["closure"].items()},
        }
    except MALFORMED as error:
        raise FormatError(f"{what} is not well-formed: {error!r}") from None


def _rows(rows: list[list[int]]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return rows of integers end to end, and where each ends."""
    return tuple(integers([*chain.from_iterable(rows)])), (*accumulate(map(len, rows), initial=0),)


def _file_columns(record: dict[str, Any], what: str) -> dict[str, Any]:
    paths, kinds, sizes = _lines(record["paths"]), text(record["kinds"]), tuple(integers(record["sizes"]))
    count, extents = len(paths), _rows(record["extents"])
    if not len(kinds) == len(sizes) == len(extents[1]) - 1 == len(set(paths)) == count:
        raise ValueError("columns differ in length, or a path stands twice")
    if not set(kinds) <= _KINDS:
        raise ValueError("a file is of no known kind")
    # Whether each lies in its block is checked when it is used.
    if sum(extents[0][2::3]) != sum(sizes):
        raise ValueError("the extents are not the sizes of the files")
    _check_paths(paths, what)
    return {
        "paths": record["paths"],
        "kinds": kinds,
        "sizes": sizes,
        "extents": extents,
        "eager": tuple(integers(record["eager"], count)),
        "executable": frozenset(integers(record["executable"], count)),
        "native_digests": {text(file): text(digest) for file, digest in record["native_digests"].items()},
    }


def _block_columns(record: dict[str, Any], pin: Pin) -> dict[str, Any]:
    blocks, digests = tuple(integers(record["blocks"])), text(record["block_digests"])
    if len(blocks) % 5 or len(digests) != 64 * (len(blocks) // 5):
        raise ValueError("block columns differ in length")
    return {
        "packs": tuple(_pack(pin, *row) for row in record["packs"]),
        "blocks": blocks,
        "block_digests": digests,
        "exclusive": frozenset(integers(record["exclusive"], len(blocks) // 5)),
    }


def _module_columns(record: dict[str, Any]) -> dict[str, Any]:
    stems, kinds, code = _lines(record["modules"]), text(record["module_kinds"]), _rows(record["code"])
    files = tuple(integers(record["module_files"], len(_lines(record["paths"]))))
    if not len(stems) == len(kinds) == len(files) == len(code[1]) - 1:
        raise ValueError("module columns differ in length")
    if not set(kinds) <= _MODULE_KINDS:
        raise ValueError("a module is of no known kind")
    if sum(code[0][2::3]) > RECORD_SIZE:
        raise ValueError("there is more bytecode than any build has")
    return {"modules": record["modules"], "module_kinds": kinds, "module_files": files, "code": code}


def _import_column(record: dict[str, Any]) -> str:
    """Return what modules import, as it is: few processes look. Raises ValueError."""
    column = text(record.get("imports", ""))
    if column and (column.count("\n") != text(record["modules"]).count("\n") or not set(column) <= _IMPORT):
        raise ValueError("what modules import is no list of numbers")
    return column


def _pack(pin: Pin, version: object, target: object, digest: object, size: object) -> tuple[str, int]:
    """Return (key, size) of a pack: always of the section's own package, whatever the index says."""
    return build_prefix(*identity(pin.name, version, target)) + f"pack-{check_digest(digest)}", integer(size)


#: What the column of imports is made of, and characters that one may have.
_IMPORT, _LONGEST_IMPORT = frozenset("0123456789: \n"), 20
_KINDS, _MODULE_KINDS = frozenset("sbnmxd"), frozenset("pmefbq")


def _lines(joined: object) -> tuple[str, ...]:
    return tuple(text(joined).split("\n")) if joined else ()


def _check_paths(paths: Sequence[str], what: str) -> None:
    """Check every path (docs/format.md, section 5). Raises FormatError.

    One by one they would cost as much as parsing the section, so what almost all of them are is
    seen at once: short, ASCII, without a character or component that needs a second look.
    """
    if not paths:
        return
    joined = f"/{'/ /'.join(paths)}/"
    plain = joined.isascii() and joined.isprintable() and max(map(len, paths)) < 256
    if not plain or any(part in joined for part in ("\\", "//", "/./", "/../", "/__pycache__/")):
        for path in paths:
            check_path(path, what)


def _folders(paths: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    folders: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
    for path in paths:
        head, _, name = path.rpartition("/")
        if head not in folders:
            _add_folder(folders, head)
        folders[head][0].append(name)
    return folders


def _add_folder(folders: dict[str, tuple[list[str], list[str]]], path: str) -> None:
    head, _, name = path.rpartition("/")
    if head not in folders:
        _add_folder(folders, head)
    folders[head][1].append(name)
    folders[path] = ([], [])


class Build(NamedTuple):
    """A build of the environment as the header has it."""

    pin: Pin
    content: str
    layout: str
    magic: str
    section: tuple[int, int]


class EnvironmentIndex:
    """The merged contents and layouts of an environment's builds."""

    def __init__(self, data: bytes, ref: Ref, kept: Kept | None = None) -> None:
        """Parse the plain bytes of an index whose digest the caller has checked. Raises FormatError.

        ``kept`` keeps the columns of sections that were checked.
        """
        self._kept = kept
        what = f"environment index {ref.digest[:12]}"
        end = data.find(b"\n")
        if end < 0:
            raise FormatError(f"{what} has no header line")
        header = parse(data[:end], "environment-index", what)
        self.digest = ref.digest
        self._data, self._body = data, end + 1
        try:
            self.target = str(Target.parse(text(header["target"])))
            self.requirements = texts(header["requirements"])
            self.builds = [_build(row, len(data) - self._body) for row in header["builds"]]
            self.names = self._numbered(header["names"])
            self.files = self._numbered(header["files"])
            self.folders = self._numbered(header["folders"])
        except MALFORMED as error:
            raise FormatError(f"{what} is not well-formed: {error!r}") from None
        self._sections: list[Section | None] = [None] * len(self.builds)
        #: Numbers of the builds that look-ups go over.
        self.visible: Sequence[int] = range(len(self.builds))

    @property
    def data(self) -> bytes:
        """The plain bytes that the index was parsed from."""
        return self._data

    def _numbered(self, names: dict[str, list[int]]) -> dict[str, list[int]]:
        """Return ``names`` with the numbers of the builds that have them. Raises ValueError."""
        for builds in names.values():
            integers(builds, len(self.builds))
        return names

    def hide(self, builds: Iterable[int]) -> None:
        """Answer from now on as if some builds were not there, but to native code linked to them."""
        hidden = frozenset(builds)
        self.visible = [build for build in self.visible if build not in hidden]
        for table in ("names", "files", "folders"):
            kept = {
                name: [build for build in having if build not in hidden]
                for name, having in getattr(self, table).items()
            }
            setattr(self, table, {name: having for name, having in kept.items() if having})

    @property
    def pins(self) -> list[Pin]:
        """The pins of the environment, sorted by name."""
        return [self.builds[build].pin for build in self.visible]

    def section(self, build: int) -> Section:
        """Return a build's section, parsed on first use. Raises FormatError."""
        section = self._sections[build]
        if section is None:
            row = self.builds[build]
            section = Section(build, row.pin, row.content, self._columns(build), self._files_of)
            self._sections[build] = section
        return section

    def _columns(self, build: int) -> dict[str, Any]:
        columns = self._kept.get(build) if self._kept is not None else None
        if columns is None:
            pin, (offset, length) = self.builds[build].pin, self.builds[build].section
            start = self._body + offset
            columns = checked(self._data[start : start + length], pin, len(self.builds))
            if self._kept is not None:
                self._kept.put(build, columns)
        return columns

    def _files_of(self, build: int) -> int:
        return len(self.section(build).paths)

    def find_module(self, stem: str) -> tuple[Section, Module] | None:
        """Return the module at ``stem`` (``pandas/core/frame``), or None."""
        top = stem.partition("/")[0]
        for build in self.names.get(top, ()):
            section = self.section(build)
            module = section.module(stem)
            if module:
                return section, module
        return None

    def find_file(self, path: str) -> tuple[Section, int] | None:
        """Return the file at ``path``, or None."""
        top, inside, _ = path.partition("/")
        for build in (self.folders if inside else self.files).get(top, ()):
            section = self.section(build)
            file = section.index.get(path)
            if file is not None:
                return section, file
        return None

    def find_folder(self, path: str) -> list[Section]:
        """Return the sections that have files below folder ``path``."""
        builds = self.folders.get(path.partition("/")[0], ())
        return [section for section in map(self.section, builds) if section.folder(path) is not None]

    def prefetch(self, build: int) -> Iterator[tuple[Section, int]]:
        """Yield (section, block number) of what importing ``build`` needs, its own lead first."""
        for other, runs in self.section(build).prefetch:
            if other not in self.visible:
                continue
            section = self.section(other)
            for first, count in _pairs(runs):
                for number in range(first, min(first + count, section.block_count)):
                    yield section, number


def _pairs(flat: Sequence[int]) -> Iterable[tuple[int, int]]:
    return zip(flat[::2], flat[1::2], strict=False)


def _build(row: dict[str, Any], size: int) -> Build:
    """Return a build's row of a header whose sections have ``size`` bytes. Raises ValueError."""
    offset, length = integers(row["section"], size + 1)
    name, version = text(row["name"]), text(row["version"])
    if offset + length > size or (name, version) != (normalise_name(name), normalise_version(version)):
        raise ValueError(f"the section or the pin of {name[:100]}=={version[:100]} is not well-formed")
    digests = check_digest(row["content"]), check_digest(row["layout"])
    return Build(Pin(name, version), *digests, check_magic(row["magic"]), (offset, length))
