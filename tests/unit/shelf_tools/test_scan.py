"""What an installed tree holds."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cloudimport.errors import FormatError
from cloudimport.format.content import Content, Native
from cloudimport.ids import Pin, Target
from shelf_tools.scan import kind_of, scan
from tests.unit.shelf_tools.test_elf import AARCH64, NEEDED, RUNPATH, elf

TARGET = Target.parse("cp312-manylinux_2_28_x86_64")
PIN = Pin("foo-bar", "1")
METADATA = """\
Metadata-Version: 2.1
Name: Foo.Bar
Version: 1.0
Requires-Dist: b (>=1)
Requires-Dist: c ;
  extra == 'x'
Requires-Python: >=3.8
Provides-Extra: x

Requires-Dist: not-a-field
"""
TREE: dict[str, bytes | str] = {
    "foo/__init__.py": "x = 1\n",
    "foo/__pycache__/__init__.cpython-312.pyc": b"?",
    "foo/_c.abi3.so": elf([(NEEDED, "libz.so"), (RUNPATH, "$ORIGIN")]),
    "foo/data/a b.bin": b"\0",
    "foo/empty.txt": "",
    "foo/old.pyc": b"\xcb\r\r\n",
    "foo.libs/é.txt": "é",
    "bin/foo": "#!python\nimport foo\n",
    "Foo_Bar-1.0.dist-info/METADATA": METADATA,
    "Foo_Bar-1.0.dist-info/licenses/x.py": "",
}


def _tree(root: Path, files: dict[str, bytes | str]) -> Path:
    for path, data in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def _notes(root: Path, files: dict[str, bytes | str]) -> list[str]:
    notes: list[str] = []
    scan(_tree(root, {"foo_bar-1.dist-info/METADATA": METADATA, **files}), PIN, TARGET, notes.append)
    return notes


def test_a_tree_becomes_a_content(tmp_path: Path) -> None:
    """Files with kinds, sizes and digests in the order of their bytes, metadata and native links."""
    content = scan(_tree(tmp_path, TREE), PIN, TARGET)
    assert [(file.path, file.kind) for file in content.files] == [
        ("Foo_Bar-1.0.dist-info/METADATA", "metadata"),
        ("Foo_Bar-1.0.dist-info/licenses/x.py", "metadata"),
        ("bin/foo", "script"),
        ("foo.libs/é.txt", "data"),
        ("foo/__init__.py", "source"),
        ("foo/_c.abi3.so", "native"),
        ("foo/data/a b.bin", "data"),
        ("foo/empty.txt", "data"),
        ("foo/old.pyc", "bytecode"),
    ]
    init = content.files[4]
    assert (init.size, init.digest) == (6, hashlib.sha256(b"x = 1\n").hexdigest())
    assert content.requires == ("b (>=1)", "c ; extra == 'x'")
    assert (content.requires_python, content.extras) == (">=3.8", ("x",))
    assert content.native == {"foo/_c.abi3.so": Native(("libz.so",), "", ("$ORIGIN",))}
    assert Content.decode(content.encode()) == content


def test_two_scans_of_equal_trees_are_equal(tmp_path: Path) -> None:
    """Neither the order of creation nor times nor the folder's name show in a content."""
    first = scan(_tree(tmp_path / "one", TREE), PIN, TARGET)
    second = _tree(tmp_path / "two", dict(reversed(TREE.items())))
    os.utime(second / "bin/foo", (1, 1))
    assert scan(second, PIN, TARGET).encode() == first.encode()


def test_execute_bits_and_scripts_are_executable(tmp_path: Path) -> None:
    """Any execute bit counts, and a script is executable whatever its mode."""
    root = _tree(tmp_path, TREE)
    (root / "foo/empty.txt").chmod(0o654)
    (root / "bin/foo").chmod(0o644)
    content = scan(root, PIN, TARGET)
    assert [file.path for file in content.files if file.executable] == ["bin/foo", "foo/empty.txt"]


