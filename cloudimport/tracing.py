"""What a process needed, written down when it ends: ``shelf boot`` makes a boot image of it.

Set ``CLOUDIMPORT_TRACE`` to a file; with an empty cache the record is complete (``shelf trace`` sees to
that). Import budget: nothing of its own; ``atexit`` when it is wanted.
"""

from __future__ import annotations

import os

from cloudimport.format import jsontext
from cloudimport.format.records import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from cloudimport.fetch.engine import Fetcher
    from cloudimport.site.tree import SiteTree


def record(path: str, tree: SiteTree, fetcher: Fetcher) -> None:
    """Have what this process needs from now on written to ``path`` when it ends."""
    import atexit

    fetcher.used = {}
    owner = os.getpid()

    def write() -> None:
        if os.getpid() == owner and fetcher.used is not None:
            _write(path, tree, fetcher.used)

    atexit.register(write)


def _write(path: str, tree: SiteTree, used: dict[str, None]) -> None:
    """Write the record; a file that cannot be written is no reason to end in an error."""
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
    }
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(jsontext.dumps(found) + "\n")
    except OSError as error:
        import sys

        sys.stderr.write(f"cloudimport: CLOUDIMPORT_TRACE={path}: {error.strerror}\n")


def _of_files(tree: SiteTree) -> Iterator[str]:
    """Yield digests of the blocks of all files that are there."""
    there = tree.is_there(".")
    for section in map(tree.index.section, tree.index.visible):
        for file in (number for number, path in enumerate(section.paths) if there(path)):
            for ref, _, _ in section.pieces(section.extents[file]):
                yield ref.digest
