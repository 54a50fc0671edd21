"""The folder in which everything is kept: of this user alone, and somewhere else if it cannot be written.

Import budget: ``os``, ``stat``.
"""

from __future__ import annotations

import os
import stat

from cloudimport.errors import ConfigurationError

#: A path where nothing can be: everything runs from memory, native code excepted.
_NO_FOLDER = "/dev/null/cloudimport"
#: (process, its temporary folder)
_temporary: tuple[int, str] | None = None


def open_folder(wanted: str) -> str:
    """Return ``wanted``, or a temporary folder if that can neither be written nor has anything for us.

    A folder that others can write to is refused: what lies there is executed.
    """
    try:
        os.makedirs(wanted, 0o700, exist_ok=True)
        found = os.stat(wanted)
    except OSError:
        return temporary_folder() or _NO_FOLDER
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"cache folder {wanted} belongs to another user (uid {found.st_uid}): "
            "set CLOUDIMPORT_CACHE to a folder of your own"
        )
    if stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigurationError(
            f"cache folder {wanted} can be written by others (mode "
            f"{stat.S_IMODE(found.st_mode):o}): run 'chmod 700 {wanted}' or set CLOUDIMPORT_CACHE"
        )
    writable = os.access(wanted, os.W_OK | os.X_OK) and not os.statvfs(wanted).f_flag & os.ST_RDONLY
    if writable or os.path.isdir(f"{wanted}/v1"):
        return wanted
    return temporary_folder() or _NO_FOLDER


def temporary_folder() -> str:
    """Return this process's temporary folder, "" if there is none to be had; it is removed at exit."""
    global _temporary
    if _temporary and _temporary[0] == os.getpid():
        return _temporary[1]
    import atexit
    import shutil
    import tempfile

    try:
        folder = tempfile.mkdtemp(prefix="cloudimport-")
    except OSError:
        return ""
    _temporary = owner, _ = os.getpid(), folder

    def remove() -> None:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder
