"""The model of many starts: known cases, and what its document says of them."""

from __future__ import annotations

import pytest

from tests.bench import scale
from tests.bench.scale import Start, simulate


def start(requests: int, round_trips: int = 2, size: int = 0) -> Start:
    """Return a start that asks for the index, and for blocks of one package."""
    rows = (("envs", 0), *(("packages/a", size) for _ in range(requests)))
    return Start("a", round_trips == 1, round_trips, 0.5, rows)


def test_one_start() -> None:
    """Alone it takes its round trips, its bytes on its link, and its CPU time."""
    [end] = simulate(start(4, 3, 15_000_000), 1, link=150e6)
    assert end == pytest.approx(3 * scale.LATENCY + 4 * 0.1 + 0.5)
    [end] = simulate(start(4, 1, 15_000_000), 1, link=150e6)
    assert end == pytest.approx(scale.LATENCY + 4 * 0.1 + 0.5)


def test_a_burst_is_served_at_the_rate_of_the_prefix() -> None:
    """Ten requests of ten thousand sandboxes cannot take less than what one prefix serves in that time."""
    ends = simulate(start(10), 10_000)
    assert None not in ends
    assert max(filter(None, ends)) >= 10 * 10_000 / scale.RATE - scale.SAVED


def test_who_gives_up_early_fails() -> None:
    """With few attempts a part of a burst fails; spread out, none does."""
    assert None in simulate(start(10), 10_000, attempts=5)
    assert None not in simulate(start(10), 10_000, attempts=5, arrival=100)


def test_the_document_is_of_what_was_measured() -> None:
    """docs/scale.md is what the model makes of starts.json."""
    assert scale.DOCUMENT.read_text() == scale.render(scale.read_starts())
