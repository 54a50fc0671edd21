"""Native files that are written while their blocks arrive, by whoever brings them.

A shared library is mostly blocks that hold nothing else. To keep these until all are there, and write the
file then, would write them twice. Here each goes to its place in a file under a temporary name, in the
thread that has fetched it; the digest of the whole is taken as far as the file is whole from its beginning,
and the last one to come renames it. A file that cannot grow (a full disk, a read-only tree) is written in one
piece by the site tree, as any other.

The functions of ``os`` are taken at import time, before ``cloudimport.site.patches`` replaces them.
Import budget: ``os``.
"""

from __future__ import annotations

import os
from _thread import RLock
from os import link as _link
from os import open as _open
from os import rename as _rename
from os import unlink as _unlink
from os import utime as _utime

from cloudimport.format.index import BlockRef, Section
from cloudimport.site.files import makedirs
from cloudimport.site.room import is_full

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

#: Files that grow at a time, at the most: each has a descriptor, and a program has 1,024 by default.
_MOST = 128
#: Bytes that are read back at a time to be checked.
_PIECE = 256 << 10


class _File:
    """One file under its temporary name."""

    def __init__(self, section: Section, file: int, temporary: str, make_room: Callable[[int], bool]) -> None:
        """Make the file, as large as it will be. Raises OSError."""
        self._make_room = make_room
        self.section, self.file, self.temporary = section, file, temporary
        self.is_closed = self.is_placed = False
        try:  # without a name, it goes with the process, however that ends
            self.fd = _open(temporary.rpartition("/")[0], os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            self.is_named = False
        except OSError:  # a file system that has no such files
            self.fd = _open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self.is_named = True
        try:
            os.ftruncate(self.fd, section.sizes[file])
            #: Where the pieces of each block go: (place in the file, place in the block, length).
            self.places: dict[BlockRef, list[tuple[int, int, int]]] = {}
            #: The same in the file's order, and how many of them are in the digest.
            self._pieces: list[tuple[BlockRef, int, int]] = []
            self._digested = 0
            self._digest: Any = None
            at = 0
            for ref, offset, length in section.pieces(section.extents[file]):
                self.places.setdefault(ref, []).append((at, offset, length))
                self._pieces.append((ref, at, length))
                at += length
        except BaseException:
            self.discard()
            raise
        self.missing = set(self.places)
        self.lock = RLock()

    def put(self, ref: BlockRef, pieces: Iterable[bytes | memoryview]) -> None:
        """Write what a block, of which the pieces come in their order, has of the file. Raises OSError.

        What making the pieces raises goes through.
        """
        if self._digest is None:
            import hashlib  # costs 2 ms: not before anything has come

            self._digest = hashlib.sha256()
        # Where all before it is there, what is written need not be read back to be digested.
        is_next = self._pieces[self._digested][0] == ref and len(self.places[ref]) == 1
        digest = self._digest.copy() if is_next else None
        begin = 0
        for piece in pieces:
            view, end = memoryview(piece), begin + len(piece)
            for at, offset, length in self.places[ref]:
                first, last = max(begin, offset), min(end, offset + length)
                if first < last:
                    part = view[first - begin : last - begin]
                    self._write(part, at + first - offset)
                    if digest is not None:
                        digest.update(part)
            begin = end
        self.missing.discard(ref)
        if digest is not None:
            self._digest, self._digested = digest, self._digested + 1
        self._catch_up()

    def _write(self, view: memoryview, at: int) -> None:
        while view:
            try:
                written = os.pwrite(self.fd, view, at)
            except OSError as error:
                if not is_full(error) or not self._make_room(len(view)):
                    raise
            else:
                view, at = view[written:], at + written

    def _catch_up(self) -> None:
        """Take into the digest what has become whole from its beginning."""
        while self._digested < len(self._pieces):
            ref, start, length = self._pieces[self._digested]
            if ref in self.missing:
                break
            for at in range(start, start + length, _PIECE):
                self._digest.update(os.pread(self.fd, min(_PIECE, start + length - at), at))
            self._digested += 1

    def finish(self, path: str) -> None:
        """Put the file, of which all is there, in its place if it is what it should be. Raises OSError."""
        section, file = self.section, self.file
        if self._digest is None or self._digest.hexdigest() != section.digest(file):
            return
        os.fchmod(self.fd, 0o755 if file in section.executable else 0o644)
        if not self.is_named:
            # A descriptor, which an absolute path does not need, makes this linkat(2), which follows links.
            _link(f"/proc/self/fd/{self.fd}", self.temporary, src_dir_fd=self.fd, follow_symlinks=True)
            self.is_named = True
        stamp = section.stamp(file)
        _utime(self.temporary, ns=(stamp, stamp))
        try:
            _rename(self.temporary, path)
        except FileNotFoundError:
            makedirs(path.rpartition("/")[0])
            _rename(self.temporary, path)
        self.is_placed = True

    def discard(self) -> None:
        """Leave nothing of it under its temporary name."""
        self.is_closed = True
        os.close(self.fd)
        if self.is_named and not self.is_placed:
            try:
                _unlink(self.temporary)
            except OSError:
                pass


class Growing:
    """The files of one tree that grow. Thread-safe; what fails here is left to the tree."""

    def __init__(
        self,
        prefix: str,
        temporaries: str,
        may_place: Callable[[Section, int], bool],
        on_placed: Callable[[Section, int], None],
        make_room: Callable[[int], bool],
    ) -> None:
        """Files go below ``prefix``, by way of the folder ``temporaries``, if ``may_place`` still says so.

        ``on_placed`` hears of each, in whatever thread; ``make_room`` frees so many bytes of a full disk, and
        says whether it did.
        """
        self._make_room = make_room
        self._prefix, self._temporaries = prefix, temporaries
        self._may_place, self._on_placed = may_place, on_placed
        self._files: dict[tuple[int, int], _File] = {}
        self._by_block: dict[BlockRef, _File] = {}
        #: What has grown: whoever looked just before that does not begin it again.
        self._placed: set[tuple[int, int]] = set()
        self._lock = RLock()

    def begin(self, section: Section, file: int) -> None:
        """Let a native file grow, whose blocks are about to be fetched; harmless if it does, or has grown."""
        key = (section.build, file)
        with self._lock:
            if key in self._files or key in self._placed or len(self._files) >= _MOST:
                return
            try:
                made = _File(section, file, f"{self._temporaries}/{os.urandom(8).hex()}.tmp", self._make_room)
            except OSError:
                return
            self._files[key] = made
            self._by_block.update((ref, made) for ref in made.places if ref.exclusive)

    def take(self, ref: BlockRef, pieces: Iterable[bytes | memoryview]) -> bool:
        """Write a block, given in pieces, to the file that grows of it.

        Returns whether it need not be kept besides; what making the pieces raises goes through.
        """
        found = self._by_block.get(ref)
        return found is not None and not found.is_closed and self._put(found, ref, pieces)

    def has(self, ref: BlockRef) -> bool:
        """Whether a growing file has got a block, or one that has grown."""
        found = self._by_block.get(ref)
        return found is not None and (found.is_placed or (ref not in found.missing and not found.is_closed))

    def lacking(self, section: Section, file: int) -> list[BlockRef]:
        """Return the blocks that a growing file still lacks, in order; none if it does not grow."""
        found = self._files.get((section.build, file))
        return [ref for ref in found.places if ref in found.missing] if found is not None else []

    def put(self, section: Section, file: int, ref: BlockRef, data: bytes) -> None:
        """Write a block that only the file's reader has got."""
        found = self._files.get((section.build, file))
        if found is not None:
            self._put(found, ref, (data,))

    def end(self, section: Section, file: int) -> None:
        """Wait for whoever is about to finish a file, and give it up if nobody is."""
        found = self._files.get((section.build, file))
        if found is not None:
            with found.lock:
                self._drop(found)

    def give_up(self) -> bool:
        """Give up the files that nobody is writing to just now; returns whether there were any."""
        freed = False
        for found in list(self._files.values()):
            if found.lock.acquire(blocking=False):  # two that wait for one another's would wait for ever
                try:
                    self._drop(found)
                finally:
                    found.lock.release()
                freed = True
        return freed

    def forget(self) -> None:
        """In a forked child: the files are the parent's."""
        files, self._files, self._by_block = self._files, {}, {}
        for found in files.values():
            os.close(found.fd)
        self._lock = RLock()

    def _put(self, found: _File, ref: BlockRef, pieces: Iterable[bytes | memoryview]) -> bool:
        with found.lock:
            if found.is_closed:
                return found.is_placed
            try:
                found.put(ref, pieces)
                if found.missing:
                    return True
                if self._may_place(found.section, found.file):
                    found.finish(self._prefix + found.section.paths[found.file])
            except OSError:
                pass
            self._drop(found)
        if found.is_placed:
            self._on_placed(found.section, found.file)
        return found.is_placed

    def _drop(self, found: _File) -> None:
        key = (found.section.build, found.file)
        with self._lock:
            self._files.pop(key, None)
            if found.is_placed:
                self._placed.add(key)
        if not found.is_closed:
            found.discard()