@pytest.mark.parametrize(
    ("path", "head", "kind"),
    [
        ("a.dist-info/x.py", b"", "metadata"),
        ("a/b.dist-info/METADATA", b"", "data"),
        ("a.py", b"\x7fELF", "native"),
        ("bin/x.py", b"#!python\n", "script"),
        ("bin/x", b"#!/bin/sh\n", "data"),
        ("bin/a/x", b"#!python\n", "data"),
        ("a/bin/x.py", b"#!python\n", "source"),
        ("a.pyi", b"", "data"),
        ("a.so", b"INPUT(x)", "data"),
    ],
)
def test_the_kind_is_the_first_that_fits(path: str, head: bytes, kind: str) -> None:
    """Kinds are decided in the order of docs/format.md, section 5."""
    assert kind_of(path, head) == kind


def test_what_a_curator_should_know_is_noted(tmp_path: Path) -> None:
    """Names equal but for case, and files for other machines and C libraries are told."""
    files: dict[str, bytes | str] = {
        "foo/a.py": "",
        "foo/A.py": "",
        "foo/arm.so": elf([], AARCH64),
        "foo/musl.so": elf([(NEEDED, "libc.musl-x86_64.so.1")]),
        "foo/cut.so": b"\x7fELF\x02\x01",
    }
    said = "\n".join(_notes(tmp_path, files))
    assert "foo/a.py: differs from foo/A.py only by case" in said
    assert "foo/arm.so: is made for aarch64, not for x86_64" in said
    assert "foo/musl.so: is linked against musl" in said
    assert "foo/cut.so: the ELF file is damaged" in said


def test_a_damaged_native_file_stays_native_without_an_entry(tmp_path: Path) -> None:
    """Damage takes the links away, not the file."""
    content = scan(_tree(tmp_path, {"x.so": b"\x7fELF junk"}), PIN, TARGET)
    assert content.files[0].kind == "native"
    assert content.native == {}


def test_missing_metadata_is_noted(tmp_path: Path) -> None:
    """A tree without METADATA of its own has unknown dependencies; another's is not taken."""
    notes: list[str] = []
    tree = _tree(tmp_path, {"other-1.dist-info/METADATA": METADATA})
    assert scan(tree, PIN, TARGET, notes.append).requires == ()
    assert notes == ["foo-bar==1 has no METADATA: its dependencies are not known"]


def test_broken_metadata_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 and lines that are no fields do not stop a scan."""
    broken = b"Requires-Dist: b\nSummary: \xff\xfe\nRequires-Dist: \xe9\nnonsense\nRequires-Dist: c\n"
    content = scan(_tree(tmp_path, {"foo_bar-1.dist-info/METADATA": broken}), PIN, TARGET)
    assert content.requires[0] == "b"
    content.encode()


@pytest.mark.parametrize("make", ["link", "folder link", "dangling link", "fifo"])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: str) -> None:
    """Links and special files are neither followed nor left out in silence."""
    path = tmp_path / "x"
    if make == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to({"link": "/etc/passwd", "folder link": "/etc", "dangling link": "gone"}[make])
    with pytest.raises(FormatError, match="only regular files"):
        scan(tmp_path, PIN, TARGET)


@pytest.mark.parametrize("name", [b"a\nb", b"a\\b", b"\xff"])
def test_a_forbidden_name_is_refused(tmp_path: Path, name: bytes) -> None:
    """A name that a content cannot hold stops the scan with the format's own error."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    with pytest.raises(FormatError, match="not allowed"):
        scan(tmp_path, PIN, TARGET)


def test_metadata_is_found_where_the_name_is_spelt_with_a_hyphen(tmp_path: Path) -> None:
    """A dist-info folder whose name has the hyphen of the project gives the dependencies too."""
    notes: list[str] = []
    content = scan(_tree(tmp_path, {"foo-bar-1.0.dist-info/METADATA": METADATA}), PIN, TARGET, notes.append)
    assert (len(content.requires), notes) == (2, [])
