"""Room on the disk for what has to be a file: what is said where there is none.

The functions of ``os`` are taken at import time, before ``cloudimport.site.patches`` replaces them. Import
budget: ``errno``, ``os``.
"""

from __future__ import annotations

import errno
import os
from os import stat as _stat
from os import statvfs as _statvfs

from cloudimport.errors import NoSpaceError
from cloudimport.format.index import Section

FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether an error says that a disk, or somebody's share of it, is full."""
    return error.errno in FULL


def is_same_disk(one: str, other: str) -> bool:
    """Whether two paths, of which folders above may be all that is there, are on one file system."""
    return _device(one) == _device(other)


def _device(path: str) -> int:
    while True:
        try:
            return _stat(path).st_dev
        except OSError:
            path = os.path.dirname(path)


class FullError(OSError):
    """A disk has no room for a file: ``needed`` and ``free`` in bytes."""

    needed = free = 0


def full(error: OSError, path: str, size: int) -> FullError:
    """Return an error that says what room a file of ``size`` bytes lacks, and what to do."""
    free = free_bytes(path)
    found = FullError(
        error.errno,
        f"{os.strerror(error.errno or errno.ENOSPC)}: {size} bytes are needed and {free} are free; give the "
        "function more ephemeral storage (Lambda's /tmp), or set CLOUDIMPORT_CACHE to a folder with room",
        path,
    )
    found.needed, found.free = size, free
    return found


def free_bytes(path: str) -> int:
    """Return the bytes that are free on the disk of ``path``, 0 if that cannot be told."""
    try:
        found = _statvfs(os.path.dirname(path))
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def no_space(section: Section, file: int, error: OSError, native: int) -> NoSpaceError:
    """Return the error of an import that needs ``file``, and perhaps others, for which there is no room.

    ``native``: how many bytes all native files of the packages take that are imported so far.
    """
    if not isinstance(error, FullError):  # where not even a folder can be made
        error = full(error, str(error.filename or section.paths[file]), section.sizes[file])
    pin = str(section.pin)
    whole = f"all native files of what is imported so far take {native} bytes"
    text = f"{pin}: {error.filename}: {error.strerror} ({whole})"
    found = NoSpaceError(text, package=pin, needed=error.needed, free=error.free)
    found.path = error.filename
    return found
