"""``shelf export``: an environment as a folder of read-only files, for editors and type checkers.

It is chosen as ``cloudimport.install()`` chooses it, and has the bytes that the site tree would have.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from cloudimport.cache.disk import DiskBlocks
from cloudimport.cache.folder import open_folder
from cloudimport.cache.hot import HotBlocks
from cloudimport.cache.tiered import BlockCache
from cloudimport.environments import from_lock, from_shelf, read_index, read_lock
from cloudimport.errors import CloudImportError, ConfigurationError, CorruptError
from cloudimport.events import Counters
from cloudimport.fetch.engine import Fetcher
from cloudimport.format.index import BlockRef, EnvironmentIndex, Section
from cloudimport.format.records import canonical, sha256
from cloudimport.ids import Pin, Target, running_targets
from cloudimport.settings import LOCK_NAME, REQUIREMENTS_NAME, Settings, default_shelf, resolve
from cloudimport.site.files import with_interpreter
from cloudimport.site.tree import SiteTree
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.links import Links, Shape, link, write
from shelf_tools.swap import new_folder

#: Says that a folder is an export, and of what.
MARKER = ".shelf-export.json"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Wanted(NamedTuple):
    """Which environment; None: by the environment variables, else what is found, else the default."""

    requirements: str | None
    lock: str | None
    shelf: str | None
    cache: str | None
    target: Target | None
    environ: Mapping[str, str]


class Exported(NamedTuple):
    """What an export came to: files, those of them that share their bytes with another, bytes of all."""

    files: int
    shared: int
    size: int


class ExportError(CloudImportError):
    """The folder cannot be written."""


class Export:
    """An environment to export. Raises ConfigurationError, NotPublishedError, a FetchError or FormatError."""

    def __init__(self, wanted: Wanted) -> None:
        settings = _settings(wanted)
        targets = [wanted.target] if wanted.target else running_targets()
        locked = read_lock(settings) if settings.lock else None
        url = settings.shelf or (locked.shelf if locked else "") or default_shelf(settings.environ)
        config = SourceConfig(environ=settings.environ, deadline=settings.deadline)
        self.source: Source = open_source(url, config)
        ref, self.target = (
            from_lock(locked, settings, targets) if locked else from_shelf(self.source, settings, targets)
        )
        root, counters = open_folder(settings.cache), Counters()
        self.index = read_index(self.source, root, ref, self.target, counters)
        cache = f"{root}/v1"
        disk = DiskBlocks(f"{cache}/blocks", settings.cache_bytes, counters)
        self._fetcher = Fetcher(
            self.source, BlockCache(HotBlocks(settings.memory_bytes), disk, counters), counters
        )
        tree = os.path.realpath(f"{cache}/trees/{ref.digest[:32]}")
        self._tree = SiteTree(tree, self.index, self._fetcher, counters)
        self._links = Links(f"{cache}/exports")

    @property
    def pins(self) -> list[Pin]:
        """The pins of the environment, sorted by name."""
        return self.index.pins

    def close(self) -> None:
        """Let go of connections."""
        self.source.close()

    def write(self, folder: str, stubs_only: bool, on_done: Callable[[str], None]) -> Exported:
        """Put the environment at ``folder`` in place of an earlier export; ``on_done`` hears of each pin.

        Raises ConfigurationError if something else is there, ExportError for a full disk, OSError, or a
        FetchError; ``folder`` is as before then.
        """
        at = os.path.realpath(folder)
        with _says_full(at), new_folder(at, is_export) as new:
            exported = self._writing(new, at).run(self._sections(), stubs_only, on_done)
            _mark(new, self.index, stubs_only)
        self._links.prune()
        return exported

    def write_packages(
        self, folder: str, on_done: Callable[[str], None], note: Callable[[str], None]
    ) -> Exported:
        """Put each package alone at ``folder/NAME==VERSION/files``, as an OpenLambda worker keeps them.

        Each appears whole or not at all; what is there from an earlier export is kept, and what the worker
        has installed itself. Raises as ``write`` does.
        """
        at, total = os.path.realpath(folder), Exported(0, 0, 0)
        for section in self._sections():
            place = f"{at}/{section.pin}"
            before = _package_mark(place)
            if before is None and os.path.lexists(place):
                note(f"{place} is not of an export and is left as it is")
            elif before != section.content:
                with _says_full(place), new_folder(place, is_export) as new:
                    os.mkdir(f"{new}/files")
                    writing = self._writing(f"{new}/files", f"{place}/files")
                    done = writing.run([section], False, _nobody)
                    _write_mark(new, {"content": section.content, "pin": str(section.pin)})
                total = Exported(*map(sum, zip(total, done, strict=True)))
            _link_spelling(at, section)
            on_done(str(section.pin))
        self._links.prune()
        return total

    def _sections(self) -> list[Section]:
        return [self.index.section(number) for number in range(len(self.index.builds))]

    def _writing(self, new: str, before: str) -> _Writing:
        return _Writing(self._tree, self._fetcher, self._links, new, before)


def _settings(wanted: Wanted) -> Settings:
    """Return the runtime's settings, but what nobody names is looked for in the current folder."""
    requirements, lock, environ = wanted.requirements, wanted.lock, wanted.environ
    if not (
        requirements or lock or environ.get("CLOUDIMPORT_REQUIREMENTS") or environ.get("CLOUDIMPORT_LOCK")
    ):
        here = os.getcwd()
        paths = [os.path.join(here, name) for name in (LOCK_NAME, REQUIREMENTS_NAME)]
        lock, requirements = (path if os.path.isfile(path) else None for path in paths)
        if not lock and not requirements:
            raise ConfigurationError(
                f"neither {LOCK_NAME} nor {REQUIREMENTS_NAME} is in {here}: name one with --lock or -r"
            )
    return resolve(requirements, wanted.shelf, lock, wanted.cache, environ)


