"""What the site tree does to the disk: folders, markers, files that are either absent or whole.

The functions of ``os`` are taken at import time, before ``cloudimport.site.patches`` replaces them.
Import budget: ``os``, ``stat``.
"""

from __future__ import annotations

import os
import stat
from os import close as _close
from os import mkdir as _os_mkdir
from os import open as _open
from os import rename as _rename
from os import unlink as _unlink
from os import utime as _utime

from cloudimport.format.index import Section

_PLACEHOLDER = b"#!python"
#: The kernel reads at most this many bytes of a ``#!`` line (execve(2), since Linux 5.1: 255).
_SHEBANG_BYTES = 127
#: Bytes of which file systems allocate whole ones, as a rule.
_PAGE = 4096


def status_of(section: Section, file: int) -> os.stat_result:
    """Return the status that a file will have once it is materialised (its inode aside)."""
    mode = stat.S_IFREG | (0o755 if file in section.executable else 0o644)
    time_ns = section.stamp(file)
    second = time_ns // 10**9
    size = section.sizes[file]
    fields = (mode, 0, 0, 1, os.geteuid(), os.getegid(), size, second, second, second)
    more = {f"st_{name}time_ns": time_ns for name in "amc"} | {
        f"st_{name}time": time_ns / 1e9 for name in "amc"
    }
    # What is not given is None, which no program expects.
    more |= {"st_blksize": _PAGE, "st_blocks": -(-size // _PAGE) * (_PAGE // 512), "st_rdev": 0}
    return os.stat_result(fields, more)


def mkdir(path: str) -> None:
    """Make a folder unless it is there. Raises OSError."""
    try:
        _os_mkdir(path, 0o755)
    except FileExistsError:
        pass


def makedirs(path: str) -> None:
    """Make a folder and those above it. Raises OSError."""
    try:
        mkdir(path)
    except FileNotFoundError:
        makedirs(path.rpartition("/")[0])
        mkdir(path)


def touch(path: str) -> None:
    """Make an empty marker file, if it can be made."""
    try:
        _close(_open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    except OSError:
        pass


def with_interpreter(script: bytes, executable: str) -> bytes:
    """Return a script whose placeholder first line names the interpreter, as pip writes it.

    A path that is too long for the kernel or has spaces goes through ``/bin/sh`` (as in distlib).
    """
    line, newline, rest = script.partition(b"\n")
    if not line.startswith(_PLACEHOLDER):
        return script
    interpreter = os.fsencode(executable)
    if len(interpreter) + 3 <= _SHEBANG_BYTES and b" " not in interpreter:
        return b"#!" + interpreter + newline + rest
    return b"#!/bin/sh\n'''exec' \"" + interpreter + b'" "$0" "$@"\n' + b"' '''" + newline + rest


def place(temporaries: str, path: str, data: bytes, mode: int, mtime_ns: int) -> None:
    """Write a file under a temporary name in folder ``temporaries`` and rename it. Raises OSError."""
    # Not by process number: containers that share a cache have the same ones.
    temporary = f"{temporaries}/{os.urandom(8).hex()}.tmp"
    fd = _open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fchmod(fd, mode)
        finally:
            _close(fd)
        _utime(temporary, ns=(mtime_ns, mtime_ns))
        try:
            _rename(temporary, path)
        except FileNotFoundError:
            makedirs(path.rpartition("/")[0])
            _rename(temporary, path)
    except BaseException:
        try:
            _unlink(temporary)
        except FileNotFoundError:
            pass  # interrupted just after the renaming
        raise
