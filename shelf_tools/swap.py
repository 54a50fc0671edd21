"""A file or folder that takes its place whole or not at all: made beside it, then exchanged by one rename."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cloudimport.errors import ConfigurationError

#: What folders are called that are being filled, or on their way out.
_PREFIX = ".shelf-export-"
#: renameat2(2).
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL)


def write_file(path: Path, text: str) -> None:
    """Write a file in place of what is there. Raises OSError; what was there stays then."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file in place of what is there. Raises OSError; what was there stays then."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def new_folder(place: str, is_ours: Callable[[str], bool]) -> Iterator[str]:
    """Yield a new folder beside ``place``, a real path; if the block ends well, it stands at ``place``.

    A folder that stood there has to be empty, or ours; it is removed. What killed processes left
    beside ``place`` goes first. Raises ConfigurationError for another's folder, and OSError.
    """
    _check(place, is_ours)
    parent = os.path.dirname(place)
    os.makedirs(parent, exist_ok=True)
    _remove_abandoned(parent)
    folder, lock = _make(parent)
    try:
        yield folder
        _move(folder, place, is_ours)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # unfinished, or what was at ``place`` before
        os.close(lock)


def _check(place: str, is_ours: Callable[[str], bool]) -> None:
    if os.path.ismount(place):
        raise ConfigurationError(f"{place} is a mount point and cannot be replaced: name a folder in it")
    try:
        names = os.listdir(place)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise ConfigurationError(f"{place} is no folder: name a new or an empty one") from None
    if names and not is_ours(place):
        raise ConfigurationError(
            f"{place} has files of somebody else and is left as it is: name a new or an empty folder"
        )


def _make(parent: str) -> tuple[str, int]:
    """Return a new folder and the descriptor that holds it, as long as this process lives."""
    while True:
        folder = f"{parent}/{_PREFIX}{os.urandom(8).hex()}"
        os.mkdir(folder)
        try:
            lock = _open(folder)
        except FileNotFoundError:
            continue  # before it was held, another process took it for abandoned
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pass  # as above, or a file system without locks: there nothing is taken for abandoned
        if os.path.isdir(folder):
            return folder, lock
        os.close(lock)


def _remove_abandoned(parent: str) -> None:
    with os.scandir(parent) as entries:
        names = [entry.path for entry in entries if entry.name.startswith(_PREFIX)]
    for folder in names:
        try:
            lock = _open(folder)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            pass  # a living process holds it
        finally:
            os.close(lock)


def _open(folder: str) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _move(folder: str, place: str, is_ours: Callable[[str], bool]) -> None:
    try:
        os.rename(folder, place)  # possible if nothing is there, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        _check(place, is_ours)  # again: it may have come meanwhile
        exchange(folder, place)


def exchange(one: str, other: str) -> None:
    """Exchange two folders at once; raises OSError.

    Where the file system cannot (NFS), nothing stands at ``other`` for a moment.
    """
    number = _renameat2(os.fsencode(one), os.fsencode(other))
    if number not in (0, *_CANNOT_EXCHANGE):
        raise OSError(number, os.strerror(number), other)
    if number:
        aside = f"{one}.old"
        os.rename(other, aside)
        try:
            os.rename(one, other)
        except BaseException:
            os.rename(aside, other)
            raise
        os.rename(aside, one)


def _renameat2(one: bytes, other: bytes) -> int:
    """Exchange two paths; returns 0 or the error's number."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # glibc before 2.28
        return errno.ENOSYS
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    failed = function(_AT_FDCWD, one, _AT_FDCWD, other, _RENAME_EXCHANGE)
    return ctypes.get_errno() if failed else 0
