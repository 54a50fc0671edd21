"""What uv wrote for each target becomes one list."""

from __future__ import annotations

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Target
from shelf_tools.pins import for_target
from shelf_tools.resolve import Found, merge, read_found

OLD = Target.parse("cp310-manylinux_2_28_x86_64")
NEW = Target.parse("cp312-manylinux_2_28_aarch64")
HASHES = tuple("sha256:" + letter * 64 for letter in "ab")
WRITTEN = f"""\
a==1.0 \\
    --hash={HASHES[0]} \\
    --hash={HASHES[1]}
    # via
    #   -r requirements.in
    #   b-c
B.c[x,y]==2.0+cpu
    # via -r requirements.in
"""


def test_what_uv_writes_is_read() -> None:
    """Names, extras, versions as they were written, hashes, and who needs each."""
    assert read_found(WRITTEN) == [
        Found("a", "a==1.0", HASHES, ("-r requirements.in", "b-c")),
        Found("b-c", "B.c[x,y]==2.0+cpu", (), ("-r requirements.in",)),
    ]


@pytest.mark.parametrize("line", ["six @ https://example.invalid/six.whl", "-e file:///x", "./x.whl"])
def test_what_is_no_release_is_an_error(line: str) -> None:
    """A URL, a folder or a file that uv hands on cannot be published, and is named."""
    with pytest.raises(ConfigurationError, match="is no released version"):
        read_found(f"a==1\n{line}\n    # via -r requirements.in\n")


def test_lists_are_merged_by_markers() -> None:
    """What differs carries markers; what a target would get of the merged list is what it had before."""
    lists = {
        OLD: [Found("a", "a==1", HASHES[:1], ("x",)), Found("b", "b==1", (), ()), Found("c", "c==1", (), ())],
        NEW: [Found("a", "a==1", HASHES[1:], ("y",)), Found("b", "b==2", (), ())],
    }
    lines = merge(lists)
    assert [(line.text, line.marker) for line in lines] == [
        ("a==1", ""),
        ("b==1", 'python_version == "3.10"'),
        ("b==2", 'python_version == "3.12"'),
        ("c==1", 'python_version == "3.10"'),
    ]
    assert (lines[0].hashes, lines[0].via) == (HASHES, ("x", "y"))
    written = parse_lines("".join(map(str, lines)).splitlines())
    for target, found in lists.items():
        assert [str(one.pin) for one in for_target(written, target)] == [pin.text for pin in found]


def test_each_pin_that_no_marker_tells_is_an_error() -> None:
    """Two C libraries with other versions, and with a pin of one only, are two lines that say what to do."""
    older = OLD._replace(glibc=(2, 17))
    with pytest.raises(ConfigurationError) as caught:
        merge(
            {
                OLD: [Found("a", "a==2", (), ())],
                older: [Found("a", "a==1", (), ()), Found("b", "b==1", (), ())],
            }
        )
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"a==1 for {older}, a==2 for {OLD}: they differ by their C library only")
    assert first.endswith(f"publish for {older} alone, which serves both, or make two lists")
    assert second.startswith(f"b==1 for {older}, nothing of it for {OLD}: ")
