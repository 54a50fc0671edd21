"""Files that exports share: taken only while they are what was written, and never a reason to fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shelf_tools.links import Links, Shape

SHAPE = Shape("ab" * 32, 5, 0o444, 123_456_789)


def write(path: Path, shape: Shape = SHAPE) -> Path:
    """Write a file of a shape."""
    path.write_bytes(b"x" * shape.size)
    path.chmod(shape.mode)
    os.utime(path, ns=(shape.time_ns(10**9), shape.time_ns(10**9)))
    return path


def append(path: Path) -> None:
    """Write into a file, as an editor does that keeps the file."""
    path.chmod(0o644)
    path.write_bytes(b"y" * SHAPE.size)
    path.chmod(SHAPE.mode)


def test_taken_as_shared(tmp_path: Path) -> None:
    """What was shared is taken as the same file; what was not is not there to take."""
    links = Links(str(tmp_path / "links"))
    assert not links.take(str(tmp_path / "early"), SHAPE)
    one = write(tmp_path / "one")
    links.share(str(one), SHAPE)
    assert links.take(str(tmp_path / "two"), SHAPE)
    assert (tmp_path / "two").samefile(one)
    assert not links.take(str(tmp_path / "other"), SHAPE._replace(name="cd" * 32))


@pytest.mark.parametrize(
    "change",
    [
        append,
        lambda path: path.chmod(0o644),
        lambda path: os.truncate(path, 3),
        lambda path: os.utime(path, ns=(0, 0)),
    ],
)
def test_changed_files_are_not_taken(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """A shared file that somebody changed is not taken; the next that is shared takes its place."""
    links = Links(str(tmp_path / "links"))
    one = write(tmp_path / "one")
    links.share(str(one), SHAPE)
    change(one)
    assert not links.take(str(tmp_path / "two"), SHAPE)
    assert not (tmp_path / "two").exists()
    two = write(tmp_path / "two")
    links.share(str(two), SHAPE)
    assert links.take(str(tmp_path / "three"), SHAPE)
    assert (tmp_path / "three").samefile(two)


def test_pruned(tmp_path: Path) -> None:
    """What no export has any more goes; the rest stays."""
    links = Links(str(tmp_path / "links"))
    other = SHAPE._replace(name="cd" * 32)
    for name, shape in (("one", SHAPE), ("two", other)):
        links.share(str(write(tmp_path / name, shape)), shape)
    (tmp_path / "one").unlink()
    links.prune()
    assert not links.take(str(tmp_path / "three"), SHAPE)
    assert links.take(str(tmp_path / "three"), other)


def test_faults_fail_nothing(tmp_path: Path) -> None:
    """Where nothing can be kept, nothing is taken and nothing is raised."""
    (tmp_path / "file").touch()
    links = Links(str(tmp_path / "file"))
    links.share(str(write(tmp_path / "one")), SHAPE)
    assert not links.take(str(tmp_path / "two"), SHAPE)
    links.prune()
