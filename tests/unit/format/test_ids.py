"""``cloudimport.ids`` against ``packaging``: the runtime has no ``packaging``, and must agree with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.utils import InvalidName, canonicalize_name, canonicalize_version
from packaging.version import InvalidVersion, Version

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, normalise_name, normalise_version

_NUMBER = st.integers(0, 10**6).map(str) | st.sampled_from(["0", "00", "01", "007"])
_SEPARATOR = st.sampled_from(["", "-", "_", "."])
_CASE = st.sampled_from([str.lower, str.upper, str.title])


@st.composite
def _versions(draw: st.DrawFn) -> str:
    """Versions in every spelling that PEP 440 knows."""

    def part(*tags: str) -> str:
        if not draw(st.booleans()):
            return ""
        tag = draw(_CASE)(draw(st.sampled_from(tags)))
        return draw(_SEPARATOR) + tag + draw(_SEPARATOR) + draw(_NUMBER | st.just(""))

    text = draw(st.sampled_from(["", "v", "V"])) + draw(st.sampled_from(["", "0!", "1!", "02!"]))
    text += ".".join(draw(st.lists(_NUMBER, min_size=1, max_size=5)))
    text += part("a", "alpha", "b", "beta", "c", "rc", "pre", "preview")
    text += part("post", "rev", "r") or draw(st.sampled_from(["", "", "-1", "-0"]))
    text += part("dev")
    text += draw(st.sampled_from(["", "+cpu", "+CU12.1", "+a-b_c", "+001.x", "+2_0"]))
    return draw(st.sampled_from(["", " "])) + text + draw(st.sampled_from(["", "\n", " "]))


def _packaging(version: str) -> str | None:
    try:
        return canonicalize_version(Version(version))
    except InvalidVersion:
        return None


def _ours(version: str) -> str | None:
    try:
        return normalise_version(version)
    except ConfigurationError:
        return None


@given(_versions())
def test_a_version_is_normalised_as_packaging_does(version: str) -> None:
    """Every spelling of a version gets packaging's canonical form."""
    assert _ours(version) == _packaging(version)


@given(st.text("0123456789.!+-_abcdeoprtuvlh \n", max_size=16))
def test_what_is_no_version_for_packaging_is_none_here(text: str) -> None:
    """The two agree on which texts are versions at all."""
    assert _ours(text) == _packaging(text)


@given(_versions())
def test_normalising_a_version_twice_changes_nothing(version: str) -> None:
    """The canonical form is its own canonical form."""
    once = _ours(version)
    assert once is None or normalise_version(once) == once


@given(st.text("aBz09-_. ", max_size=12))
def test_a_name_is_normalised_as_packaging_does(name: str) -> None:
    """Names agree with packaging, valid and invalid ones."""
    try:
        expected = str(canonicalize_name(name, validate=True))
    except InvalidName:
        with pytest.raises(ConfigurationError):
            normalise_name(name)
    else:
        assert normalise_name(name) == expected


@pytest.mark.parametrize(
    "text", ["1.0\u017f", "1.0po\u017ft1", "\uff11.0", "1.0+\u212a", "1" * 5000, "", "1.0.*"]
)
def test_odd_letters_and_sizes_are_not_versions(text: str) -> None:
    """Letters that only look like ASCII, wildcards and endless numbers are refused with our own error."""
    with pytest.raises(ConfigurationError):
        normalise_version(text)


def test_a_pin_is_parsed_from_what_people_write() -> None:
    """Name and version are normalised, white space around them is ignored."""
    assert Pin.parse("Foo.Bar == 1.0.0") == Pin("foo-bar", "1")
