"""The memory tier: bounded in bytes, least recently used first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudimport.cache.hot import HotBlocks


def test_the_least_recently_used_go_first() -> None:
    """A block that was asked for stays, the one that nobody asked for goes."""
    hot = HotBlocks(30)
    for name in "abc":
        hot.put(name, name.encode() * 10)
    assert hot.get("a") == b"a" * 10
    hot.put("d", b"d" * 10)
    assert [name in hot for name in "abcd"] == [True, False, True, True]


def test_a_block_larger_than_the_bound_is_not_kept() -> None:
    """One large block does not push everything out."""
    hot = HotBlocks(30)
    hot.put("a", b"a" * 10)
    hot.put("b", b"b" * 31)
    assert "a" in hot
    assert "b" not in hot


@given(
    bound=st.integers(0, 100),
    steps=st.lists(st.tuples(st.sampled_from("pgd"), st.sampled_from("abcdef"), st.integers(0, 60))),
)
def test_never_more_than_the_bound(bound: int, steps: list[tuple[str, str, int]]) -> None:
    """Whatever is put, asked for and dropped, the bytes kept are counted right and within the bound."""
    hot, sizes = HotBlocks(bound), {}
    for what, name, size in steps:
        if what == "p":
            sizes.setdefault(name, size)
            hot.put(name, bytes(sizes[name]))
        elif what == "d":
            hot.drop(name)
        elif (data := hot.get(name)) is not None:
            assert len(data) == sizes[name]
        kept = sum(sizes[name] for name in sizes if name in hot)
        assert kept == hot._bytes <= bound