def is_export(folder: str) -> bool:
    """Whether a folder is an earlier export."""
    return os.path.isfile(f"{folder}/{MARKER}")


def _mark(folder: str, index: EnvironmentIndex, stubs_only: bool) -> None:
    said = {"environment": index.digest, "target": index.target, "stubs_only": stubs_only}
    _write_mark(folder, said)


def _write_mark(folder: str, said: Mapping[str, Any]) -> None:
    data = canonical({"format": 1, "kind": "export", **said}) + b"\n"
    write(f"{folder}/{MARKER}", data, 0o444, time.time_ns())


def _package_mark(folder: str) -> str | None:
    """Return the content that an exported package has; None if the folder is no such thing."""
    try:
        with open(f"{folder}/{MARKER}", "rb") as file:
            said = json.loads(file.read(1 << 16))
        return str(said["content"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _link_spelling(folder: str, section: Section) -> None:
    """Link a package's folder to how its own metadata spells the pin, as lists of other tools do.

    OpenLambda looks for what the list says, in lower case and with ``-`` for ``_``.
    """
    infos = [path.partition("/")[0] for path in section.paths if path.endswith(".dist-info/METADATA")]
    for info in infos:
        name, _, version = info.removesuffix(".dist-info").rpartition("-")
        if name:
            link = f"{folder}/{name.lower().replace('_', '-')}=={version.lower()}"
            if not os.path.lexists(link):
                os.symlink(str(section.pin), link)


@contextmanager
def _says_full(at: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ExportError(
            f"{at}: the disk is full ({error.strerror}); it is left as it was: make room and try again"
        ) from error


def _nobody(_: str) -> None:
    return


def is_read_by_checkers(path: str) -> bool:
    """Whether a type checker reads a file (PEP 561), or an editor to know which distributions there are.

    RECORD is left out, since it would list what is not there.
    """
    top, _, rest = path.partition("/")
    if top.endswith(".dist-info"):
        return rest == "METADATA"
    return path.endswith((".py", ".pyi")) or path.rpartition("/")[2] == "py.typed"


class _Writing:
    """One export on its way into a new folder, ``new``, that will take the place of ``before``."""

    def __init__(self, tree: SiteTree, fetcher: Fetcher, links: Links, new: str, before: str) -> None:
        self._tree, self._fetcher, self._links = tree, fetcher, links
        self._new, self._before = new, before
        self._folders = {new}
        self._come: list[tuple[str, Shape]] = []
        self._files = self._shared = self._size = 0

    def run(self, sections: list[Section], stubs_only: bool, on_done: Callable[[str], None]) -> Exported:
        """Link what is there already, then fetch and write the rest."""
        left: list[tuple[Section, list[int]]] = []
        for section in sections:
            section.folder("")  # raises FormatError if a path is a file and a folder
            files = [
                file
                for file, path in enumerate(section.paths)
                if not (stubs_only and not is_read_by_checkers(path))
            ]
            left.append((section, [file for file in files if not self._link(section, file)]))
        self._fetcher.prefetch(ref for section, files in left for ref in self._blocks(section, files))
        for section, files in left:
            for file in sorted(files, key=lambda file: section.extents[file][:2]):
                self._write(section, file)
            on_done(str(section.pin))
        self._date()
        return Exported(self._files, self._shared, self._size)

    def _blocks(self, section: Section, files: list[int]) -> Iterator[BlockRef]:
        """Yield the blocks of files, less those of native files that the site tree has."""
        numbers = {
            number
            for file in files
            if not (section.kinds[file] == "n" and self._is_in_tree(section, file))
            for number in section.extents[file][::3]
        }
        return map(section.block, sorted(numbers))

    def _is_in_tree(self, section: Section, file: int) -> bool:
        try:
            return os.lstat(self._tree.prefix + section.paths[file]).st_mtime_ns == section.stamp(file)
        except OSError:
            return False

    def _link(self, section: Section, file: int) -> bool:
        """Link a file that the earlier export or any other has; returns whether that could be done."""
        path = self._path(section.paths[file])
        if section.kinds[file] == "x":  # names the interpreter that exports it
            return False
        shape = _shape(section, file)
        if not self._is_as_before(section.paths[file], path, shape):
            if not self._links.take(path, shape):
                return False
            self._come.append((section.paths[file], shape))
        self._count(shape.size, shared=True)
        return True

    def _is_as_before(self, relative: str, path: str, shape: Shape) -> bool:
        try:
            return link(f"{self._before}/{relative}", path, shape)
        except OSError:
            return False

    def _write(self, section: Section, file: int) -> None:
        path, shape = self._path(section.paths[file]), _shape(section, file)
        data = self._read(section, file)
        time_ns = shape.time_ns(int(time.time()))
        try:
            write(path, data, shape.mode, time_ns)
        except OSError as error:
            if error.errno not in _FULL or not self._fetcher.free(len(data)):
                raise
            write(path, data, shape.mode, time_ns)
        if section.kinds[file] != "x":
            self._links.share(path, shape)
        self._come.append((section.paths[file], shape))
        self._count(len(data), shared=False)

    def _read(self, section: Section, file: int) -> bytes:
        """Return a file's bytes, checked as the site tree does."""
        data, expected = self._tree.read(section, file), section.digest(file)
        if len(data) != section.sizes[file] or expected not in ("", sha256(data)):
            raise CorruptError(
                f"{section.pin}: {section.paths[file]} has the wrong bytes: publish it again",
                key=section.paths[file],
                package=str(section.pin),
                expected=expected,
                actual=sha256(data),
            )
        return with_interpreter(data, sys.executable) if section.kinds[file] == "x" else data

    def _path(self, relative: str) -> str:
        """Return where a file goes; its folder is there."""
        path = f"{self._new}/{relative}"
        folder = path.rpartition("/")[0]
        if folder not in self._folders:
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        return path

    def _date(self) -> None:
        """Give each file that was not at its place before a time that says so.

        mypy and bytecode go by whole seconds and the size, jedi by what is newer than its cache: the time
        has to be later than that of the file before, and than any look at that.
        """
        second = int(time.time()) + 2
        for relative, shape in self._come:
            try:
                before = int(os.lstat(f"{self._before}/{relative}").st_mtime)
            except OSError:
                before = 0
            time_ns = shape.time_ns(max(second, before + 1))
            os.utime(f"{self._new}/{relative}", ns=(time_ns, time_ns))

    def _count(self, size: int, *, shared: bool) -> None:
        self._files += 1
        self._shared += shared
        self._size += size


def _shape(section: Section, file: int) -> Shape:
    identity = sha256(f"{section.content}/{section.paths[file]}".encode())
    mode = 0o555 if file in section.executable else 0o444
    return Shape(identity, section.sizes[file], mode, section.stamp(file) % 10**9)
