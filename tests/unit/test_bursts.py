"""Holding garbage collection back: who is in the midst of an import, and what is left of it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from cloudimport.importer.bursts import Bursts


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    """Put the collector's thresholds back."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def _elsewhere(call: object) -> None:
    thread = threading.Thread(target=call)  # type: ignore[arg-type]
    thread.start()
    thread.join()


def test_the_last_import_to_end_lets_go() -> None:
    """Imports of several threads hold collection back together."""
    bursts = Bursts()
    bursts.begin()
    _elsewhere(bursts.begin)
    held = gc.get_threshold()
    assert held[0] > 700
    bursts.end()
    assert gc.get_threshold() == held


def test_a_forked_child_has_only_its_own_thread() -> None:
    """What another thread was in the midst of never ends in a forked child: nothing is held back there."""
    bursts = Bursts()
    _elsewhere(bursts.begin)
    assert gc.get_threshold()[0] > 700
    bursts.forget()
    assert gc.get_threshold() == (700, 10, 10)
    bursts.begin()
    bursts.forget()
    assert gc.get_threshold()[0] > 700
    bursts.end()
    assert gc.get_threshold() == (700, 10, 10)


def test_an_import_within_the_end_of_one() -> None:
    """A finaliser that imports while collection is let go holds nothing up, and nothing back for good."""
    bursts = Bursts()

    class Late:
        def __del__(self) -> None:
            bursts.begin()
            bursts.end()

    bursts.begin()
    late = Late()
    late.me = late  # type: ignore[attr-defined]
    del late
    bursts.end()
    gc.collect()
    assert gc.get_threshold() == (700, 10, 10)
