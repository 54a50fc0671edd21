"""Objects of a shelf built again from the package index, for ``shelf verify --repair --from-index``.

The lists of the environments that have what is damaged are published once more, to a shelf in a temporary
folder: sound builds are copied there, damaged ones are fetched (by the hash that their provenance has),
installed and traced. The same wheel gives the same content; where the trace or its order came out another
way, packs are laid down as the layout that is on the shelf says. The shelf does not say which limits,
indexes and interpreters they were published with: who repairs does (``Making``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cloudimport.errors import AbsentError, CloudImportError, FetchError, FormatError
from cloudimport.format import keys
from cloudimport.format.content import Content
from cloudimport.format.layout import Block, BuildPointer, Layout
from cloudimport.format.records import Extents, parse, sha256
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.reading import hand_out, lacks, too_short
from shelf_tools import pins
from shelf_tools.builds import Blocks, is_sourceless, read_build
from shelf_tools.compressing import compress
from shelf_tools.copying import Copier
from shelf_tools.environments import open_shelf
from shelf_tools.indexing import Built
from shelf_tools.interpreters import check_given, fitting
from shelf_tools.limits import StageLimits
from shelf_tools.objects import Indexed, Walk, plain
from shelf_tools.pack import LEVEL
from shelf_tools.publish import Job, Reporter, publish
from shelf_tools.reach import Build, Reach, build_of, pack_keys
from shelf_tools.store import Store, open_store
from shelf_tools.workfolder import work_folder


@dataclass(frozen=True)
class Making:
    """How builds are made again, as far as the shelf does not say how they were.

    ``options`` are lines of a requirements file that say which indexes to use; the others as ``publish.Job``
    has them.
    """

    environ: Mapping[str, str]
    sandbox: str = "bubblewrap"
    limits: StageLimits = field(default_factory=StageLimits)
    allow_sdist: frozenset[str] = frozenset()
    pythons: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()


class Rebuilt:
    """Reads objects that were built again. A ``Source``, as far as a donor needs one."""

    def __init__(self, store: Store, source: Source, scratch: Source) -> None:
        self.url = "the package index"
        self._store, self._source, self._scratch = store, source, scratch

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return bytes of an object; see ``Source.read``. It is absent if building again did not give it."""
        data = self._whole(key)
        if lacks(start, length, len(data)):
            raise too_short(key, key, start, length, len(data))
        return data[start:] if length is None else data[start : start + length]

    def _whole(self, key: str) -> bytes:
        try:
            return self._scratch.read(key)
        except AbsentError:
            pass
        for layout in self._layouts(key) if "/pack-" in key else ():
            built = read_build(self._scratch, Pin(layout.name, layout.version), layout.target)
            if built is not None and built.content_digest == layout.content:
                return lay_down(layout, key, built, Blocks(self._scratch, built))
        raise AbsentError(_why(self._scratch, key), key=key)

    def _layouts(self, pack: str) -> Iterator[Layout]:
        """Yield the layouts on the shelf that say what is in a pack: it may be that of another version."""
        for key in self._store.list(f"packages/{pack.split('/')[1]}/"):
            if "/layout-" in key:
                with suppress(FetchError, FormatError):
                    layout = Layout.decode(plain(key, self._source.read(key)), key)
                    if pack in pack_keys(layout):
                        yield layout

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Read into buffers; see ``Source.readv``."""
        hand_out(self.read(key, start, length), buffers)

    def close(self) -> None:
        """Drop connections."""
        self._scratch.close()

    def forget(self) -> None:
        """Do nothing: no process is forked meanwhile."""


def _why(scratch: Source, key: str) -> str:
    build = build_of(key)
    try:
        built = read_build(scratch, *build) if build else None
    except CloudImportError as error:
        return str(error)
    if build is None or built is None:
        return f"{key} was not built again"
    return (
        f"{build[0]} was built again with content {built.content_digest}, and did not give {key}: take it "
        "from another shelf (--from), or forget the environments that need it and publish them again"
    )


def lay_down(layout: Layout, key: str, built: Built, blocks: Blocks) -> bytes:
    """Return the bytes of a layout's pack ``key``, made of the same content built again.

    Raises AbsentError if they do not come out the same: another zstd, or another interpreter's bytecode.
    """
    number = list(pack_keys(layout)).index(key)
    out = bytearray(layout.packs[number].size)
    parts = _parts(layout, number, built)
    level = LEVEL
    for at, block in enumerate(layout.blocks):
        if block.pack != number:
            continue
        data = bytearray(block.size)
        for to, extents in parts.get(at, ()):
            found = blocks.plain(extents)
            data[to : to + len(found)] = found
        frame, level = _frame(bytes(data), block, level, key)
        out[block.offset : block.offset + block.length] = frame
    if sha256(bytes(out)) != layout.packs[number].digest:
        raise AbsentError(f"{key} was laid down again and came out another way", key=key)
    return bytes(out)


#: Where bytes of a block come from: their place in it, and where they are in what was built again.
_Part = tuple[int, Extents]


def _parts(layout: Layout, number: int, built: Built) -> Mapping[int, list[_Part]]:
    """Return, for the blocks of a pack, which bytes of which file or code object lie where."""
    code = [(extents, built.layout.code.get(path, ())) for path, extents in layout.code.items()]
    found: dict[int, list[_Part]] = {}
    for extents, others in (*zip(layout.files, built.layout.files, strict=True), *code):
        start, size = 0, sum(others[2::3])
        for at in range(0, len(extents), 3):
            block, to, length = extents[at : at + 3]
            if layout.blocks[block].pack == number and start + length <= size:
                found.setdefault(block, []).append((to, _cut(others, start, length)))
            start += length
    return found


def _cut(extents: Extents, start: int, length: int) -> Extents:
    """Return extents of the ``length`` bytes from ``start`` on of what ``extents`` are of."""
    found: list[int] = []
    for at in range(0, len(extents), 3):
        block, offset, size = extents[at : at + 3]
        skipped = min(start, size)
        taken = min(size - skipped, length)
        if taken:
            found += (block, offset + skipped, taken)
        start, length = start - skipped, length - taken
    return tuple(found)


def _frame(data: bytes, block: Block, level: int, key: str) -> tuple[bytes, int]:
    """Return a block's frame, and the zstd level that made it: packs do not say with which they were."""
    for tried in dict.fromkeys((level, *range(LEVEL, 0, -1))) if block.codec else ():
        frame = compress(data, tried)
        if len(frame) == block.length and sha256(frame) == block.digest:
            return frame, tried
    if not block.codec and sha256(data) == block.digest:
        return data, level
    raise AbsentError(
        f"{key}: a block did not come out as it was, by another version of zstd or of the interpreter: take "
        "it from another shelf (--from), or forget the environments that need it and publish them again",
        key=key,
    )


