"""A boot image: the blocks that a handler needs, read while the index that says what they are is on its way.

The lockfile says where its parts lie, so that they are asked for together with the index: one round trip.
What it brings are the packs' own blocks, checked by their digests; what it does not bring, or no longer, is
read from the packs. Import budget: nothing of its own.
"""

from __future__ import annotations

from cloudimport.errors import FormatError
from cloudimport.fetch.engine import Fetcher
from cloudimport.format.index import BlockRef, EnvironmentIndex
from cloudimport.format.lock import BootRange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Boot:
    """The reads of one boot image, under way."""

    def __init__(self, fetcher: Fetcher, ranges: Sequence[BootRange], target: str) -> None:
        """Start reading. Raises nothing: whoever needs a block hears what is wrong."""
        self._fetcher = fetcher
        self._reads = [(row, fetcher.begin(row.key(target), row.start, row.length)) for row in ranges]

    def arrived(self, index: EnvironmentIndex | None) -> None:
        """Say what the index makes of the reads; None: there is no index."""
        for row, read in self._reads:
            self._fetcher.known(read, _places(index, row) if index is not None else {})


def _places(index: EnvironmentIndex, row: BootRange) -> dict[BlockRef, int]:
    """Return a range's blocks, and where each begins in it; none if it is of another layout."""
    found: dict[BlockRef, int] = {}
    at = 0
    try:
        [build] = [n for n, build in enumerate(index.builds) if build.pin == (row.name, row.version)]
        section = index.section(build)
        for number in row.blocks():
            ref = section.block(number)
            found[ref] = at
            at += ref.length
    except (ValueError, FormatError):
        return {}
    return found if at == row.length else {}
