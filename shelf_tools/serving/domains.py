"""Folders of a tier, one for each access domain: held by servers that use them, removed when none does."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Files of a folder that are no objects: who fills it now, and who uses it.
FILLING, _USING = ".filling", ".using"
_GONE = ".gone-"


def files(folder: Path) -> Iterator[Path]:
    """Yield the objects below a folder."""
    for base, _, names in os.walk(folder):
        yield from (Path(base, name) for name in names if name not in (FILLING, _USING))


def hold(folder: Path) -> int:
    """Make a folder that every user may read, and hold it: returns a descriptor. Raises OSError.

    As long as that is open, and this process lives, nobody removes the folder.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # whatever the umask: sandboxes with other uids read it
        with suppress(FileNotFoundError):
            held = _open(folder)
            fcntl.flock(held, fcntl.LOCK_SH)
            if _is_at(held, folder):
                os.utime(held)
                return held
            os.close(held)  # it was removed meanwhile


def remove_unused(parent: Path, most: int) -> None:
    """Remove folders that no server holds, as long as all together have more than ``most`` bytes.

    What was taken into use longest ago goes first. What cannot be removed stays.
    """
    sizes = {entry: _size(entry) for entry in parent.iterdir() if entry.is_dir()}
    total = sum(sizes.values())
    for folder in sorted(sizes, key=_age):
        if total <= most:
            return
        with suppress(OSError):
            _remove(folder)
            total -= sizes[folder]


def _remove(folder: Path) -> None:
    """Remove a folder. Raises OSError if somebody holds it."""
    held = _open(folder)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = folder if folder.name.startswith(_GONE) else folder.with_name(f"{_GONE}{folder.name}")
        if gone != folder:
            shutil.rmtree(gone, ignore_errors=True)
            folder.rename(gone)  # at once: who waits for it makes a new one
        shutil.rmtree(gone)
    finally:
        os.close(held)


def _open(folder: Path) -> int:
    return os.open(folder / _USING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)


def _is_at(held: int, folder: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(held), os.stat(folder / _USING))
    except FileNotFoundError:
        return False


def _age(folder: Path) -> float:
    for path in (folder / _USING, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    total = 0
    for path in files(folder):
        with suppress(OSError):
            total += path.stat().st_size
    return total
