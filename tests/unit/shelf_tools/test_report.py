"""Imports within imports, and the time that is a module's own."""

from __future__ import annotations

from shelf_tools.report import Import, nested, own_times


def test_nested() -> None:
    """An import is within another of its thread that began no later and ended no earlier."""
    rows = [
        Import("a.b", "", 10, 40, 0),
        Import("a", "", 0, 100, 0),
        Import("other", "", 5, 50, 1),
        Import("a.c", "", 40, 60, 0),
        Import("a.c.d", "", 45, 55, 0),
        Import("last", "", 100, 110, 0),
    ]
    found = [(row.name, row.depth) for row in nested(rows)]
    assert found == [("a", 0), ("a.b", 1), ("a.c", 1), ("a.c.d", 2), ("last", 0), ("other", 0)]


def test_own_times() -> None:
    """What a module imports is not its own time; they add up to the whole."""
    rows = [Import("a", "", 0, 100, 0), Import("b", "", 10, 40, 0), Import("c", "", 20, 30, 0)]
    found = {row.name: own for own, row in own_times(list(nested(rows)))}
    assert found == {"a": 70, "b": 20, "c": 10}
