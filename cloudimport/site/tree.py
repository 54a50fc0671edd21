"""The site tree: a folder where an environment's files have their paths, like site-packages.

A file is either absent or whole: it is written beside its place, its digest checked, and
renamed. A modification time made from its identity marks it as ours and unchanged, so that
any process can tell by one ``stat``. Nothing ever stands there as zeros.

Where it cannot be written (a full disk, a read-only cache), files go to a temporary folder of
the same layout. Import budget: ``os``, ``errno``. The functions of ``os`` are taken
at import time, before ``cloudimport.site.patches`` replaces them.
"""

from __future__ import annotations

import _imp
import errno
import os
import sys
from os import lstat as _lstat
from os import open as _open
from os import unlink as _unlink

from cloudimport.errors import CorruptError
from cloudimport.events import Counters
from cloudimport.fetch.engine import Fetcher
from cloudimport.format.index import BlockRef, EnvironmentIndex, Module, Section
from cloudimport.format.records import sha256
from cloudimport.site.ahead import Ahead
from cloudimport.site.files import makedirs, mkdir, place, status_of, touch, with_interpreter
from cloudimport.site.growing import Growing
from cloudimport.site.room import full, is_full, is_same_disk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    _T = TypeVar("_T")

#: ``stat`` of a file that is not there fills it, since C code may open it next. After this many in one
#: build, and below a listed folder of more than _LISTED_FILES entries, it is a scan (botocore asks for 400
#: files to list its services): then the index answers.
_STATS_THAT_FILL = 16
#: Listing a folder fills its data files, unless they are more than this, or more bytes together.
_LISTED_FILES = 64
_LISTED_BYTES = 4 << 20
#: What says that a folder cannot be written, as opposed to a fault in what is written.
_UNWRITABLE = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
)


