"""Builds on a shelf: committing them in the format's order, reading them back, checking them.

Reading goes through the sources and the decoder that users have (docs/format.md, section 11).
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cloudimport.errors import AbsentError, CloudImportError, ConfigurationError, CorruptError, FormatError
from cloudimport.format import codec, keys
from cloudimport.format.content import Content
from cloudimport.format.layout import BuildPointer, Layout
from cloudimport.format.records import Extents, Ref, canonical, parse, sha256
from cloudimport.format.signing import build_message, is_sound
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools.collect import code_file
from shelf_tools.compressing import compress
from shelf_tools.indexing import Built
from shelf_tools.pack import Packed
from shelf_tools.signing import Signer, signed
from shelf_tools.store import Store

#: zstd level of records: they are small and written once.
_LEVEL = 19


class ConflictError(CloudImportError):
    """The shelf has other content for the same build: the same wheel never gives that."""


def write_record(store: Store, key: str, data: bytes) -> Ref:
    """Write a record object under ``key`` + its digest; return the reference."""
    stored = compress(data, level=_LEVEL)
    digest = sha256(data)
    store.put(key + digest, stored)
    return Ref(digest, len(stored), len(data))


def read_build(source: Source, pin: Pin, target: str) -> Built | None:
    """Return a published build, or None if there is none. Raises a FetchError or FormatError."""
    prefix = keys.build_prefix(pin.name, pin.version, target)
    key = keys.build_pointer(pin.name, pin.version, target)
    pointer = _read_pointer(source, key)
    if pointer is None:
        return None
    content_key, layout_key = (
        f"{prefix}content-{pointer.content.digest}",
        f"{prefix}layout-{pointer.layout.digest}",
    )
    content = Content.decode(read_record(source, content_key, pointer.content), content_key)
    layout = Layout.decode(read_record(source, layout_key, pointer.layout), layout_key)
    for record in (pointer, content, layout):
        if (record.name, record.version, record.target) != (pin.name, pin.version, target):
            raise FormatError(
                f"{source.url}/{key}: it is of {record.name}=={record.version} for {record.target}"
            )
    if layout.content != pointer.content.digest or len(layout.files) != len(content.files):
        raise FormatError(f"{source.url}/{layout_key} is not a layout of content {pointer.content.digest}")
    for file, extents in zip(content.files, layout.files, strict=True):
        if sum(extents[2::3]) != file.size:
            raise FormatError(f"{source.url}/{layout_key}: {file.path} has not its {file.size} bytes there")
    return Built(content, pointer.content.digest, layout, pointer.layout.digest)


def read_provenance(
    source: Source, pin: Pin, target: str, pointer: BuildPointer | None = None
) -> dict[str, Any]:
    """Return the record of how a published build was made; an empty one if there is no build.

    It is what ``pointer`` names, such as one whose signature was checked, else what the shelf's does now.
    Raises a FetchError or FormatError.
    """
    pointer = pointer or _read_pointer(source, keys.build_pointer(pin.name, pin.version, target))
    if pointer is None:
        return {}
    whence = keys.build_prefix(pin.name, pin.version, target) + f"provenance-{pointer.provenance.digest}"
    return parse(read_record(source, whence, pointer.provenance), "provenance", f"{source.url}/{whence}")


def _read_pointer(source: Source, key: str) -> BuildPointer | None:
    try:
        return BuildPointer.decode(source.read(key), f"{source.url}/{key}")
    except AbsentError:
        return None


def is_sourceless(content: Content) -> bool:
    """Whether a build has bytecode in place of its source."""
    kinds = {file.kind for file in content.files}
    return "bytecode" in kinds and "source" not in kinds


def check_form(built: Built, sourceless: bool) -> list[str]:
    """Check that a published build is without source if that is wanted; return a note if only it is.

    Raises ConflictError.
    """
    content = built.content
    if sourceless and any(file.path.endswith(".py") for file in content.files):
        raise ConflictError(
            f"{content.name}=={content.version} for {content.target} is on the shelf with its source, and "
            "a build never changes: publish --bytecode-only to a shelf that does not have it, or another "
            "version"
        )
    if not sourceless and is_sourceless(content):
        return [f"{content.name}=={content.version}: it is on the shelf without source, and is used so"]
    return []


def upload(
    store: Store, source: Source, content: Content, packed: Packed, provenance: dict[str, object]
) -> tuple[Built, BuildPointer]:
    """Write packs, layout, content and provenance, and read them back: nobody sees them before ``point``.

    Raises a FetchError.
    """
    prefix = keys.build_prefix(content.name, content.version, content.target)
    for pack, path in zip(packed.layout.packs, packed.packs, strict=True):
        store.put(f"{prefix}pack-{pack.digest}", path)
    layout_data, content_data = packed.layout.encode(), content.encode()
    layout = write_record(store, f"{prefix}layout-", layout_data)
    wanted = write_record(store, f"{prefix}content-", content_data)
    whence = write_record(store, f"{prefix}provenance-", canonical(provenance))
    built = Built(content, wanted.digest, packed.layout, layout.digest)
    read_record(source, f"{prefix}provenance-{whence.digest}", whence)
    _check_packs(source, built)
    return built, BuildPointer(content.name, content.version, content.target, wanted, layout, whence)


def point(
    store: Store, source: Source, built: Built, pointer: BuildPointer, signers: Sequence[Signer] = ()
) -> Built:
    """Make an uploaded build visible: read its records, then write its pointer, signed.

    If another publisher was first, its build is returned. Raises ConflictError if that has other
    content, and a FetchError: AbsentError if what was uploaded is not on this shelf.
    """
    content, wanted = built.content, pointer.content
    pin = Pin(content.name, content.version)
    prefix = keys.build_prefix(content.name, content.version, content.target)
    read_record(source, f"{prefix}layout-{pointer.layout.digest}", pointer.layout)
    read_record(source, f"{prefix}content-{wanted.digest}", wanted)
    pointer = pointer._replace(signatures=signed(message_of(pointer), signers))
    if store.create(keys.build_pointer(content.name, content.version, content.target), pointer.encode()):
        return built
    found = read_build(source, pin, content.target)
    if found is None or found.content_digest != wanted.digest:
        other = found.content_digest if found else "nothing"
        raise ConflictError(
            f"{pin} for {content.target} is on the shelf with content {other}, and this build has content "
            f"{wanted.digest}: the wheels differ; publish the same file, or remove the build on the shelf"
        )
    return found


def message_of(pointer: BuildPointer) -> bytes:
    """Return what is signed of a build."""
    return build_message(
        pointer.name,
        pointer.version,
        pointer.target,
        pointer.content.digest,
        pointer.layout.digest,
        pointer.provenance.digest,
    )


def _check_packs(source: Source, built: Built) -> None:
    """Read back what was uploaded, whole, as readers will. Raises CorruptError."""
    for problem in pack_problems(source, built):
        raise CorruptError(problem, package=f"{built.content.name}=={built.content.version}")


def pack_problems(source: Source, built: Built) -> Iterator[str]:
    """Yield a line for each pack of a build that cannot be read or has other bytes."""
    name = built.content.name
    for pack in built.layout.packs:
        key = keys.build_prefix(name, pack.version, pack.target) + f"pack-{pack.digest}"
        try:
            actual = sha256(source.read(key))
        except CloudImportError as error:
            yield str(error)
            continue
        if actual != pack.digest:
            yield f"{name}=={pack.version}: {key} is damaged: expected sha256 {pack.digest}, got {actual}"


class Blocks:
    """Reads the blocks of one build, each checked; keeps the last few."""

    def __init__(self, source: Source, built: Built) -> None:
        self._source, self._built = source, built
        self._recent: dict[int, bytes] = {}

    def plain(self, extents: Extents) -> bytes:
        """Return the bytes at ``extents``. Raises a FetchError."""
        return b"".join(
            self._block(extents[at])[extents[at + 1] : extents[at + 1] + extents[at + 2]]
            for at in range(0, len(extents), 3)
        )

    def _block(self, number: int) -> bytes:
        if number not in self._recent:
            block = self._built.layout.blocks[number]
            pack = self._built.layout.packs[block.pack]
            key = (
                keys.build_prefix(self._built.content.name, pack.version, pack.target) + f"pack-{pack.digest}"
            )
            stored = self._source.read(key, block.offset, block.length)
            actual = sha256(stored)
            if actual != block.digest:
                raise CorruptError(
                    f"{keys.package_of(key)}: block {number} of {key} is damaged: expected sha256 "
                    f"{block.digest}, got {actual}",
                    key=key,
                    package=keys.package_of(key),
                    expected=block.digest,
                    actual=actual,
                )
            while len(self._recent) >= 64:
                self._recent.pop(next(iter(self._recent)))
            self._recent[number] = codec.decode(block.codec, stored, block.size)
        return self._recent[number]


def restore(source: Source, built: Built, into: Path) -> tuple[Path, Path | None]:
    """Write a published build's tree and bytecode below ``into``, as the installer left them.

    Returns (tree, code); code is None if the build has no bytecode. Raises a FetchError or OSError.
    """
    tree, code = into / "tree", into / "code"
    blocks = Blocks(source, built)
    for file, extents in zip(built.content.files, built.layout.files, strict=True):
        path = tree / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blocks.plain(extents))
        path.chmod(0o755 if file.executable else 0o644)
    for source_path, extents in built.layout.code.items():
        path = code_file(code, source_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blocks.plain(extents))
    return tree, code if built.layout.code else None


def verify_build(source: Source, pin: Pin, target: str, *, signatures: bool = True) -> list[str]:
    """Return a line for each thing that is wrong with a published build; none if it is sound.

    ``signatures``: whether they have to fit, whoever's they are.
    """
    try:
        built = read_build(source, pin, target)
    except CloudImportError as error:
        return [str(error)]
    if built is None:
        return [f"{pin} is not published for {target}"]
    problems = [*_provenance_problems(source, pin, target), *pack_problems(source, built)]
    if signatures:
        problems += _signature_problems(source, pin, target)
    return problems or list(_file_problems(source, built))


def _provenance_problems(source: Source, pin: Pin, target: str) -> Iterator[str]:
    """Yield a line if the record that nobody reads on the way to an import is damaged."""
    try:
        pointer = _read_pointer(source, keys.build_pointer(pin.name, pin.version, target))
        if pointer is not None:
            prefix = keys.build_prefix(pin.name, pin.version, target)
            read_record(source, f"{prefix}provenance-{pointer.provenance.digest}", pointer.provenance)
    except CloudImportError as error:
        yield str(error)


def _signature_problems(source: Source, pin: Pin, target: str) -> Iterator[str]:
    """Yield a line for each signature that does not fit the build."""
    key = keys.build_pointer(pin.name, pin.version, target)
    pointer = _read_pointer(source, key)
    if pointer is None:
        return
    for one in pointer.signatures:
        if not is_sound(one, message_of(pointer)):
            yield f"{source.url}/{key}: the signature by {one.key[:16]} does not fit it"


def _file_problems(source: Source, built: Built) -> Iterator[str]:
    blocks = Blocks(source, built)
    pin = f"{built.content.name}=={built.content.version}"
    for file, extents in zip(built.content.files, built.layout.files, strict=True):
        try:
            data = blocks.plain(extents)
        except CloudImportError as error:
            yield str(error)
            return
        if len(data) != file.size or hashlib.sha256(data).hexdigest() != file.digest:
            yield f"{pin}: {file.path} has the wrong bytes: expected sha256 {file.digest}, got {sha256(data)}"
    for path, extents in built.layout.code.items():
        try:
            is_code = blocks.plain(extents).startswith(_CODE_MARKS)
        except CloudImportError as error:
            yield str(error)
            return
        if not is_code:
            yield f"{pin}: the bytecode of {path} is no code object"


#: A marshalled code object begins with its type code, with or without the reference flag.
_CODE_MARKS = (marshal.dumps((lambda: None).__code__)[:1], b"c", b"\xe3")


def targets_of(store: Store, pin: Pin) -> list[Target]:
    """Return the targets for which a pin has a build on the shelf, sorted; those that are not known are left
    out.
    """
    prefix = keys.build_prefix(pin.name, pin.version, "-").removesuffix("-/")
    found = (key.split("/") for key in store.list(prefix) if key.endswith("/build.json"))
    targets = []
    for parts in found:
        with suppress(ConfigurationError):
            targets.append(Target.parse(parts[3]))
    return sorted(targets)


def published(store: Store) -> list[tuple[Pin, Target]]:
    """Return every build on the shelf, sorted."""
    found = []
    for key in store.list("packages/"):
        parts = key.split("/")
        if len(parts) == 5 and parts[4] == "build.json":
            pin = Pin.parse(keys.package_of(key))
            found.append((pin, Target.parse(parts[3])))
    return sorted(found)
