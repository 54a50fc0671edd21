"""The environment index: answers every look-up of an environment without I/O (docs/format.md, section 10).

The header is parsed at once, a build's section on its first use, so that a cold start pays for
the builds that it imports. Import budget: ``json``, ``zlib``.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.keys import build_prefix
from cloudimport.format.records import BLOCK_SIZE, Extents, Ref, check_extents, check_path, parse
from cloudimport.ids import Pin, Target, check_digest

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


class Section:
    """One build's files, modules and blocks. All numbers are checked when it is made."""

    def __init__(self, build: int, pin: Pin, content: str, data: bytes) -> None:
        what = f"index section of {pin}"
        self.build, self.pin, self.content = build, pin, content
        try:
            self._parse(json.loads(data), what)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ConfigurationError) as error:
            raise FormatError(f"{what} is not well-formed: {error!r}") from None
        self._folders: dict[str, tuple[list[str], list[str]]] | None = None
        self._natives: dict[int, int] | None = None

    def _parse(self, record: dict[str, Any], what: str) -> None:
        self.paths: list[str] = record["paths"].split("\n") if record["paths"] else []
        self.kinds: str = record["kinds"]
        self.sizes: list[int] = record["sizes"]
        self.extents: list[list[int]] = record["extents"]
        self.eager: list[int] = record["eager"]
        self.executable = frozenset(record["executable"])
        self.prefetch: list[tuple[int, list[int]]] = [(other, runs) for other, runs in record["prefetch"]]
        self._native_digests: dict[str, str] = record["native_digests"]
        self._packs = [_pack(self.pin, *row) for row in record["packs"]]
        self._blocks: list[int] = record["blocks"]
        self._block_digests: str = record["block_digests"]
        self._exclusive = frozenset(record["exclusive"])
        self._closure: dict[str, list[int]] = record["closure"]
        count = len(self.paths)
        if not len(self.kinds) == len(self.sizes) == len(self.extents) == count:
            raise FormatError(f"{what}: columns differ in length")
        if len(self._blocks) % 5 or len(self._block_digests) != 64 * (len(self._blocks) // 5):
            raise FormatError(f"{what}: block columns differ in length")
        self.index = dict(zip(self.paths, range(count), strict=True))
        stems = record["modules"].split("\n") if record["modules"] else []
        rows = zip(stems, record["module_kinds"], record["module_files"], record["code"], strict=True)
        self.modules = {row[0]: row for row in rows}

    def module(self, stem: str) -> Module | None:
        """Return the module at a path without suffix, or None."""
        row = self.modules.get(stem)
        return Module(row[0], row[1], row[2], tuple(row[3])) if row else None

    def digest(self, file: int) -> str:
        """Return the digest of a native file's plain bytes, "" for other files (their blocks are checked)."""
        digest = self._native_digests.get(str(file), "")
        if not digest and self.kinds[file] == "n":
            raise FormatError(f"index section of {self.pin}: {self.paths[file]} has no digest")
        return digest and check_digest(digest)

    def stamp(self, file: int) -> int:
        """Return the modification time (ns) that marks a materialised file as this build's, unchanged."""
        return _EPOCH_NS + zlib.crc32(f"{self.content}/{self.paths[file]}".encode()) % 10**9

    def modules_in(self, folder: str) -> list[tuple[str, bool]]:
        """Return (name, is package) for each module directly in a folder ("" is the root)."""
        start = f"{folder}/" if folder else ""
        rows = (
            (stem[len(start) :], row[1] in "pfq")
            for stem, row in self.modules.items()
            if stem.startswith(start)
        )
        return [(name, is_package) for name, is_package in rows if "/" not in name]

    @property
    def block_count(self) -> int:
        """How many blocks the build has."""
        return len(self._blocks) // 5

    def block(self, number: int) -> BlockRef:
        """Return block ``number``. Raises FormatError if it does not lie in its pack."""
        pack, offset, length, size, codec = self._blocks[5 * number : 5 * number + 5]
        key, pack_size = self._packs[pack]
        if offset < 0 or length <= 0 or offset + length > pack_size or not 0 < size <= BLOCK_SIZE:
            raise FormatError(f"index section of {self.pin}: block {number} does not lie in its pack")
        if codec not in (0, 1) or (length != size if codec == 0 else length >= size):
            raise FormatError(
                f"index section of {self.pin}: block {number} has sizes that its codec cannot have"
            )
        digest = check_digest(self._block_digests[64 * number : 64 * number + 64])
        return BlockRef(digest, key, offset, length, size, codec, number in self._exclusive)

    def native_of(self, number: int) -> int | None:
        """Return the native file that all bytes of a block belong to, or None."""
        if number not in self._exclusive:
            return None
        if self._natives is None:
            natives = (file for file, kind in enumerate(self.kinds) if kind == "n")
            self._natives = {block: file for file in natives for block in self.extents[file][::3]}
        return self._natives.get(number)

    def pieces(self, extents: Extents | list[int]) -> list[tuple[BlockRef, int, int]]:
        """Return (block, offset, length) for a row of extents. Raises FormatError if one is out of range."""
        check_extents(tuple(extents), self._blocks[3::5], f"index section of {self.pin}")
        return [
            (self.block(extents[at]), extents[at + 1], extents[at + 2]) for at in range(0, len(extents), 3)
        ]

    def closure(self, file: int) -> list[tuple[int, int]]:
        """Return (build, file) of the native files that ``file`` needs, dependencies first."""
        flat = self._closure.get(str(file), [])
        return list(zip(flat[::2], flat[1::2], strict=True))

    def folder(self, path: str) -> tuple[list[str], list[str]] | None:
        """Return names of (files, folders) directly in ``path`` ("" is the root); None if it is no folder."""
        if self._folders is None:
            self._folders = _folders(self.paths)
        return self._folders.get(path)

    def folders(self) -> list[str]:
        """Return the path of every folder, parents first."""
        self.folder("")
        return sorted(folder for folder in self._folders or () if folder)


def _pack(pin: Pin, version: str, target: str, digest: str, size: int) -> tuple[str, int]:
    """Return (key, size) of a pack: always of the section's own package, whatever the index says."""
    clean = Pin.of(pin.name, version), Target.parse(target)
    return build_prefix(pin.name, clean[0].version, str(clean[1])) + f"pack-{check_digest(digest)}", size


def _folders(paths: list[str]) -> dict[str, tuple[list[str], list[str]]]:
    folders: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
    for path in paths:
        check_path(path, "index section")
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

    def __init__(self, data: bytes, ref: Ref) -> None:
        """Parse the plain bytes of an index whose digest the caller has checked. Raises FormatError."""
        what = f"environment index {ref.digest[:12]}"
        end = data.find(b"\n")
        header = parse(data[:end], "environment-index", what)
        self.digest = ref.digest
        self._data, self._body = data, end + 1
        try:
            self.target: str = header["target"]
            self.requirements: list[str] = header["requirements"]
            self.names: dict[str, list[int]] = header["names"]
            self.files: dict[str, list[int]] = header["files"]
            self.folders: dict[str, list[int]] = header["folders"]
            self.builds = [_build(row) for row in header["builds"]]
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{what} is not well-formed: {error!r}") from None
        self._sections: list[Section | None] = [None] * len(self.builds)

    @property
    def pins(self) -> list[Pin]:
        """The pins of the environment, sorted by name."""
        return [build.pin for build in self.builds]

    def section(self, build: int) -> Section:
        """Return a build's section, parsed on first use. Raises FormatError."""
        section = self._sections[build]
        if section is None:
            offset, length = self.builds[build].section
            start = self._body + offset
            row = self.builds[build]
            section = Section(build, row.pin, row.content, self._data[start : start + length])
            self._sections[build] = section
        return section

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
            section = self.section(other)
            for first, count in zip(runs[::2], runs[1::2], strict=True):
                for number in range(first, first + count):
                    yield section, number


def _build(row: dict[str, Any]) -> Build:
    offset, length = row["section"]
    pin = Pin(row["name"], row["version"])
    return Build(pin, row["content"], row["layout"], row["magic"], (offset, length))
