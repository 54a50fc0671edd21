"""Markers that tell targets apart, and PEP 751's extras and groups decided."""

from __future__ import annotations

import itertools

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from shelf_tools.markers import AlikeError, decided, exactly, telling
from shelf_tools.pins import holds

NAMES = (
    "cp310-manylinux_2_28_x86_64",
    "cp310-manylinux_2_28_aarch64",
    "cp312-manylinux_2_28_x86_64",
    "cp312-manylinux_2_34_aarch64",
)
TARGETS = tuple(map(Target.parse, NAMES))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_marker_holds_for_just_the_targets_that_it_tells(count: int) -> None:
    """Whatever targets are told from the others, the marker holds for these and no others."""
    for some in itertools.combinations(TARGETS, count):
        for marker in (telling(some, TARGETS), exactly(some)):
            assert [target for target in TARGETS if holds(marker, target)] == list(some), marker


def test_a_marker_is_no_longer_than_needed() -> None:
    """What all have needs none; Python's version is asked for first, then the machine, then both."""
    old, arm, _, new_arm = TARGETS
    assert telling(TARGETS, TARGETS) == ""
    assert telling([old, arm], TARGETS) == 'python_version == "3.10"'
    assert telling([arm, new_arm], TARGETS) == 'platform_machine == "aarch64"'
    assert telling([old], TARGETS) == 'python_version == "3.10" and platform_machine == "x86_64"'
    assert " or " in telling([old, new_arm], TARGETS)


def test_targets_that_differ_by_their_c_library_are_alike() -> None:
    """No marker says which C library there is: that is an error that names both."""
    older = Target.parse("cp310-manylinux_2_17_x86_64")
    with pytest.raises(AlikeError) as caught:
        telling([TARGETS[0]], (*TARGETS, older))
    assert (caught.value.one, caught.value.other) == (TARGETS[0], older)


@pytest.mark.parametrize(
    ("marker", "found"),
    [
        ("", ""),
        ("python_version < '3.11'", "python_version < '3.11'"),
        ("'dev' in dependency_groups", ""),
        ("'docs' in dependency_groups", None),
        ("'docs' not in dependency_groups", ""),
        ("'web' in extras or 'docs' in dependency_groups", ""),
        ("'web' in extras and python_version < '3.11'", "python_version < '3.11'"),
        ("python_version < '3.11' and 'nope' in extras", None),
        ("python_version < '3.11' or 'nope' in extras", "python_version < '3.11'"),
        (
            "('web' in extras or os_name == 'nt') and (python_version < '3.11' or sys_platform == 'linux')",
            "(python_version < '3.11' or sys_platform == 'linux')",
        ),
        (
            "'nope' in extras or os_name == 'nt' and 'dev' in dependency_groups and 'x' not in os_name",
            "os_name == 'nt' and 'x' not in os_name",
        ),
    ],
)
def test_extras_and_groups_are_decided(marker: str, found: str | None) -> None:
    """What a lock says of extras and groups goes out of the marker; the rest keeps its meaning."""
    assert decided(marker, {"web"}, {"dev"}) == found


@pytest.mark.parametrize("marker", ["extras == 'web'", "extras in 'web'", "os_name in extras"])
def test_another_use_of_the_lists_is_an_error(marker: str) -> None:
    """A list is asked for a name only (PEP 751)."""
    with pytest.raises(ConfigurationError, match="PEP 751"):
        decided(marker, (), ())
