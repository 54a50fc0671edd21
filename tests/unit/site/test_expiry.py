"""Unused site trees go; used ones never do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cloudimport.site.expiry import expire, hold

OLD = 100.0


def make_tree(trees: Path, name: str, age: float) -> Path:
    """Make a tree that was last used ``age`` seconds ago."""
    tree = trees / name
    (tree / "state").mkdir(parents=True)
    (tree / "site").mkdir()
    (tree / "site" / "file").write_text("x")
    held = hold(str(tree))
    assert held is not None
    os.close(held)
    when = time.time() - age
    os.utime(tree / "state" / "in-use", (when, when))
    return tree


def test_old_trees_are_removed(tmp_path: Path) -> None:
    """A tree that nobody used for long is removed, a recent one stays."""
    old, recent = make_tree(tmp_path, "old", 2 * OLD), make_tree(tmp_path, "recent", 0)
    assert expire(str(tmp_path), OLD) == 1
    assert not old.exists()
    assert (recent / "site" / "file").read_text() == "x"
    assert os.listdir(tmp_path) == ["recent"]


def test_held_trees_stay(tmp_path: Path) -> None:
    """A tree that a process holds stays, however old its mark is, and goes once it is released."""
    tree = make_tree(tmp_path, "held", 0)
    held = hold(str(tree))
    assert held is not None
    os.utime(tree / "state" / "in-use", (1, 1))
    assert expire(str(tmp_path), OLD) == 0
    os.close(held)
    assert expire(str(tmp_path), OLD) == 1


def test_what_a_killed_removal_left_goes(tmp_path: Path) -> None:
    """A tree that was renamed away by a process that was then killed is removed by the next."""
    make_tree(tmp_path, "old", 0).rename(tmp_path / "old.removed")
    expire(str(tmp_path), OLD)
    assert os.listdir(tmp_path) == []


def test_a_read_only_tree_is_not_held(tmp_path: Path) -> None:
    """A tree without a state folder, as one that cannot be written, is used without being held."""
    assert hold(str(tmp_path / "nowhere")) is None
    assert expire(str(tmp_path / "nowhere")) == 0
