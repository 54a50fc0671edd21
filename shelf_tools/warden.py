"""Watching, from outside, what the processes of one run use together, and ending it when that is too much.

setrlimit(2) counts for each process alone: sixteen of them may take sixteen times the memory. Where
control groups cannot be used (that takes a delegated subtree, which neither a container nor a user's
shell has), the sum is read from /proc ten times a second. Between two looks a run can take what a
core can fill in a tenth of a second, some hundred megabytes; the kernel's limits hold all the while,
and what runs inside is what the OOM killer takes first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from shelf_tools.limits import Limits

#: Seconds between two looks. A look costs some 0.1 ms for each process.
_INTERVAL = 0.1
#: The same while the sandbox is made: what is quick to fill a folder must not be missed.
_FIRST_INTERVAL = 0.01
#: A look that takes long, at hundreds of processes, is followed by a pause so many times as long.
_SHARE = 5
#: Seconds after which a sandbox that has not made its folders is not waited for.
_PATIENCE = 5.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Warden:
    """Watches one run, from ``begin`` to ``end``; kills its process group when a limit is passed.

    ``folders`` are mount points inside, each with the field of Limits that its size is: what is free
    there is looked at as well. ``also`` are fields that the kernel does not hold here. Nothing that goes
    wrong in looking fails a run: what cannot be seen is not counted.
    """

    def __init__(self, limits: Limits, folders: Mapping[PurePosixPath, str], *also: str) -> None:
        self.struck = ""
        self.seen: dict[str, int] = {}
        self._limits = limits
        self._sums = ("memory_bytes", "cpu_seconds", "output_files", *also)
        self._folders = dict(folders)
        self._open: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._kills = 0

    def begin(self, pid: int) -> None:
        """Watch the process ``pid``, which leads a process group, and all that comes of it."""
        self._kills = _oom_kills()
        self._thread = threading.Thread(target=self._work, args=(pid,), name="warden", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Look at the folders for the last time and stop. May be called without ``begin``."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
            self._saw(OOM_KILLS, _oom_kills() - self._kills)
        self._look_at_folders()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def _work(self, leader: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while len(self._open) < len(self._folders) and time.monotonic() < deadline:
            if self._ended.wait(_FIRST_INTERVAL):
                return
            for pid in descendants(leader):
                self._open_folders(pid)
        pause = _INTERVAL
        while not self._ended.wait(pause):
            began = time.monotonic()
            self._look(leader)
            pause = max(_INTERVAL, _SHARE * (time.monotonic() - began))
            self.struck = self.struck or self._passed()
            if self.struck:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(leader, signal.SIGKILL)
                return

    def _passed(self) -> str:
        """Return the field of a limit on the whole run that was passed, or "".

        Others the kernel holds, and a program may well cope with its refusal: those are no reason to end it.
        """
        return next((f for f in self._sums if self.seen.get(f, 0) > getattr(self._limits, f)), "")

    def _look(self, leader: int) -> None:
        pids = descendants(leader)
        used = [_used(pid) for pid in pids]
        resident = sum(one["resident"] for one in used)
        for _ in range(2):  # shares that change while they are added up are too large once, not twice
            if resident > self._limits.memory_bytes:  # a page that was forked has counted for each process
                shares = [_share(pid, one["resident"]) for pid, one in zip(pids, used, strict=True)]
                resident = min(resident, sum(shares))
        self._saw("memory_bytes", resident)
        self._saw("cpu_seconds", sum(one["ticks"] for one in used) // _TICKS)
        self._saw("processes", sum(one["threads"] for one in used))
        self._saw(DATA, max((one["data"] for one in used), default=0))
        self._saw("address_bytes", max((one["address"] for one in used), default=0))
        for pid in pids:
            self._open_folders(pid)
        self._look_at_folders()

    def _saw(self, field: str, value: int) -> None:
        self.seen[field] = max(self.seen.get(field, 0), value)

    def _open_folders(self, pid: int) -> None:
        """Take hold of the folders inside, once they are there: then they can be looked at to the last."""
        for inside, field in self._folders.items():
            if field in self._open:
                continue
            try:
                descriptor = os.open(f"/proc/{pid}/root{inside}", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                return
            status = os.fstatvfs(descriptor)
            # Until the sandbox has changed its root, this is a folder of the machine.
            if status.f_blocks * status.f_frsize == _whole_pages(getattr(self._limits, field)):
                self._open[field] = descriptor
            else:
                os.close(descriptor)

    def _look_at_folders(self) -> None:
        for field, descriptor in self._open.items():
            status = os.fstatvfs(descriptor)
            self._saw(field, (status.f_blocks - status.f_bfree) * status.f_frsize)
            self._saw("output_files", status.f_files - status.f_ffree)


#: Not fields of Limits: the most private writable memory that one process had (RLIMIT_DATA), and how many
#: processes, anybody's, the kernel has killed meanwhile for want of memory.
DATA, OOM_KILLS = "data_bytes", "oom_kills"


class Held(NamedTuple):
    """What a process and all that came of it hold: bytes of memory of their own, and of shared memory (files
    in memory that are mapped count there); how many processes they are.
    """

    own: int
    shared: int
    processes: int


def held(leader: int, most: int) -> Held:
    """Return what a process and all that came of it hold at the moment.

    Memory that processes have in common since a fork counts once, if it would come to more than ``most``.
    """
    pids = descendants(leader)
    pairs = []
    for pid in pids:
        used = _used(pid)
        pairs.append((used["resident"] - used["shared"], used["shared"]))
    if sum(own for own, _ in pairs) > most:
        pairs = [_shares(pid, *pair) for pid, pair in zip(pids, pairs, strict=True)]
    return Held(sum(own for own, _ in pairs), sum(shared for _, shared in pairs), len(pids))


def _oom_kills() -> int:
    """Return how many processes this kernel has killed for want of memory; 0 if it does not tell."""
    with contextlib.suppress(OSError, ValueError), open("/proc/vmstat", "rb") as stream:
        for line in stream:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def descendants(leader: int) -> list[int]:
    """Return a process and all that came of it. None leaves: orphans are the sandbox's first process'."""
    found = [leader]
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", "rb") as stream:
                    found += map(int, stream.read().split())
    return found


#: Lines of /proc/PID/status (proc(5)) and what they are added to. Sizes are in KiB.
_LINES = {
    b"VmSize": "address",
    b"VmData": "data",
    b"RssAnon": "resident",
    b"RssShmem": "resident",
    b"Threads": "threads",
}


def _used(pid: int) -> dict[str, int]:
    """Return what a process uses: bytes, threads, clock ticks (with those of children it waited for)."""
    used = dict.fromkeys(("address", "data", "resident", "shared", "threads", "ticks"), 0)
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/status", "rb") as stream:
            for line in stream:
                name, _, value = line.partition(b":")
                if name in _LINES:
                    number = int(value.split()[0])
                    used[_LINES[name]] += number if name == b"Threads" else number << 10
                if name == b"RssShmem":
                    used["shared"] = int(value.split()[0]) << 10
        with open(f"/proc/{pid}/stat", "rb") as stream:
            # Behind the name, which may hold anything: utime, stime, cutime and cstime are fields 14 to 17.
            used["ticks"] = sum(map(int, stream.read().rpartition(b")")[2].split()[11:15]))
    return used


def _share(pid: int, resident: int) -> int:
    """Return a process' share of the memory that it uses with others, or ``resident`` if that is not told.

    One that has ended has none.
    """
    return sum(_shares(pid, resident, 0))


def _shares(pid: int, own: int, shared: int) -> tuple[int, int]:
    """Return a process' shares of memory of its own and of shared memory, or what is given if untold."""
    found = {b"Pss_Anon": 0, b"Pss_Shmem": 0}
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as stream:
            for line in stream:
                name, _, value = line.partition(b":")
                if name in found:
                    found[name] = int(value.split()[0]) << 10
    except PermissionError:
        return own, shared
    except (OSError, ValueError, IndexError):
        return 0, 0
    return found[b"Pss_Anon"], found[b"Pss_Shmem"]
