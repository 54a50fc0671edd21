"""``shelf.toml`` is read, and a wrong one refused with a line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools.config import Config, beside, read_config


def test_limits_and_names(tmp_path: Path) -> None:
    """Limits are read by stage and name, names are normalised."""
    path = tmp_path / "shelf.toml"
    path.write_text('allow-sdist = ["Lx_ML"]\n[limits.build]\nmemory = "1GiB"\nprocesses = 9\n')
    expected = Config({"build": {"memory": 1 << 30, "processes": 9}}, frozenset({"lx-ml"}))
    assert read_config(path) == expected
    assert beside(tmp_path / "requirements.txt") == expected


def test_no_file_is_no_configuration(tmp_path: Path) -> None:
    """The file beside the requirements need not be there; one that was named has to be."""
    assert beside(tmp_path / "requirements.txt") == Config()
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        read_config(tmp_path / "shelf.toml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a", "is not TOML"),
        ("[limit.install]", "'limit' is not known: there are allow-sdist and"),
        ("allow-sdist = 'lxml'", "allow-sdist has to be a list of names"),
        ("allow-sdist = [1]", "allow-sdist has to be a list of names"),
        ("allow-sdist = ['a b']", "allow-sdist: "),
        ("limits = 3", "limits: there are tables for"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, said: str) -> None:
    """Each is one line that names the file."""
    path = tmp_path / "shelf.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
