"""Whether a list of pins is complete, from the metadata of what was installed."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from shelf_tools.check import Report, check, explain, missing

TARGET = Target.parse("cp312-manylinux_2_28_x86_64")


class _Metadata(NamedTuple):
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    extras: tuple[str, ...] = ()


def _check(lines: list[str], **contents: _Metadata) -> Report:
    """Check ``lines`` with the metadata of some names, each at the version that the list pins."""
    requirements = parse_lines(lines)
    pins = {one.pin.name: one.pin for one in requirements}
    return check({pins[name]: value for name, value in contents.items()}, requirements, TARGET)


def test_a_missing_dependency_is_named_with_who_needs_it() -> None:
    """The line for a person is the one that the documentation promises."""
    found = _check(["requests==2.32.3"], requests=_Metadata(("urllib3<3,>=1.26",)))
    assert (
        explain(found.missing) == "urllib3 (>=1.26,<3) is needed by requests==2.32.3 and is not in the list"
    )


def test_a_pin_that_does_not_fit_is_named_with_its_version() -> None:
    """A dependency that is there in the wrong version says which one the list has."""
    found = _check(["requests==2.32.3", "urllib3==1.2"], requests=_Metadata(("urllib3>=1.26,<3",)))
    assert explain(found.missing).endswith("requests==2.32.3; the list pins urllib3==1.2, which does not fit")


def test_markers_hold_for_the_target() -> None:
    """Dependencies of other platforms and interpreters are not missing."""
    requires = (
        "colorama; sys_platform == 'win32'",
        "tomli; python_version < '3.11'",
        "x; os_name == 'posix'",
    )
    assert [one.requirement for one in _check(["a==1"], a=_Metadata(requires)).missing] == ["x"]


def test_extras_of_the_list_count() -> None:
    """An extra that a requirement line asks for brings its dependencies, others do not."""
    metadata = _Metadata(("y; extra == 'Some_Thing'", "z; extra == 'other'"), extras=("Some_Thing", "other"))
    found = _check(["a[some.thing]==1"], a=metadata)
    assert explain(found.missing) == "y is needed by a[some-thing]==1 and is not in the list"
    assert found.notes == []


def test_extras_asked_by_packages_count_transitively() -> None:
    """a needs b[x], whose x needs c[y], whose y needs d: d is missing."""
    found = _check(
        ["a==1", "b==1", "c==1"],
        a=_Metadata(("b[x]",)),
        b=_Metadata(("c[y]; extra == 'x'",), extras=("x",)),
        c=_Metadata(("d; extra == 'y'",), extras=("y",)),
    )
    assert [(one.requirement, one.needed_by) for one in found.missing] == [("d", "c[y]==1")]


def test_an_extra_that_names_its_own_package_is_followed() -> None:
    """``all = [a[x]]`` leads to the dependencies of x, and ends."""
    metadata = _Metadata(
        ("a[x]; extra == 'all'", "a[all]; extra == 'x'", "b; extra == 'x'"), extras=("all", "x")
    )
    assert [one.requirement for one in _check(["a[all]==1"], a=metadata).missing] == ["b"]


def test_a_pinned_prerelease_and_a_local_version_fit() -> None:
    """Whoever pins a pre-release wants it; a local version fits its public range."""
    metadata = _Metadata(("b>=1.0", "c==1.2", "d>=3.0.dev0"))
    assert _check(["a==1", "b==2.0rc1", "c==1.2+cpu", "d==3.0.dev5"], a=metadata).missing == []


def test_an_unknown_extra_is_noted() -> None:
    """An extra that a package does not have is no error, as for pip, but is said."""
    assert _check(["a[nope]==1"], a=_Metadata()).notes == ["a==1 has no extra 'nope'"]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (">=3.8", True),
        (">=3.13", False),
        ("<3.12", False),
        (">=3.12.3", True),
        ("<=3.12.0", True),
        (">3,<4", True),
    ],
)
def test_requires_python_is_checked(wanted: str, fits: bool) -> None:
    """A package for other interpreters is reported; any patch release of the target's may fit."""
    found = _check(["a==1"], a=_Metadata(requires_python=wanted))
    expected = "" if fits else f"a==1 needs Python {wanted}, the target has 3.12"
    assert explain(found.missing) == expected


@pytest.mark.parametrize(
    "line", ["b (>=1.0.*)", "b>=", "", "=1", "b; nonsense == 'x'", "b; python_version", "b[", "b >=2018d"]
)
def test_malformed_dependencies_of_old_packages_are_noted(line: str) -> None:
    """What cannot be read is noted, and the rest is checked."""
    found = _check(["a==1"], a=_Metadata((line, "c")))
    assert [one.requirement for one in found.missing] == ["c"]
    assert len(found.notes) == 1
    assert "a==1" in found.notes[0]


def test_malformed_requires_python_is_noted() -> None:
    """A Requires-Python that cannot be read does not stop anything."""
    found = _check(["a==1"], a=_Metadata(requires_python=">=3.6.*, <4"))
    assert found.missing == []
    assert "Requires-Python" in found.notes[0]


def test_a_dependency_by_address_is_met_by_its_name() -> None:
    """``b @ URL`` in metadata is met by any pin of b, under any spelling of the name."""
    found = _check(["a==1", "b-c==5"], a=_Metadata(("B_C @ https://example.invalid/b.whl",)))
    assert found.missing == []


def test_a_pin_without_content_counts_as_there() -> None:
    """A build that is not installed yet has unknown dependencies and is not missing."""
    requirements = parse_lines(["a==1", "b==1"])
    assert missing({Pin("a", "1"): _Metadata(("b",))}, requirements, TARGET) == []


def test_each_lack_is_told_once() -> None:
    """Two ways to one lack are one line."""
    metadata = _Metadata(("z", "z", "y; extra == 'x'"), extras=("x",))
    found = _check(["a[x]==1"], a=metadata).missing
    assert [(one.requirement, one.needed_by) for one in found] == [("z", "a==1"), ("y", "a[x]==1")]


@pytest.mark.parametrize(
    "line",
    [
        "x; " + "(" * 5000 + "python_version > '3'" + ")" * 5000,
        "b>=" + "1" * 5000,
        "x; python_version > '" + "1" * 5000 + "'",
    ],
)
def test_dependency_that_breaks_the_parser_is_left_unchecked(line: str) -> None:
    """Parentheses and digits without end in hostile metadata are a note, not a crash."""
    found = _check(["a==1", "b==1"], a=_Metadata((line,)))
    assert found.missing == []
    assert len(found.notes) == 1
    assert len(found.notes[0]) < 700


def test_requires_python_that_breaks_the_parser_is_a_note() -> None:
    """A version with too many digits is a note, not a crash."""
    assert "cannot be read" in _check(["a==1"], a=_Metadata(requires_python=">=" + "1" * 5000)).notes[0]


def test_who_needs_whom() -> None:
    """Each pin needs those of the list that its metadata names, on the target and with the extras wanted."""
    found = _check(
        ["a[x]==1", "b==2", "c==3"],
        a=_Metadata(("b", "a[y]; extra == 'x'", "c; extra == 'z'"), extras=("x", "y", "z")),
        b=_Metadata(("c; sys_platform == 'win32'", "a")),
    )
    a, b = Pin.parse("a==1"), Pin.parse("b==2")
    assert found.needs == {a: {b: ("b",)}, b: {a: ("a",)}}
