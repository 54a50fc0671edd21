"""Traces of one target told for another."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.ids import Pin, Target
from shelf_tools.borrow import Donor, Names, best, borrow, stem
from shelf_tools.indexing import Built
from shelf_tools.order import Item, arrange
from shelf_tools.scan import scan
from tests.support.shelves import Files, MadeShelf, metadata, write_tree

X86 = Target.parse("cp312-manylinux_2_28_x86_64")
ARM = X86._replace(machine="aarch64")
PIN = Pin("demo", "1")
ELF = b"\x7fELF"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/x.cpython-312-x86_64-linux-gnu.so", "a/x.cpython-312-aarch64-linux-gnu.so"),
        ("a/x.cpython-312-x86_64-linux-gnu.so", "a/x.cpython-311-x86_64-linux-gnu.so"),
        ("a/x.abi3.so", "a/x.cpython-312-aarch64-linux-gnu.so"),
        ("a/x.so", "a/x.abi3.so"),
        (
            "numpy.libs/libgfortran-040039e1-0352e75f.so.5.0.0",
            "numpy.libs/libgfortran-105e6576-0a1b2c3d.so.5.0.0",
        ),
        ("a.libs/libgomp-a34b3233.so.1", "a.libs/libgomp-24e2ab19.so.1"),
        ("a/bin/tool-x86_64", "a/bin/tool-aarch64"),
        ("a/lib/linux-amd64/z.so", "a/lib/linux-arm64/z.so"),
        ("a/_core.cp312.bin", "a/_core.cp313.bin"),
        ("a/lib/python3.12/z.py", "a/lib/python3.11/z.py"),
    ],
)
def test_names_of_one_file(one: str, other: str) -> None:
    """Tags, machines and the digests in library names are not what a file is called."""
    assert stem(one) == stem(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/x.py", "a/y.py"),
        ("a/x.so", "b/x.so"),
        ("a.libs/libz-a34b3233.so.1", "a.libs/libz-a34b3233.so.2"),
        ("a/data-0123abcd.bin", "a/data-0123abce.bin"),
        ("a/x.so", "a/x.py"),
    ],
)
def test_names_of_two_files(one: str, other: str) -> None:
    """What is more than that tells files apart."""
    assert stem(one) != stem(other)


def test_a_name_is_found_if_one_file_is_meant() -> None:
    """The same path wins; a name that two files could be is none's."""
    names = Names(["a/x.abi3.so", "a/y.so", "a/y.abi3.so", "a/z.py"])
    assert names.find("a/x.cpython-312-x86_64-linux-gnu.so") == "a/x.abi3.so"
    assert names.find("a/y.so") == "a/y.so"
    assert names.find("a/y.cpython-312-x86_64-linux-gnu.so") == ""
    assert names.find("a/none.py") == ""
    assert names.find_all(["a/none.py", "a/z.py", "a/x.so", "a/z.py"]) == ("a/z.py", "a/x.abi3.so")


FILES: Files = {
    "demo/__init__.py": "from demo import z, a\n",
    "demo/a.py": "a = 1\n",
    "demo/b.py": "b = 2\n",
    "demo/later.py": "c = 3\n",
    "demo/z.py": "d = 4\n",
    "demo/big.bin": b"x" * (1 << 21),
}


def donor(tmp_path: Path, target: Target, *, traced: bool = True, ours: bool = False) -> Donor:
    """A build with native code, made as if a trace had read z, the extension module and a, in this order."""
    (tmp_path / str(target)).mkdir()
    shelf = MadeShelf(tmp_path / str(target), target=target)
    extension = f"demo/_x.cpython-{target.interpreter[2:]}-{target.machine}-linux-gnu.so"
    opened = [("demo/__init__.py", True), ("demo/z.py", True), (extension, False), ("demo/a.py", True)]
    built = shelf.add(
        "demo",
        "1",
        {**FILES, extension: ELF, "demo.libs/libq-0123abcd.so.1": ELF + b"2"},
        opened=opened if traced else [],
        follow={"other": ["other/__init__.py", "other/_y.cpython-312-x86_64-linux-gnu.so"], "gone": ["g.py"]},
        imports={"demo/b.py": {"demo": ["demo/later.py", extension], "gone": ["g.py"]}, extension: {}},
    )
    return Donor(built, ours)


