"""From wanted blocks to ranged reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudimport.fetch.plan import Range, plan
from cloudimport.format.index import BlockRef


def ref(key: str, offset: int, length: int) -> BlockRef:
    """Return a block at a place."""
    return BlockRef(f"{key}{offset}+{length}", key, offset, length, length, 0, False)


_BLOCKS = st.lists(
    st.builds(ref, st.sampled_from("ab"), st.integers(0, 500), st.integers(1, 60)), max_size=25
)


@given(blocks=_BLOCKS, limit=st.integers(1, 200), gap=st.integers(0, 50))
def test_properties(blocks: list[BlockRef], limit: int, gap: int) -> None:
    """Every block comes once, inside its range; ranges stay in bounds; what is wanted first comes first."""
    ranges = plan(blocks, limit, gap)
    flat = [block for one in ranges for block in one.blocks]
    assert sorted(flat) == sorted(set(blocks))
    for one in ranges:
        assert {block.key for block in one.blocks} == {one.key}
        assert one.start == min(block.offset for block in one.blocks)
        assert one.start + one.length == max(block.offset + block.length for block in one.blocks)
        assert one.length <= max(limit, *(block.length for block in one.blocks))
        assert _read_along(one) <= gap * (len(one.blocks) - 1)
    firsts = [min(blocks.index(block) for block in one.blocks) for one in ranges]
    assert firsts == sorted(firsts)
    assert ranges == plan(blocks + blocks, limit, gap)


def _read_along(one: Range) -> int:
    """Return how many bytes of a range belong to none of its blocks."""
    covered = {at for block in one.blocks for at in range(block.offset, block.offset + block.length)}
    return one.length - len(covered)


def test_neighbours_are_one_read() -> None:
    """Blocks that lie together are read together; another pack and a wide gap begin another read."""
    blocks = [ref("a", 0, 10), ref("a", 10, 10), ref("a", 25, 5), ref("a", 1000, 5), ref("b", 30, 5)]
    assert [(r.key, r.start, r.length) for r in plan(blocks, 100, 5)] == [
        ("a", 0, 30),
        ("a", 1000, 5),
        ("b", 30, 5),
    ]
