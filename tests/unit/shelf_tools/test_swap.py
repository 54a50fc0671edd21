"""A folder that takes its place whole or not at all, where file systems and other processes differ."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from shelf_tools import swap


def ours(folder: str) -> bool:
    """Whether a folder is one of these tests'."""
    return os.path.exists(f"{folder}/ours")


def make(place: Path, text: str) -> None:
    """Put a folder with one file at ``place``."""
    with swap.new_folder(str(place), ours) as folder:
        Path(folder, "ours").write_text(text)


@pytest.fixture(params=[0, errno.EINVAL, errno.ENOSYS])
def exchanging(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """A file system that can exchange two folders, and ones that cannot."""
    if request.param:
        monkeypatch.setattr(swap, "_renameat2", lambda one, other: request.param)
    return int(request.param)


def test_replaces(tmp_path: Path, exchanging: int) -> None:
    """A folder of ours is replaced, whatever the file system can do; nothing is left beside it."""
    make(tmp_path / "deep/place", "first")
    make(tmp_path / "deep/place", "second")
    assert (tmp_path / "deep/place/ours").read_text() == "second"
    assert os.listdir(tmp_path / "deep") == ["place"]


def test_replaced_by_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system can exchange, the place is at no moment without a folder: it is not renamed."""
    make(tmp_path / "place", "first")
    renamed = []
    rename = os.rename
    monkeypatch.setattr(os, "rename", lambda *paths: (renamed.append(paths[0]), rename(*paths)))
    make(tmp_path / "place", "second")
    assert str(tmp_path / "place") not in renamed
    assert (tmp_path / "place/ours").read_text() == "second"


def test_a_folder_that_came_meanwhile(tmp_path: Path, exchanging: int) -> None:
    """Somebody else's folder that appears while ours is filled is left as it is."""
    place = tmp_path / "place"
    with (
        pytest.raises(ConfigurationError, match="somebody else"),
        swap.new_folder(str(place), ours) as folder,
    ):
        Path(folder, "ours").touch()
        place.mkdir()
        (place / "theirs").touch()
    assert os.listdir(tmp_path) == ["place"]
    assert os.listdir(place) == ["theirs"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """When the block fails the place is as before, and what was unfinished is gone."""
    make(tmp_path / "place", "first")
    with pytest.raises(ZeroDivisionError), swap.new_folder(str(tmp_path / "place"), ours) as folder:
        Path(folder, "ours").write_text("second")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["place"]
    assert (tmp_path / "place/ours").read_text() == "first"


def test_other_errors_of_the_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exchange that fails for another reason is an error that names the place."""
    make(tmp_path / "place", "first")
    monkeypatch.setattr(swap, "_renameat2", lambda one, other: errno.EACCES)
    with pytest.raises(PermissionError) as caught:
        make(tmp_path / "place", "second")
    assert caught.value.filename == str(tmp_path / "place")
    assert os.listdir(tmp_path) == ["place"]


def test_abandoned_folders_go_and_held_ones_stay(tmp_path: Path) -> None:
    """What a dead process left is removed; what a living one fills is not."""
    with swap.new_folder(str(tmp_path / "one"), ours) as held:
        dead = tmp_path / ".shelf-export-dead"
        dead.mkdir()
        (dead / "file").touch()
        make(tmp_path / "two", "x")
        assert not dead.exists()
        assert os.path.isdir(held)
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a file system without locks it works, and nothing is taken for abandoned."""

    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".shelf-export-other").mkdir()
    make(tmp_path / "place", "first")
    assert sorted(os.listdir(tmp_path)) == [".shelf-export-other", "place"]