class _Needed:
    """Which environments have to be published again, and which of their builds are damaged."""

    def __init__(self, walk: Walk) -> None:
        self.builds = {build for key in walk.damaged if (build := build_of(key))}
        self.indexes: list[Indexed] = []
        left = set(self.builds)
        for index in walk.indexes:
            has = set(index.builds or ())
            if index.key in walk.damaged or has & left:
                self.indexes.append(index)
                left -= has
        #: In no environment: nobody knows what else would have to be beside them.
        self.orphans = left - {build for index in self.indexes for build in _listed(index)}


def _listed(index: Indexed) -> list[Build]:
    wanted = pins.for_target(parse_lines(index.requirements), Target.parse(index.target))
    return [(one.pin, index.target) for one in wanted]


@contextmanager
def rebuilt(store: Store, source: Source, making: Making, report: Reporter, walk: Walk) -> Iterator[Rebuilt]:
    """Build again what a walk found damaged, and yield it. Builds that fail are reported, and are not there.

    Raises OSError, and ConfigurationError if there is no sandbox, or an interpreter that was named is for
    none of the targets.
    """
    needed, environ = _Needed(walk), making.environ
    if needed.indexes:
        check_given(making.pythons, [Target.parse(index.target) for index in needed.indexes])
    for pin, target in sorted(needed.orphans):
        report.note(f"{pin} for {target} is in no environment: 'shelf gc' takes it, then publish it again")
    with work_folder("repair") as work:
        url = str(work / "shelf")
        scratch = open_store(url, environ)
        open_shelf(scratch)
        read = open_source(url, SourceConfig(environ=environ))
        seeded: set[Build] = set()
        try:
            for number, index in enumerate(needed.indexes):
                listed = _listed(index)
                _seed(store, source, scratch, read, set(listed) - needed.builds - seeded)
                seeded |= set(listed)
                folder = work / str(number)
                folder.mkdir()
                made = _Made(source, index, needed.builds)
                job = _job(folder, made, url, Target.parse(index.target), making)
                try:
                    publish(job, report)
                except CloudImportError as error:
                    for line in str(error).splitlines():
                        report.note(line)
            yield Rebuilt(store, source, read)
        finally:
            read.close()


