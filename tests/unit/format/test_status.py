"""``status.json``: what is yanked, and why."""

from __future__ import annotations

import json

import pytest

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.status import REASON, Status, check_reason
from cloudimport.ids import Pin

ONE, TWO = Pin.parse("one==1.0"), Pin.parse("two==2")


def test_what_it_says_of_an_environment() -> None:
    """Of the pins that are asked for, those that are yanked, with their reasons."""
    status = Status.empty()._replace(yanked={ONE: "a hole", Pin.parse("one==2"): "worse"})
    again = Status.decode(status.encode(), "it")
    assert again.among([TWO, ONE]) == {ONE: "a hole"}
    assert again.among([TWO]) == {}


def test_what_a_later_version_adds_is_kept() -> None:
    """Keys that this version does not know outlive a change."""
    data = b'{"format":1,"kind":"status","later":[1],"yanked":{}}'
    changed = Status.decode(data, "it")._replace(yanked={ONE: "x"})
    assert json.loads(changed.encode()) == {
        "format": 1,
        "kind": "status",
        "later": [1],
        "yanked": {"one": {"1": "x"}},
    }


def test_a_newer_format_is_refused() -> None:
    """A status of format 2 is not read, and so is not overwritten."""
    with pytest.raises(FormatError, match="upgrade cloudimport"):
        Status.decode(b'{"format":2,"kind":"status","yanked":{}}', "it")


def test_reasons_of_others_are_harmless() -> None:
    """What steers a terminal, other lines, and more than a line's worth do not come out again."""
    record = {"one": {"1": "a\x1b[2J\nb\u202e" + "c" * 2000}, "two": {"2": "\n"}}
    data = json.dumps({"format": 1, "kind": "status", "yanked": record}).encode()
    found = Status.decode(data, "it").yanked
    assert found[ONE].startswith("a [2J b cc")
    assert len(found[ONE]) == REASON
    assert found[TWO] == "without a reason"


@pytest.mark.parametrize("reason", ["", " \n", "x" * (REASON + 1), "a\x1b[2J"])
def test_a_reason_is_a_line(reason: str) -> None:
    """A curator's reason is a line that everybody can read."""
    with pytest.raises(ConfigurationError, match="one line"):
        check_reason(reason)


def test_a_reason_on_several_lines_becomes_one() -> None:
    """White space is one space."""
    assert check_reason(" a\n hole ") == "a hole"