def names_for(name: str) -> Names | None:
    """What is published for aarch64."""
    arm = "cpython-312-aarch64-linux-gnu.so"
    known = {
        "demo": [*FILES, f"demo/_x.{arm}", "demo.libs/libq-99999999.so.1"],
        "other": ["other/__init__.py", f"other/_y.{arm}"],
    }
    return Names(known[name]) if name in known else None


def test_the_order_is_the_donors(tmp_path: Path) -> None:
    """What the lead has leads, in its order and with the names here, and what follows follows."""
    found = borrow(donor(tmp_path, X86), PIN, names_for)
    arm = "cpython-312-aarch64-linux-gnu.so"
    assert [(o.path, o.kind) for o in found.opened if o.name == "demo"] == [
        ("demo/__init__.py", "code"),
        ("demo/z.py", "code"),
        (f"demo/_x.{arm}", "file"),
        ("demo/a.py", "code"),
    ]
    assert [o.path for o in found.opened if o.name == "other"] == ["other/__init__.py", f"other/_y.{arm}"]
    assert {o.name for o in found.opened} == {"demo", "other"}
    assert found.imports == {"demo/b.py": {"demo": ("demo/later.py", f"demo/_x.{arm}")}}
    after = [o.path for o in found.reached if o.kind == "code"]
    assert after == ["demo/b.py", "demo/later.py"]
    assert "demo.libs/libq-99999999.so.1" in [o.path for o in found.reached]
    assert (found.failed, found.notes, found.c_opened) == ({}, (), ())


def test_sources_lead_where_there_is_no_bytecode(tmp_path: Path) -> None:
    """A target without an interpreter has the sources in the places of the code objects."""
    found = borrow(donor(tmp_path, X86), PIN, names_for)
    content = scan(write_tree(tmp_path / "tree", {**FILES, **metadata("demo", "1")}), PIN, ARM)
    opened = [(o.path, o.kind == "code") for o in found.opened if o.name == "demo"]
    number = {file.path: at for at, file in enumerate(content.files)}
    for compiled in ([], ["demo/z.py", "demo/a.py", "demo/__init__.py"]):
        order = arrange(content, compiled, opened, (), ())
        lead = [Item(number[f"demo/{name}.py"], bool(compiled)) for name in ("__init__", "z", "a")]
        assert order.items[order.lead - 3 : order.lead] == lead
        assert order.traced


def test_the_best_donor(tmp_path: Path) -> None:
    """The same Python before the nearest, ours before the shelf's, a real trace before a borrowed one."""
    same, ours = donor(tmp_path, X86), donor(tmp_path, X86._replace(glibc=(2, 34)), ours=True)
    near, far = (
        donor(tmp_path, X86._replace(python=(3, 11)), ours=True),
        donor(tmp_path, X86._replace(python=(3, 10))),
    )
    static = donor(tmp_path, X86._replace(glibc=(2, 17)), traced=False, ours=True)
    assert best([far, near, same, static, ours], ARM) is ours
    assert best([far, near, same, static], ARM) is same
    assert best([far, near], ARM) is near
    assert best([static], ARM) is None
    second = Donor(_borrowed(donor(tmp_path, X86._replace(glibc=(2, 26))).built), False)
    assert best([second, same], ARM) is same
    assert second.traced == "cp311-manylinux_2_28_x86_64"


def _borrowed(built: Built) -> Built:
    return built._replace(layout=built.layout._replace(traced="cp311-manylinux_2_28_x86_64"))
