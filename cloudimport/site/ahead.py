"""What is fetched before it is asked for: leads, what a module imports, what lies after it in its pack.

All of it is a guess: right, it saves a round trip; wrong, some bytes. Import budget: ``itertools``.
"""

from __future__ import annotations

from itertools import chain

from cloudimport.fetch.engine import Fetcher
from cloudimport.format.index import BlockRef, EnvironmentIndex, Module, Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Stored bytes of code that are read ahead at a build's first miss, and at the most.
_READ_AHEAD, _READ_AHEAD_MOST = 1 << 20, 16 << 20


class Ahead:
    """Asks for blocks that somebody is about to need."""

    def __init__(
        self, index: EnvironmentIndex, fetcher: Fetcher, lacks: Callable[[Section, int], bool]
    ) -> None:
        """``lacks`` says whether a native file is not there yet, and has it grow from what will come."""
        self._index, self._fetcher, self._lacks = index, fetcher, lacks
        #: Whether code was asked for that nothing had brought: from then on what modules import is looked up.
        self.is_cold = False
        self._followed: set[tuple[int, int]] = set()
        #: How many stored bytes are read ahead at the next miss, by build.
        self._ahead: dict[int, int] = {}

    def lead(self, build: int) -> None:
        """Ask for what importing ``build`` needs."""
        self._fetcher.prefetch(self._wanted(self._index.prefetch(build)))

    def enter(self, section: Section, module: Module) -> None:
        """In a cold process: ask for what a module that is about to run will import."""
        if module.code and not self._fetcher.is_near(section.block(module.code[-3])):
            self.miss(section, module)
        else:
            self.follow(section, module)

    def miss(self, section: Section, module: Module) -> None:
        """Ask for a module whose code nothing has brought, for what it imports, and what lies after it."""
        self.is_cold = True
        wanted = self._wanted(self._reachable(section, module))
        self._fetcher.prefetch(chain(wanted, self._neighbours(section, module.code[-3])))

    def follow(self, section: Section, module: Module) -> None:
        """Ask for a module and for what it was seen to import, directly or not."""
        if (section.build, section.modules[module.stem]) not in self._followed:
            self._fetcher.prefetch(self._wanted(self._reachable(section, module)))

    def _neighbours(self, section: Section, number: int) -> Iterator[BlockRef]:
        """Yield a block of code and those after it.

        Imports go on in its neighbourhood more often than not: each time that this happens in a build, twice
        as much is read ahead, as file systems do. Fewer waits within imports also leave less time for
        threads to wait for each other's modules, which importlib gives up.
        """
        room = self._ahead.get(section.build, _READ_AHEAD)
        self._ahead[section.build] = min(2 * room, _READ_AHEAD_MOST)
        yield section.block(number)
        for ref in section.code_from(number):
            room -= ref.length
            if room < 0:
                return
            yield ref

    def _reachable(self, section: Section, module: Module) -> Iterator[tuple[Section, int]]:
        """Yield (section, block number) of a module and what it imports, in that order, each module once."""
        waiting = [(section.build, section.modules[module.stem])]
        blocks: set[tuple[int, int]] = set()
        while waiting:
            place = waiting.pop()
            if place in self._followed or place[0] not in self._index.visible:
                continue
            self._followed.add(place)
            other = self._index.section(place[0])
            found = other.module_at(place[1])
            if found is None:
                continue
            for number in (found.code or other.extents[found.file])[::3]:
                if (place[0], number) not in blocks:
                    blocks.add((place[0], number))
                    yield other, number
            waiting += reversed(other.imports(place[1]))

    def _wanted(self, blocks: Iterator[tuple[Section, int]]) -> Iterator[BlockRef]:
        """Yield blocks, less those of native files that are there."""
        lacking: dict[tuple[int, int], bool] = {}
        for section, number in blocks:
            file = section.native_of(number)
            if file is not None:
                key = (section.build, file)
                if key not in lacking:
                    lacking[key] = self._lacks(section, file)
                if not lacking[key]:
                    continue
            yield section.block(number)
