"""The runtime's own ``NamedTuple`` does what that of ``typing`` does, in all that the runtime uses."""

from __future__ import annotations

import copy
import pickle
import typing
from typing import Any

import pytest

from cloudimport import tuples


class Theirs(typing.NamedTuple):
    """A class as the runtime writes them."""

    one: int
    two: str
    three: tuple[int, ...] = ()
    four: bool = False

    @property
    def both(self) -> str:
        """A property of it."""
        return f"{self.one}{self.two}"


class Ours(tuples.NamedTuple):
    """The same."""

    one: int
    two: str
    three: tuple[int, ...] = ()
    four: bool = False
    both = Theirs.both


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1, "a"), {}),
    ((1, "a", (2,)), {}),
    ((1, "a", (2,), True), {}),
    ((1,), {"two": "b", "four": True}),
    ((), {"two": "b", "one": 1}),
    ((), {}),
    ((1,), {}),
    ((1, "a", (), True, 5), {}),
    ((1, "a"), {"one": 1}),
    ((1, "a"), {"five": 1}),
]


@pytest.mark.parametrize(("values", "named"), CALLS)
def test_same_as_typing(values: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Fields, defaults, equality, hashes, text and errors."""
    theirs: Any = Theirs
    ours: Any = Ours
    try:
        expected = theirs(*values, **named)
    except TypeError:
        with pytest.raises(TypeError, match="Ours has the fields one, two, three, four"):
            ours(*values, **named)
        return
    found = ours(*values, **named)
    assert found == expected
    assert hash(found) == hash(expected)
    assert repr(found) == repr(expected).replace("Theirs", "Ours")
    assert found._asdict() == expected._asdict()
    assert found._fields == expected._fields
    assert (found.one, found.both, found.four) == (expected.one, expected.both, expected.four)
    assert found._replace(two="z") == expected._replace(two="z")
    assert isinstance(found._replace(two="z"), Ours)
    assert copy.copy(found) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert not hasattr(found, "__dict__") or vars(found) == {}


def test_fields_are_fixed() -> None:
    """A class with fields cannot be given more, and its items cannot be set."""
    with pytest.raises(TypeError, match="more fields"):
        type("More", (Ours,), {"__annotations__": {"five": int}})
    with pytest.raises(AttributeError):
        Ours(1, "a").one = 2  # type: ignore[misc]
