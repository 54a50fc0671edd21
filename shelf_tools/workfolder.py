"""Temporary folders that do not outlive their process for long, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LOCK = ".in-use"


@contextmanager
def work_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder, its owner's alone, in ``parent``; without it in the folder for temporary files.

    Folders of the same ``purpose`` that a killed process of this user left are removed first: a
    process holds a lock on its own. Raises OSError.
    """
    prefix = f"cloudimport-{purpose}-"
    place = str(parent or tempfile.gettempdir())
    _remove_abandoned(prefix, place)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=place, ignore_cleanup_errors=True) as name,
        open(os.path.join(name, _LOCK), "wb") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(b"locked\n")
        lock.flush()
        yield Path(name)


def _remove_abandoned(prefix: str, place: str) -> None:
    for entry in os.scandir(place):
        if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False) and _is_abandoned(entry):
            shutil.rmtree(entry.path, ignore_errors=True)


def _is_abandoned(entry: os.DirEntry[str]) -> bool:
    """Whether a folder of ours has a lock that nobody holds; one that is just being made has none."""
    try:
        if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
            return False
        with open(os.path.join(entry.path, _LOCK), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between its making and its locking the lock is free for a moment: then it is empty and new.
            return os.fstat(lock.fileno()).st_size > 0
    except OSError:
        return False
