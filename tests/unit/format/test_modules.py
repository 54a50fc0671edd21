"""``modules`` against the real ``FileFinder`` on generated trees."""

from __future__ import annotations

import tempfile
from importlib.machinery import ExtensionFileLoader, FileFinder, SourceFileLoader, SourcelessFileLoader
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudimport.format.modules import modules
from cloudimport.ids import Target

TARGET = Target.parse("cp312-manylinux_2_28_x86_64")
_EXTENSIONS = list(TARGET.extension_suffixes)
_SUFFIXES = [*_EXTENSIONS, ".py", ".pyc", ".cpython-310-x86_64-linux-gnu.so", ".txt", ".pyi", ""]
_KINDS = {"e": ExtensionFileLoader, "m": SourceFileLoader, "b": SourcelessFileLoader}
_PACKAGES = {"f": "e", "p": "m", "q": "b"}

_FOLDERS = st.sampled_from(["", "a", "b", "a/a", "a/b", "a-b", "a.libs", "a/b.c"])
_STEMS = st.sampled_from(["a", "b", "__init__", "a-b", "x.y", "__main__"])


@st.composite
def _trees(draw: st.DrawFn) -> list[str]:
    """File lists without a file that is a folder of another."""
    files = draw(st.sets(st.tuples(_FOLDERS, _STEMS, st.sampled_from(_SUFFIXES)), max_size=20))
    paths = {f"{folder}/{stem}{suffix}".lstrip("/") for folder, stem, suffix in files}
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(paths - folders)


def _by_file_finder(root: Path, paths: list[str]) -> list[tuple[str, str, int]]:
    """Ask importlib for every name that could be meant in every folder."""
    found = []
    details = [
        (ExtensionFileLoader, _EXTENSIONS),
        (SourceFileLoader, [".py"]),
        (SourcelessFileLoader, [".pyc"]),
    ]
    folders = {str(parent) for path in paths for parent in Path(path).parents}
    for folder in folders:
        below = "" if folder == "." else folder + "/"
        finder = FileFinder(str(root / folder), *details)
        names = {path[len(below) :].split("/")[0].split(".")[0] for path in paths if path.startswith(below)}
        for name in names - {""}:
            spec = finder.find_spec(name)
            if spec is None or spec.loader is None:
                continue
            kind = next(letter for letter, loader in _KINDS.items() if type(spec.loader) is loader)
            if spec.submodule_search_locations is not None:
                kind = next(letter for letter, module in _PACKAGES.items() if module == kind)
            assert spec.origin is not None
            file = paths.index(str(Path(spec.origin).relative_to(root)))
            found.append((below + name, kind, file))
    return sorted(found)


@settings(deadline=None, max_examples=200)
@given(_trees())
def test_modules_are_those_that_file_finder_finds(paths: list[str]) -> None:
    """On any tree, each name in each folder gives the file and kind that importlib chooses."""
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        assert modules(paths, TARGET) == _by_file_finder(Path(folder), paths)


def test_a_package_with_modules_of_every_kind() -> None:
    """The letters of docs/format.md stand for what they say."""
    paths = ["e.abi3.so", "f/__init__.so", "m.py", "n/__init__.pyc", "p/__init__.py", "p/b.pyc", "p/data.txt"]
    assert modules(paths, TARGET) == [
        ("e", "e", 0),
        ("f", "f", 1),
        ("f/__init__", "e", 1),
        ("m", "m", 2),
        ("n", "q", 3),
        ("n/__init__", "b", 3),
        ("p", "p", 4),
        ("p/__init__", "m", 4),
        ("p/b", "b", 5),
    ]


def test_extensions_of_another_interpreter_or_machine_are_no_modules() -> None:
    """Only the target's suffixes count."""
    paths = ["a.cpython-311-x86_64-linux-gnu.so", "b.cpython-312-aarch64-linux-gnu.so", "c.pyd"]
    assert modules(paths, TARGET) == []
