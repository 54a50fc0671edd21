"""Recipes are read, and wrong ones refused with a line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.recipes import chosen, read_recipes


def test_patterns_by_package(tmp_path: Path) -> None:
    """Names are normalised; a package has its patterns."""
    path = tmp_path / "recipes.toml"
    path.write_text('[Py_Proj]\neager = ["pyproj/*/proj.db", "*.ini"]\n')
    assert read_recipes(path) == {"py-proj": ("pyproj/*/proj.db", "*.ini")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "is not TOML"),
        ("a = 1", r"\[a\] has to have one key, eager"),
        ("[a]\neager = []\nlazy = []", "one key, eager, and no other"),
        ("[a]\neager = 'x'", "a list of patterns"),
        ("['a b']\neager = []", "not a package name"),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, said: str) -> None:
    """Each is one line that names the file or the name."""
    path = tmp_path / "recipes.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_recipes(path)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    """A file that is named has to be there."""
    with pytest.raises(ConfigurationError, match=r"none\.toml cannot be read: No such file"):
        read_recipes(tmp_path / "none.toml")


def test_matching() -> None:
    """A star goes over slashes, and a pattern that is for no file is told."""
    paths = ["p/a.db", "p/deep/b.db", "p/c.txt"]
    assert chosen(paths, ("p/*.db", "q/*")) == (["p/a.db", "p/deep/b.db"], ["q/*"])