def _job(folder: Path, made: _Made, url: str, target: Target, making: Making) -> Job:
    requirements = folder / "requirements.txt"
    requirements.write_text("".join(f"{line}\n" for line in (*making.options, *made.lines)), encoding="utf-8")
    lock = folder / "cloudimport.lock"
    return Job(
        requirements,
        url,
        (target,),
        lock,
        url,
        making.environ,
        sandbox=making.sandbox,
        limits=making.limits,
        allow_sdist=making.allow_sdist | frozenset(made.from_source),
        bytecode_only=tuple(made.sourceless),
        pythons=fitting(making.pythons, target),
    )


def _seed(store: Store, source: Source, scratch: Store, read: Source, builds: set[Build]) -> None:
    """Copy sound builds to the scratch shelf, where they are taken as they are; one that fails is not."""
    reach, copier = Reach(source), Copier(source, scratch, read)
    for build in sorted(builds):
        pointer = keys.build_pointer(*build[0], build[1])
        with suppress(FetchError, FormatError):
            for key in reach.build(build) - {pointer}:
                copier.copy(key, reach.sizes.get(key, -1))
            found = store.read_versioned(pointer)
            if found is not None:
                scratch.create(pointer, found[0])


class _Made:
    """How an environment's damaged builds were made, as far as the shelf still says it.

    ``lines`` is the whole list, damaged pins with the hash of the wheel or source distribution that they were
    made of; ``from_source`` are names of the latter, ``sourceless`` pins that were published without source.
    """

    def __init__(self, source: Source, index: Indexed, damaged: set[Build]) -> None:
        self.lines: list[str] = []
        self.from_source: list[str] = []
        self.sourceless: list[str] = []
        for one in parse_lines(index.requirements):
            build = (one.pin, index.target)
            digest = self._look(source, build) if build in damaged else ""
            self.lines.append(f"{one.line} --hash=sha256:{digest}" if digest else one.line)

    def _look(self, source: Source, build: Build) -> str:
        """Return the SHA-256 of what a build was made of, "" if nothing on the shelf says it."""
        pin, target = build
        key, prefix = keys.build_pointer(*pin, target), keys.build_prefix(*pin, target)
        digest = None
        with suppress(FetchError, FormatError, KeyError, TypeError):
            pointer = BuildPointer.decode(source.read(key), key)
            whence = f"{prefix}provenance-{pointer.provenance.digest}"
            record = parse(plain(whence, source.read(whence)), "provenance", whence)
            is_built = "build" in record
            digest = record["build"]["sdist"]["sha256"] if is_built else record["wheel"]["sha256"]
            self.from_source += [pin.name] if is_built else []
        with suppress(FetchError, FormatError):
            pointer = BuildPointer.decode(source.read(key), key)
            content = f"{prefix}content-{pointer.content.digest}"
            found = Content.decode(plain(content, source.read(content)), content)
            self.sourceless += [str(pin)] if is_sourceless(found) else []
        return digest if isinstance(digest, str) and len(digest) == 64 else ""
