"""What a hostile package must leave as it was: the processes, the files and the mounts of this machine."""

from __future__ import annotations

import ctypes
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.children import REPOSITORY

#: Folders of every machine that nobody changes while tests run: all that lies below them is compared.
QUIET = ("/etc", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/var/spool", "/boot")
#: Folders that others use too: names in them that have a run's mark are what it left.
SHARED = ("/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/dev/mqueue", "/run", "/run/lock", "/root", "/home")
_OTHERS = re.compile(r" - (?:fuse\.|nsfs |tmpfs small-disk )")
#: Seconds that a process may take to die after it was killed.
_DYING = 5.0
#: prctl(2)
_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Listing:
    """What there is at one moment. Processes and files by what identifies them, with what is compared."""

    processes: dict[tuple[int, int], str]
    files: dict[str, tuple[object, ...]]
    mounts: tuple[str, ...]
    marked: tuple[str, ...]

    def differences(self, later: Listing) -> list[str]:
        """Return a line for each thing that is not as it was."""
        new = [
            f"process {pid}: {what}"
            for (pid, begun), what in later.processes.items()
            if (pid, begun) not in self.processes
        ]
        changed = sorted(path for path, was in self.files.items() if later.files.get(path) != was)
        new += [f"file {path} was {self.files[path]}, is {later.files.get(path)}" for path in changed]
        new += [f"file {path} is new" for path in sorted(later.files.keys() - self.files.keys())]
        if self.mounts != later.mounts:
            new += [f"mount {line}" for line in set(self.mounts) ^ set(later.mounts)]
        return new + [f"{path} has the mark" for path in later.marked]


def list_machine(folders: Iterable[Path], mark: str) -> Listing:
    """Return what there is now: descendants of this process, files of ``folders`` and of ``QUIET``, mounts."""
    files: dict[str, tuple[object, ...]] = {}
    sources = [REPOSITORY / name for name in ("cloudimport", "shelf_tools", "lambda_layer")]
    for folder in (*map(Path, QUIET), *sources, *folders):
        files.update(_files(folder))
    # FUSE mounts, small disks and namespaces with a name are other tests'; a sandbox can make none.
    mounts = [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if not _OTHERS.search(line)
    ]
    marked = [path for folder in SHARED for path in _names(folder) if mark in path]
    return Listing(descendants(), files, tuple(sorted(mounts)), tuple(sorted(marked)))


def list_after(before: Listing, folders: Iterable[Path], mark: str) -> Listing:
    """Return what there is once what was killed has died, which takes the kernel a moment."""
    deadline = time.monotonic() + _DYING
    while descendants().keys() - before.processes.keys() and time.monotonic() < deadline:
        time.sleep(0.05)
    return list_machine(folders, mark)


@contextmanager
def adopting() -> Iterator[None]:
    """Let orphans among this process' descendants become its children, so that none is out of sight."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants() -> dict[tuple[int, int], str]:
    """Return what lives below this process, by pid and start time; what is dead only waits to be read."""
    parents: dict[int, list[int]] = {}
    known: dict[int, tuple[int, str]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            text = Path("/proc", name, "stat").read_text()
            command = Path("/proc", name, "cmdline").read_bytes()
        except OSError:
            continue
        state, parent, *rest = text.rpartition(")")[2].split()
        parents.setdefault(int(parent), []).append(int(name))
        if state not in "ZX":
            known[int(name)] = (int(rest[17]), command.replace(b"\0", b" ").decode("utf-8", "replace")[:200])
    found, queue = {}, [os.getpid()]
    for pid in queue:
        for child in parents.get(pid, ()):
            queue.append(child)
            if child in known:
                found[child, known[child][0]] = known[child][1]
    return found


def _files(root: Path) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield what lies below ``root`` with all that lstat(2) says but when it was read."""
    for folder, folders, names in os.walk(root):
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        for name in (*names, *folders):
            path = os.path.join(folder, name)
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            row: tuple[object, ...] = (oct(found.st_mode), found.st_uid, found.st_gid)
            if not stat.S_ISDIR(found.st_mode):
                row += (found.st_size, found.st_mtime_ns, found.st_nlink)
            yield path, row


def _names(folder: str) -> list[str]:
    try:
        return [os.path.join(folder, name) for name in os.listdir(folder)]
    except OSError:
        return []
