"""What to ask for: wanted blocks to ranged reads. Pure. Import budget: nothing of its own."""

from __future__ import annotations

from cloudimport.format.index import BlockRef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

#: Stored bytes of one ranged GET, of the first and at the most (docs/decisions/0006).
_FIRST_BYTES, RANGE_BYTES = 1 << 20, 4 << 20
#: Connections at a time: each takes 4 to 5 MB of memory while it reads; S3 gives one some 80 MB/s.
CONNECTIONS = 4
#: A gap between wanted blocks up to this many bytes is read along rather than split off.
GAP_BYTES = 128 << 10


class Range(NamedTuple):
    """One ranged read of a pack and the blocks that it brings, in their order in the pack."""

    key: str
    start: int
    length: int
    blocks: tuple[BlockRef, ...]


def range_size(before: int) -> int:
    """Return how many stored bytes a read asks for, at the most, after others of ``before`` bytes.

    Reads that travel together share the link: the first ones, which are waited for first, are small, so that
    they are there while the rest is on its way; those after them grow, so that there are not many.
    """
    return min(RANGE_BYTES, _FIRST_BYTES + before // 4)


def leads(wanted: int) -> bool:
    """Whether the first block of a pack is read by itself when ``wanted`` stored bytes of it are.

    A package begins with it: its import can go on while the rest comes.
    """
    return wanted > 2 * _FIRST_BYTES


def plan(
    blocks: Iterable[BlockRef], range_bytes: int | None = None, gap_bytes: int = GAP_BYTES
) -> list[Range]:
    """Return the ranged reads for ``blocks``, those of the first wanted blocks first.

    Every block comes once; a range never exceeds ``range_bytes`` (default: what ``range_size`` says)
    unless a single block does.
    """
    order: dict[BlockRef, int] = {}
    packs: dict[str, list[BlockRef]] = {}
    for block in blocks:
        if block not in order:
            order[block] = len(order)
            packs.setdefault(block.key, []).append(block)
    alone = set()
    if range_bytes is None:
        alone = {own[0] for own in packs.values() if leads(sum(block.length for block in own))}
    rank = {key: number for number, key in enumerate(packs)}
    ranges: list[list[BlockRef]] = []
    before = 0
    for block in sorted(order, key=lambda b: (rank[b.key], b.offset)):
        limit = range_size(before) if range_bytes is None else range_bytes
        apart = block in alone or (ranges and ranges[-1][0] in alone)
        if ranges and not apart and _fits(ranges[-1], block, limit, gap_bytes):
            ranges[-1].append(block)
        else:
            before += _length(ranges[-1]) if ranges else 0
            ranges.append([block])
    ranges.sort(key=lambda run: min(order[block] for block in run))
    return [_range(run) for run in ranges]


def _fits(run: list[BlockRef], block: BlockRef, range_bytes: int, gap_bytes: int) -> bool:
    last = run[-1]
    gap = block.offset - (last.offset + last.length)
    return (
        last.key == block.key
        and gap <= gap_bytes
        and block.offset + block.length - run[0].offset <= range_bytes
    )


def _range(run: list[BlockRef]) -> Range:
    return Range(run[0].key, run[0].offset, _length(run), tuple(run))


def _length(run: list[BlockRef]) -> int:
    return max(block.offset + block.length for block in run) - run[0].offset