class SiteTree:
    """Fills the tree of one environment. Thread-safe; several processes may share the folder."""

    def __init__(
        self,
        folder: str,
        index: EnvironmentIndex,
        fetcher: Fetcher,
        counters: Counters,
        temporary: Callable[[], str] = str,
    ) -> None:
        """``temporary`` returns a folder to use where ``folder`` cannot be written, "" if there is none."""
        self.root = folder + "/site"
        self.prefix = self.root + "/"
        self._state = folder + "/state"
        self.index = index
        self._fetcher = fetcher
        self._counters = counters
        self._good: set[str] = set()
        self._listed: set[str] = set()
        #: Those of them that are large: what lies below is scanned, if it is asked for.
        self._scanned: set[str] = set()
        self._active: set[int] = set()
        self._stats_left: dict[int, int] = {}
        self._ahead = Ahead(index, fetcher, self._lacks)
        self._temporary = temporary
        self._growing = Growing(self.prefix, self._state, self._may_grow, self._count, fetcher.free)
        fetcher.growing = self._growing
        #: Files that could not be written in their place, and where they are instead.
        self._elsewhere: dict[str, str] = {}
        #: Whether what is in a file's place and is not that file is replaced by it.
        self.replaces = True
        #: What C code of this process has changed since the last time; and telling it what Python code does.
        self._touched: Callable[[], list[str]] = list
        self._touch: Callable[[str], object] = str

    def attend(self, touched: Callable[[], list[str]], touch: Callable[[str], object]) -> None:
        """Share what this process does to the tree with somebody else, who sees its C code do it."""
        self._touched, self._touch = touched, touch

    def _catch_up(self) -> None:
        for relative in self._touched():
            self._good.add(self.prefix + relative)

    def create(self) -> bool:
        """Make the root and the top-level folders; returns whether it had to. Raises OSError."""
        marker = f"{self._state}/created"
        if os.path.exists(marker):
            return False
        for folder in (self.root, self._state):
            os.makedirs(folder, 0o700, exist_ok=True)
        for name in self.index.folders:
            mkdir(self.prefix + name)
        touch(marker)
        return True

    @property
    def active(self) -> list[int]:
        """The builds of which code was asked for."""
        return list(self._active)

    def native_bytes(self) -> int:
        """Return how many bytes the native files of those builds take together."""
        sections = map(self.index.section, self._active)
        return sum(s.sizes[n] for s in sections for n, kind in enumerate(s.kinds) if kind == "n")

    def forget(self) -> None:
        """In a forked child: drop what belongs to the parent."""
        self._growing.forget()

    def activate(self, build: int) -> None:
        """Prepare for the first import from a build: start its blocks, make its folders, fill eager files.

        Raises a FetchError if an eager file cannot be had; it can be tried again.
        """
        if build in self._active:
            return
        section = self.index.section(build)
        self._ahead.lead(build)
        self._make_folders(section)
        for file in section.eager:
            self._fill_quietly(section, file)
        self._active.add(build)

    def _lacks(self, section: Section, file: int) -> bool:
        """Whether a native file is not there yet; it grows then, if it may."""
        if self._is_whole(section, file):
            return False
        if self._may_grow(section, file):
            self._growing.begin(section, file)
        return True

    def _make_folders(self, section: Section) -> None:
        marker = f"{self._state}/{section.pin.name}"
        if os.path.exists(marker):
            return
        try:
            for folder in section.folders():
                makedirs(self.prefix + folder)
            touch(marker)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise

    def _fill_quietly(self, section: Section, file: int) -> None:
        """Fill an eager file; a tree that cannot be written is no reason to fail an import."""
        try:
            self._fill_in_place(section, file)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise

    def read(self, section: Section, file: int) -> bytes:
        """Return a file's bytes from the blocks, without materialising it. Raises a FetchError."""
        if section.kinds[file] == "n" and (data := self._materialised(section, file)) is not None:
            return data
        pieces = section.pieces(section.extents[file])
        if len(pieces) > 1:
            self._fetcher.prefetch(ref for ref, _, _ in pieces)
        kept = self._fetcher.kept
        return b"".join(
            kept(ref, at, length) or memoryview(self._load(ref))[at : at + length]
            for ref, at, length in pieces
        )

    def _materialised(self, section: Section, file: int) -> bytes | None:
        """Return a native file from where it lies, if it is whole: its blocks are not kept beside it."""
        if not self._is_whole(section, file):
            return None
        try:
            fd = _open(self.prefix + section.paths[file], os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(fd, "rb") as stream:
            data = stream.read()
        return data if sha256(data) == section.digest(file) else None

    def code(self, section: Section, module: Module) -> bytes | memoryview:
        """Return the marshalled code object of a module that has one. Raises a FetchError."""
        if self._ahead.is_cold:
            self._ahead.enter(section, module)
        kept = self._fetcher.kept
        parts = [
            kept(*piece) or self._code_part(section, module, *piece) for piece in section.pieces(module.code)
        ]
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _code_part(self, section: Section, module: Module, ref: BlockRef, at: int, length: int) -> memoryview:
        """Return a part of a block that is not cached."""
        if not self._fetcher.is_near(ref):
            self._ahead.miss(section, module)
        return memoryview(self._load(ref))[at : at + length]

    def _load(self, ref: BlockRef) -> bytes:
        """Return a block; never waits with the interpreter's import lock held.

        importlib holds that one while it asks finders and path hooks, whose files may lie here; a
        fetching thread needs it for its own imports (``ssl``, a codec for host names).
        """
        return self._unlocked(lambda: self._fetcher.load(ref))

    def _arrived(self, ref: BlockRef) -> bytes | None:
        """Wait for a block of a growing file likewise; returns it unless the file has it."""
        return self._unlocked(lambda: self._fetcher.arrive(ref))

    def _unlocked(self, wait: Callable[[], _T]) -> _T:
        if not _imp.lock_held():
            return wait()
        depth = 0
        try:
            while True:
                _imp.release_lock()
                depth += 1
        except RuntimeError:
            pass  # another thread has it, or nobody any more
        try:
            return wait()
        finally:
            for _ in range(depth):
                _imp.acquire_lock()

    def fill(self, section: Section, file: int) -> str:
        """Make a file be there, whole; returns where it is. Raises a FetchError or OSError."""
        path = self.prefix + section.paths[file]
        if path in self._good:
            return path
        try:
            return self._fill_in_place(section, file)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            return self._fill_elsewhere(section, file, error)

    def _fill_in_place(self, section: Section, file: int) -> str:
        path = self.prefix + section.paths[file]
        if path not in self._good:
            if not self._is_whole(section, file) and not self._has_grown(section, file):
                self._write(section, file, path)
            self._good.add(path)
        return path

    def _grow(self, section: Section, file: int) -> list[BlockRef]:
        """Let a native file grow, if it can; returns the blocks that it lacks."""
        if not self._may_grow(section, file):
            return []
        self._growing.begin(section, file)
        return self._growing.lacking(section, file)

    def _has_grown(self, section: Section, file: int) -> bool:
        """Wait for what a growing file lacks; returns whether it is in its place. Raises a FetchError."""
        if section.kinds[file] != "n":
            return False
        lacking = self._growing.lacking(section, file)
        self._fetcher.prefetch(lacking)
        for ref in lacking:
            data = self._arrived(ref)
            if data is not None:
                self._growing.put(section, file, ref, data)
        self._growing.end(section, file)
        return self._is_whole(section, file)

    def _count(self, section: Section, file: int) -> None:
        self._counters.add("files_written")
        self._counters.add("bytes_written", section.sizes[file])

    def _may_grow(self, section: Section, file: int) -> bool:
        """Whether a native file is to be put in its place: not over what a program has put or left there."""
        path = self.prefix + section.paths[file]
        if path in self._good:
            return False
        if self.replaces:
            return True
        try:
            _lstat(path)
        except OSError:
            return True
        return False

    def _fill_elsewhere(self, section: Section, file: int, reason: OSError) -> str:
        """Write a file to its place below the temporary folder. Raises ``reason`` if there is none."""
        path = self.prefix + section.paths[file]
        if path not in self._elsewhere:
            folder = self._temporary()
            if not folder or (is_full(reason) and is_same_disk(folder, path)):
                raise reason
            other = f"{folder}/site/{section.paths[file]}"
            makedirs(other.rpartition("/")[0])
            self._write(section, file, other)
            self._elsewhere[path] = other
        return self._elsewhere[path]

    def extension(self, section: Section, module: Module) -> str:
        """Make an extension module be there as ``fill_native`` does; returns where it is."""
        if self._ahead.is_cold:
            self._ahead.enter(section, module)
        return self.fill_native(section, module.file)

    def fill_native(self, section: Section, file: int) -> str:
        """Make a native file and those that it needs be there; returns where it is. Raises as ``fill``.

        They are found from one another by their places (``$ORIGIN``): if one cannot be written in its
        place, all are written elsewhere.
        """
        needed = [(self.index.section(build), other) for build, other in section.closure(file)]
        files = [*needed, (section, file)]
        absent = [(s, f) for s, f in files if self.prefix + s.paths[f] not in self._good]
        self._fetcher.note(ref for s, f in absent for ref, _, _ in s.pieces(s.extents[f]))
        lacking = []
        for s, f in absent:
            if self._is_whole(s, f):
                self._good.add(self.prefix + s.paths[f])
            else:
                lacking += self._grow(s, f)
        self._fetcher.prefetch(lacking)
        try:
            places = [self._fill_in_place(s, f) for s, f in files]
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
            places = self._fill_all_elsewhere(files, error)
        return places[-1]

    def _fill_all_elsewhere(self, files: list[tuple[Section, int]], reason: OSError) -> list[str]:
        """Write files that find one another by their places elsewhere, all or none of them."""
        before = set(self._elsewhere)
        try:
            return [self._fill_elsewhere(section, file, reason) for section, file in files]
        except OSError:
            for path in self._elsewhere.keys() - before:
                _unlink(self._elsewhere.pop(path))
            raise

    def is_changed(self, section: Section, file: int) -> bool:
        """Whether this process, having got the file, sees another one in its place, or none."""
        return self.prefix + section.paths[file] in self._good and not self._is_whole(section, file)

    def _is_whole(self, section: Section, file: int) -> bool:
        try:
            found = _lstat(self.prefix + section.paths[file])
        except OSError:
            return False
        if not self.replaces:
            return True
        if found.st_mtime_ns != section.stamp(file) or found.st_uid != os.geteuid():
            return False
        return section.kinds[file] == "x" or found.st_size == section.sizes[file]

    def _write(self, section: Section, file: int, path: str) -> None:
        data = self._checked(section, file)
        if section.kinds[file] == "x":
            data = with_interpreter(data, sys.executable)
        mode = 0o755 if file in section.executable else 0o644
        temporaries = self._state if path.startswith(self.prefix) else path.rpartition("/")[0]
        while True:
            try:
                place(temporaries, path, data, mode, section.stamp(file))
                break
            except OSError as error:
                if not is_full(error):
                    raise
                if not self._make_room(len(data)):
                    raise full(error, path, len(data)) from error
        self._count(section, file)
        if section.kinds[file] == "n":
            for ref, _, _ in section.pieces(section.extents[file]):
                if ref.exclusive:  # its bytes are in the tree now, and need not be kept twice
                    self._fetcher.drop(ref)

    def _make_room(self, wanted: int) -> bool:
        """Give up what can be fetched again for a file that is needed now; returns whether that was any."""
        return self._fetcher.free(wanted) or self._growing.give_up()

    def _checked(self, section: Section, file: int) -> bytes:
        """Return a file's bytes; a native file is checked as a whole too, before it runs."""
        data = self.read(section, file)
        expected = section.digest(file)
        if len(data) == section.sizes[file] and expected in ("", sha256(data)):
            return data
        pin, path = str(section.pin), section.paths[file]
        raise CorruptError(
            f"{pin}: {path} has the wrong bytes: expected sha256 {expected}, got {sha256(data)}: "
            "publish it again",
            key=path,
            package=pin,
            expected=expected,
            actual=sha256(data),
        )

    # What Python code asks for by path. ``relative`` is normalised and below the root.

    def ensure(self, relative: str) -> str | None:
        """Make the file or folder at ``relative`` be there; returns where it is, or None if there is none.

        What the environment does not have may be about to be made: its folder is made, if it has that.
        Raises as ``fill``.
        """
        path = self.prefix + relative
        self._catch_up()
        if path in self._good:
            return path
        found = self.index.find_file(relative)
        if found is not None:
            return self.fill_native(*found) if found[0].kinds[found[1]] == "n" else self.fill(*found)
        if relative in self._listed or self.make_folder(relative):
            return path
        self.ensure_parent(relative)
        return None

    def ensure_parent(self, relative: str) -> None:
        """Make the folder of something that is about to be made."""
        parent = relative.rpartition("/")[0]
        if parent not in self._listed:
            self.make_folder(parent)

    def make_folder(self, relative: str) -> bool:
        """Make a folder be there, if it can be; returns whether the environment has it."""
        if not self.has_folder(relative):
            return False
        if self.prefix + relative in self._good:
            return True  # it was removed
        try:
            makedirs(self.prefix + relative)
        except OSError as error:
            if error.errno not in _UNWRITABLE:
                raise
        return True

    def has_folder(self, relative: str) -> bool:
        """Whether the environment has a folder; it has its root."""
        return not relative or bool(self.index.find_folder(relative))

    def keep(self, relative: str) -> None:
        """Leave what this process has put at ``relative``, or removed there, as it is."""
        self._good.add(self.prefix + relative)
        self._touch(relative)

    def stat(self, relative: str) -> os.stat_result | None:
        """Return the status of a file out of the index, if it is pending and being scanned for; else None.

        The first few files of a build that are asked for are left to ``ensure``.
        """
        self._catch_up()
        found = None if self.prefix + relative in self._good else self.index.find_file(relative)
        if found is None or found[0].kinds[found[1]] == "x" or self._is_whole(*found):
            return None
        section, file = found
        left = self._stats_left.get(section.build, _STATS_THAT_FILL)
        if left and not (self._scanned and self._is_scanned(relative)):
            self._stats_left[section.build] = left - 1
            return None
        return status_of(section, file)

    def _is_scanned(self, relative: str) -> bool:
        """Whether a large folder that ``relative`` lies in was listed."""
        while relative:
            relative = relative.rpartition("/")[0]
            if relative in self._scanned:
                return True
        return False

    def ensure_folder(self, relative: str) -> None:
        """Make a folder, its subfolders and (if they are few) its data files be there. Raises as ``fill``.

        C code may open what is listed; metadata is not for it.
        """
        if relative in self._listed:
            return
        for section in self.index.find_folder(relative) if relative else []:
            files, folders = section.folder(relative) or ([], [])
            if len(files) + len(folders) > _LISTED_FILES:
                self._scanned.add(relative)
            for folder in (relative, *(f"{relative}/{name}" for name in folders)):
                self.make_folder(folder)
            data = [
                f for f in (section.index[f"{relative}/{name}"] for name in files) if section.kinds[f] in "dx"
            ]
            if len(data) <= _LISTED_FILES and sum(section.sizes[f] for f in data) <= _LISTED_BYTES:
                for file in data:
                    self._fill_quietly(section, file)
        self._listed.add(relative)

    def ensure_for_program(self, relative: str) -> str | None:
        """Do as ``ensure``, for a program that is no Python of ours, and sees only what is there.

        A folder comes with all that lies below it, an executable with all files of its build. Raises
        as ``fill``.
        """
        path = self.ensure(relative)
        found = self.index.find_file(relative)
        if found is None:
            self.fill_below(relative)
        elif found[1] in found[0].executable and found[0].kinds[found[1]] != "x":
            self._fill_all(found[0], list(range(len(found[0].paths))))
        return path

    def fill_below(self, relative: str) -> None:
        """Make all that lies below a folder be there. Raises as ``fill``."""
        self._catch_up()
        start = relative and relative + "/"
        sections = (
            self.index.find_folder(relative) if relative else map(self.index.section, self.index.visible)
        )
        for section in sections:
            self._fill_all(section, [n for n, path in enumerate(section.paths) if path.startswith(start)])

    def _fill_all(self, section: Section, files: list[int]) -> None:
        wanted = [
            f
            for f in files
            if self.prefix + section.paths[f] not in self._good and not self._is_whole(section, f)
        ]
        pieces = (piece for f in wanted for piece in section.pieces(section.extents[f]))
        self._fetcher.prefetch(ref for ref, _, _ in pieces)
        for file in wanted:
            self.fill(section, file)

    def fill_folder(self, relative: str) -> None:
        """Make all that is directly in a folder be there, for C code that lists it. Raises as ``fill``."""
        self.ensure_folder(relative)
        sections = self.index.find_folder(relative) if relative else []
        start = relative and relative + "/"
        names = [name for section in sections for name in (section.folder(relative) or ([],))[0]]
        for name in names if relative else self.index.files:
            self.ensure(start + name)

    def pending(self, relative: str, present: Callable[[str], bool]) -> list[tuple[str, bool]]:
        """Return (name, is folder) of what a folder has and is not there yet."""
        self._catch_up()
        names: dict[str, bool] = {}
        if not relative:
            names = dict.fromkeys(self.index.folders, True) | dict.fromkeys(self.index.files, False)
        for section in self.index.find_folder(relative) if relative else []:
            files, folders = section.folder(relative) or ([], [])
            names |= dict.fromkeys(folders, True) | dict.fromkeys(files, False)
        start = self.prefix + (relative and relative + "/")
        # What was materialised and is not there was removed by this process.
        return [
            (name, kind)
            for name, kind in names.items()
            if not present(name) and start + name not in self._good
        ]

    def is_there(self, relative: str) -> Callable[[str], bool]:
        """Return a function that says whether a folder's entry lies on the disk."""

        def found(name: str) -> bool:
            try:
                _lstat(f"{self.prefix}{relative}/{name}")
            except OSError:
                return False
            return True

        return found

    def modules_in(self, relative: str) -> list[tuple[str, bool]]:
        """Return (name, is package) for each module of the environment in a folder."""
        builds = self.index.folders.get(relative.partition("/")[0], ()) if relative else self.index.visible
        return [found for build in builds for found in self.index.section(build).modules_in(relative)]
