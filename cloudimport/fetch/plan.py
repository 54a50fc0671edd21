"""What to ask for: wanted blocks to ranged reads. Pure. Import budget: nothing of its own."""

from __future__ import annotations

from cloudimport.format.index import BlockRef

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

#: Stored bytes of one ranged GET, at the most: 2 to 4 MiB fill 8 connections best (docs/decisions/0006).
RANGE_BYTES = 4 << 20
#: A gap between wanted blocks up to this many bytes is read along rather than split off.
GAP_BYTES = 128 << 10


class Range(NamedTuple):
    """One ranged read of a pack and the blocks that it brings, in their order in the pack."""

    key: str
    start: int
    length: int
    blocks: tuple[BlockRef, ...]


def plan(
    blocks: Iterable[BlockRef], range_bytes: int = RANGE_BYTES, gap_bytes: int = GAP_BYTES
) -> list[Range]:
    """Return the ranged reads for ``blocks``, those of the first wanted blocks first.

    Every block comes once; a range never exceeds ``range_bytes`` unless a single block does.
    """
    order: dict[BlockRef, int] = {}
    for block in blocks:
        order.setdefault(block, len(order))
    ranges: list[list[BlockRef]] = []
    for block in sorted(order, key=lambda b: (b.key, b.offset)):
        if ranges and _fits(ranges[-1], block, range_bytes, gap_bytes):
            ranges[-1].append(block)
        else:
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
    start = run[0].offset
    end = max(block.offset + block.length for block in run)
    return Range(run[0].key, start, end - start, tuple(run))
