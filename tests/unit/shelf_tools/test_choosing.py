"""Versions that go together, of what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, Target
from shelf_tools.choosing import choose

TARGET = Target.parse("cp312-manylinux_2_28_x86_64")


class Needs(NamedTuple):
    """What a version needs."""

    requires: tuple[str, ...]


class Offered:
    """A shelf out of a dict: pin to lines of Requires-Dist."""

    url = "shelf"

    def __init__(self, pins: Mapping[str, Sequence[str]]) -> None:
        self._pins = {Pin.parse(pin): tuple(lines) for pin, lines in pins.items()}

    def matching(self, name: str, ranges: SpecifierSet, target: Target) -> list[str]:
        """Return versions, newest first."""
        found = [Version(pin.version) for pin in self._pins if pin.name == name]
        return [Pin.of(name, str(v)).version for v in sorted(ranges.filter(found), reverse=True)]

    def metadata(self, pin: Pin, target: Target) -> Needs:
        """Return what a version needs."""
        return Needs(self._pins[pin])


def chosen(pins: Mapping[str, Sequence[str]], *lines: str) -> list[str]:
    """Return what is chosen."""
    return [str(pin) for pin in choose(lines, Offered(pins), TARGET)]


def test_the_newest_that_goes_together() -> None:
    """An older one, if what else is needed does not take the newest."""
    pins = {"a==1": [], "a==2": ["b>=2"], "b==1": [], "b==2": [], "c==1": ["b<2"]}
    assert chosen(pins, "a") == ["a==2", "b==2"]
    assert chosen(pins, "a", "c") == ["a==1", "b==1", "c==1"]


def test_markers_and_extras() -> None:
    """For the target, and those that are asked for, through others, too."""
    pins = {
        "a==1": ["w; sys_platform == 'win32'", "old; python_version < '3.12'", "b[x]", "t; extra == 'test'"],
        "b==1": ["X2>=1; extra == 'x'", "y; extra == 'y'", "b[y]; extra == 'all'"],
        "x2==1": [],
        "y==1": [],
        "t==1": [],
    }
    assert chosen(pins, "a") == ["a==1", "b==1", "x2==1"]
    assert chosen(pins, "a[test]") == ["a==1", "b==1", "t==1", "x2==1"]
    assert chosen(pins, "b[all]") == ["b==1", "y==1"]


def test_circles_and_lines_that_cannot_be_read() -> None:
    """Packages may need one another; nonsense in METADATA asks for nothing."""
    pins = {"a==1": ["b"], "b==1": ["a", "???", "c; nonsense == 1", "d" + "(" * 3000]}
    assert chosen(pins, "a") == ["a==1", "b==1"]


def test_a_contradiction_names_who_needs_what() -> None:
    """And what there is."""
    pins = {"a==1": ["base<2"], "b==1": ["base>=2"], "base==1": [], "base==2": []}
    with pytest.raises(ConfigurationError) as caught:
        chosen(pins, "a", "b")
    text = str(caught.value)
    assert "a==1 needs base<2" in text
    assert "b==1 needs base>=2" in text
    assert "of base there is 2, 1" in text


def test_what_is_needed_and_not_there_is_named() -> None:
    """A dependency that nobody published."""
    with pytest.raises(ConfigurationError, match=r"(?s)a==1 needs gone>=1.*of gone there is nothing"):
        chosen({"a==1": ["gone>=1"]}, "a")
