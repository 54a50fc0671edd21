"""What a process needed and when it came, written down when it ends.

``shelf boot`` makes a boot image of it, ``shelf report`` a picture. Set ``CLOUDIMPORT_TRACE`` to a file; with
an empty cache the record is complete (``shelf trace`` sees to that). While it is made, loaders have a frame
more in tracebacks. Import budget: nothing of its own; ``atexit`` when it is wanted.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import get_ident
from importlib.machinery import ExtensionFileLoader, SourceFileLoader, SourcelessFileLoader

from cloudimport.format import jsontext
from cloudimport.format.records import FORMAT
from cloudimport.importer.loader import ShelfExtensionLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from cloudimport.format.index import BlockRef
    from cloudimport.site.tree import SiteTree

#: What runs a module, or maps its file: the time from begin to end is that of the module and its imports.
_TIMED: tuple[tuple[type, str], ...] = (
    (SourceFileLoader, "exec_module"),
    (SourcelessFileLoader, "exec_module"),
    (ShelfExtensionLoader, "create_module"),
    (ExtensionFileLoader, "create_module"),
    (ExtensionFileLoader, "exec_module"),
)


class Recorder:
    """Hears what a process reads, waits for and imports, from its ``install()`` on. Thread-safe."""

    def __init__(self, path: str) -> None:
        """``path`` is the file that gets the record."""
        self._path = path
        self._owner = os.getpid()
        self._began = time.monotonic()
        self._cpu = time.process_time()
        self._installed = 0.0
        #: Digests of the blocks that were needed, in order.
        self._used: dict[str, None] = {}
        self._requests: list[list[Any]] = []
        #: The last request of each thread: blocks that it accepts came with that.
        self._last: dict[int, int] = {}
        self._blocks: list[tuple[str, int, float]] = []
        self._waits: list[tuple[str, float, float, int]] = []
        self._imports: list[tuple[str, str, float, float, int]] = []
        self._threads: dict[int, int] = {get_ident(): 0}
        self._restore: list[Callable[[], None]] = []

    # What the source and the fetcher tell.

    def requested(self, key: str, start: int, began: float) -> Callable[[int, float], None]:
        """Hear of a read that begins; what is returned hears how it ends: bytes (-1: it failed), and when."""
        row = [key, start, -1, self._since(began), -1]
        self._requests.append(row)
        self._last[get_ident()] = id(row)

        def end(size: int, moment: float) -> None:
            row[2], row[4] = size, self._since(moment)

        return end

    def needed(self, ref: BlockRef) -> None:
        """Hear that somebody wants a block's bytes."""
        self._used.setdefault(ref.digest)

    def accepted(self, ref: BlockRef) -> None:
        """Hear that a block was fetched and checked."""
        self._blocks.append((ref.digest, self._last.get(get_ident(), 0), time.monotonic()))

    def waited(self, ref: BlockRef, began: float) -> None:
        """Hear that a thread has waited for a block from ``began`` (seconds, monotonic) until now."""
        self._waits.append((ref.digest, began, time.monotonic(), self._thread()))

    # The record.

    def start(self, tree: SiteTree, stats: Callable[[], Mapping[str, float]]) -> None:
        """Watch imports from now on, and write the record when the process ends."""
        import atexit

        self._installed = time.monotonic()
        self._restore += [self._time(kind, name) for kind, name in _TIMED]

        def write() -> None:
            if os.getpid() == self._owner:
                self.stop()
                self._write(tree, stats())

        atexit.register(write)

    def stop(self) -> None:
        """Watch imports no longer."""
        for restore in self._restore:
            restore()
        self._restore.clear()

    def _time(self, kind: Any, name: str) -> Callable[[], None]:
        """Put a method that tells the time in a loader's place; returns what takes it out again."""
        original = getattr(kind, name)
        is_own = name in vars(kind)

        def timed(loader: Any, what: Any) -> Any:
            if type(loader) is not kind and name in vars(type(loader)):
                return original(loader, what)  # its own method calls this one, and is timed
            began = time.monotonic()
            try:
                return original(loader, what)
            finally:
                module = what.name if name == "create_module" else what.__name__
                section = getattr(loader, "_section", None)  # of ours
                package = section.pin.name if section is not None else ""
                self._imports.append((module, package, began, time.monotonic(), self._thread()))

        def restore() -> None:
            if is_own:
                setattr(kind, name, original)
            else:
                delattr(kind, name)

        setattr(kind, name, timed)
        return restore

    def _thread(self) -> int:
        return self._threads.setdefault(get_ident(), len(self._threads))

    def _since(self, moment: float) -> int:
        """Return microseconds since the beginning."""
        return round((moment - self._began) * 1_000_000)

    def _write(self, tree: SiteTree, stats: Mapping[str, float]) -> None:
        """Write the record; a file that cannot be written is no reason to end in an error."""
        ended = time.monotonic()
        used = dict(self._used)
        for digest in _of_files(tree):  # what C code and child processes have read came by other ways
            used.setdefault(digest)
        numbers = {
            section.block(number).digest: [section.pin.name, section.pin.version, number]
            for section in map(tree.index.section, tree.index.visible)
            for number in range(section.block_count)
        }
        found = {
            "format": FORMAT,
            "kind": "trace",
            "index": tree.index.digest,
            "target": tree.index.target,
            "blocks": [numbers[digest] for digest in used if digest in numbers],
            "run": self._run(tree, numbers, used, ended),
            "stats": {name: round(value, 6) for name, value in stats.items()},
        }
        try:
            with open(self._path, "w", encoding="utf-8") as file:
                file.write(jsontext.dumps(found) + "\n")
        except OSError as error:
            sys.stderr.write(f"cloudimport: CLOUDIMPORT_TRACE={self._path}: {error.strerror}\n")

    def _run(
        self, tree: SiteTree, numbers: Mapping[str, list[Any]], used: Mapping[str, None], ended: float
    ) -> dict[str, Any]:
        """Return the times, in microseconds since ``install()`` began, and bytes by package."""
        since, places = self._since, {id(row): at for at, row in enumerate(self._requests)}
        names = {digest: f"{row[0]} {row[2]}" for digest, row in numbers.items()}
        return {
            "python": sys.version.partition(" ")[0],
            "program": os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "",
            "installed": since(self._installed),
            "ended": since(ended),
            "cpu": round((time.process_time() - self._cpu) * 1_000_000),
            # One that is under way still counts as failed at the end.
            "requests": [[*row[:4], row[4] if row[4] >= 0 else since(ended)] for row in self._requests],
            "blocks": [
                [names.get(digest, ""), places.get(request, -1), since(moment)]
                for digest, request, moment in self._blocks
            ],
            "waits": [[names.get(digest, ""), since(a), since(b), t] for digest, a, b, t in self._waits],
            "imports": [[name, pin, since(a), since(b), t] for name, pin, a, b, t in self._imports],
            "packages": list(_packages(tree, {digest for digest, _, _ in self._blocks}, used)),
        }


def _packages(tree: SiteTree, fetched: set[str], used: Mapping[str, None]) -> Iterator[list[Any]]:
    """Yield [name, version, installed, fetched, unused] in bytes, for what was fetched of."""
    for section in map(tree.index.section, tree.index.visible):
        came = [ref for ref in map(section.block, range(section.block_count)) if ref.digest in fetched]
        if came:
            unused = sum(ref.length for ref in came if ref.digest not in used)
            name, version = section.pin
            yield [name, version, sum(section.sizes), sum(ref.length for ref in came), unused]


def _of_files(tree: SiteTree) -> Iterator[str]:
    """Yield digests of the blocks of all files that are there."""
    there = tree.is_there(".")
    for section in map(tree.index.section, tree.index.visible):
        for file in (number for number, path in enumerate(section.paths) if there(path)):
            for ref, _, _ in section.pieces(section.extents[file]):
                yield ref.digest
