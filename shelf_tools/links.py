"""Files that exports share by hard links, by way of a folder in the cache (docs/decisions/0014).

The folder holds nothing of its own: each file in it is one that an export has, under the name of its
identity. What no export has any more goes with the next export. No fault of it fails an export.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

_SECOND = 10**9


class Shape(NamedTuple):
    """What tells that a file is still the one that was written.

    ``name`` is its identity, hexadecimal; ``size`` in bytes; ``fraction`` in nanoseconds: of its
    modification time the part below a second is its mark, the seconds say when it came.
    """

    name: str
    size: int
    mode: int
    fraction: int

    def fits(self, found: os.stat_result) -> bool:
        """Whether a file with this status is unchanged and of this user."""
        return (
            stat.S_ISREG(found.st_mode)
            and stat.S_IMODE(found.st_mode) == self.mode
            and found.st_size == self.size
            and found.st_uid == os.geteuid()
            and found.st_mtime_ns % _SECOND == self.fraction
        )

    def time_ns(self, second: int) -> int:
        """Return the modification time of a file that came in ``second``."""
        return second * _SECOND + self.fraction


def link(source: str, path: str, shape: Shape) -> bool:
    """Make ``path`` the same file as ``source`` if that is ``shape``. Raises OSError if it cannot be done."""
    os.link(source, path, follow_symlinks=False)
    if shape.fits(os.lstat(path)):
        return True
    os.unlink(path)
    return False


def write(path: str, data: bytes, mode: int, time_ns: int) -> None:
    """Write a new file, or one of which a part was written. Raises OSError.

    Never into what is there: that may be another export's file.
    """
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)
        os.utime(descriptor, ns=(time_ns, time_ns))
    finally:
        os.close(descriptor)


class Links:
    """The shared files, in ``folder``. Several processes may use it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._works = True

    def _place(self, shape: Shape) -> str:
        return f"{self._folder}/{shape.name[:2]}/{shape.name}"

    def take(self, path: str, shape: Shape) -> bool:
        """Make ``path`` a link to the shared file, if there is one; returns whether it is."""
        if not self._works:
            return False
        try:
            return link(self._place(shape), path, shape)
        except OSError as error:
            self._works = error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EMLINK)
            return False

    def share(self, path: str, shape: Shape) -> None:
        """Let later exports take ``path``."""
        if not self._works:
            return
        place = self._place(shape)
        try:
            os.makedirs(os.path.dirname(place), 0o700, exist_ok=True)
            try:
                os.link(path, place)
            except FileExistsError:  # it could not be taken: changed, or with as many links as there can be
                os.unlink(place)
                os.link(path, place)
        except OSError:
            self._works = False

    def prune(self) -> None:
        """Remove what no export has any more."""
        for folder, _, names in os.walk(self._folder):
            for name in names:
                path = f"{folder}/{name}"
                try:
                    if os.lstat(path).st_nlink == 1:
                        os.unlink(path)
                except OSError:
                    pass  # another process did it
