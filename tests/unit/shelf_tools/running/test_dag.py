"""Steps that take one another's results."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from cloudimport.errors import CloudImportError
from shelf_tools.running.dag import run_steps


def test_steps_run_at_once_as_far_as_they_can() -> None:
    """Two wait for each other; what needs them has their results."""
    both = threading.Barrier(2, timeout=30)

    def step(name: str, results: Mapping[str, Any]) -> Any:
        if name in "bc":
            both.wait()
        return name + "".join(results[one] for one in needs[name])

    needs = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": []}
    outcome = run_steps(needs, step, lambda: None, 4)
    assert outcome.results["d"] == "dbaca"


def test_an_error_stops_what_needs_it_alone() -> None:
    """Through others, too."""

    def step(name: str, results: Mapping[str, Any]) -> Any:
        if name == "bad":
            raise CloudImportError("no")
        return name

    needs: dict[str, list[str]] = {
        "bad": [],
        "next": ["bad"],
        "last": ["next", "good"],
        "good": [],
        "more": ["good"],
    }
    outcome = run_steps(needs, step, lambda: None, 1)
    assert sorted(outcome.results) == ["good", "more"]
    assert list(outcome.errors) == ["bad"]
    assert outcome.skipped == {"next": "bad", "last": "next"}


def test_an_interrupt_stops_what_runs() -> None:
    """And what has not begun is not begun."""
    stopped, begun = threading.Event(), []

    def step(name: str, results: Mapping[str, Any]) -> Any:
        begun.append(name)
        if name == "interrupts":
            raise KeyboardInterrupt
        assert stopped.wait(30)

    with pytest.raises(KeyboardInterrupt):
        run_steps({"waits": [], "interrupts": [], "queued": []}, step, stopped.set, 2)
    assert begun == ["waits", "interrupts"]
