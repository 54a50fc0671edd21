"""Site trees of environments that nobody uses any more go, when a tree for a new one is made.

Every process that uses a tree holds a shared lock on a file in it (inherited by forks, released by
the system however the process ends) and marks the tree as used. A tree whose mark is old and
whose lock is free is renamed away and removed. Import budget: ``os``, ``fcntl``.
"""

from __future__ import annotations

import fcntl
import os
import time

#: Seconds without use after which a tree may go.
UNUSED_SECONDS = 14 * 86400.0
_LOCK = "state/in-use"
_REMOVED = ".removed"


def hold(tree: str) -> int | None:
    """Mark a tree (a folder) as used and hold it; returns the descriptor, None if it is read-only."""
    try:
        fd = os.open(f"{tree}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        os.utime(fd)
    except OSError:
        pass  # a file system without locks: trees there are not removed either, see below
    return fd


def expire(trees: str, unused_seconds: float = UNUSED_SECONDS) -> int:
    """Remove the trees below a folder that were not used for so long; returns how many. Never raises."""
    removed = 0
    try:
        names = os.listdir(trees)
    except OSError:
        return 0
    for name in names:
        tree = f"{trees}/{name}"
        if name.endswith(_REMOVED):
            _remove(tree)
        elif _take(tree, unused_seconds):
            removed += 1
    return removed


def _take(tree: str, unused_seconds: float) -> bool:
    """Rename a tree away under its exclusive lock, and remove it."""
    try:
        fd = os.open(f"{tree}/{_LOCK}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if os.fstat(fd).st_mtime > time.time() - unused_seconds:
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(tree, tree + _REMOVED)
    except OSError:
        return False
    finally:
        os.close(fd)
    _remove(tree + _REMOVED)
    return True


def _remove(tree: str) -> None:
    import shutil

    shutil.rmtree(tree, ignore_errors=True)
