"""For each limit a package that passes it, and the line that a curator has to see (docs/security.md)."""

from __future__ import annotations

from typing import NamedTuple

from shelf_tools.limits import BUILD, FETCH, INSTALL, TABLE, TRACE, Stage, flag, show

#: What a module, or a build, does to pass each limit: in words, in code.
CODE = {
    "memory": (
        "takes memory without end",
        "import time\nx = []\nwhile True: x.append(bytearray(1 << 20)); time.sleep(0.002)",
    ),
    "address-space": (
        "maps a file again and again",
        """\
import mmap, os, time
x = []
f = os.open('/tmp/x', os.O_RDWR | os.O_CREAT)
os.truncate(f, 1 << 21)
while True: x.append(mmap.mmap(f, 1 << 21, prot=mmap.PROT_READ)); time.sleep(0.001)
""",
    ),
    "cpu-time": ("computes without end", "while True: pass"),
    "wall-time": (
        "sleeps, and does not hear the alarm",
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\ntime.sleep(600)",
    ),
    "processes": (
        "forks without end",
        "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(60)",
    ),
    "open-files": ("opens 2,000 files", "x = [open('/dev/null') for _ in range(2000)]"),
    "largest-file": (
        "writes one file without end",
        "f = open('/tmp/x', 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 16))",
    ),
    "output": (
        "writes 99 files of 1 MiB to be handed over",
        "for n in range(99): open('/out/%d' % n, 'wb').write(bytes(1 << 20))",
    ),
    "files": ("makes files without end", "for n in range(10**6): open('/tmp/%d' % n, 'wb').close()"),
    "scratch": (
        "writes 99 temporary files of 1 MiB",
        "for n in range(99): open('/tmp/%d' % n, 'wb').write(bytes(1 << 20))",
    ),
}
#: Values that take little to pass, each of them by its own package alone, and what is said then.
LOW = {
    "memory": ("192MiB", "used more than 192 MiB of memory"),
    "address-space": ("1GiB", "used more than 1 GiB of address space"),
    "cpu-time": ("2s", "took more than 2 s of processor time"),
    "wall-time": ("20s", "took longer than 20 s"),
    "processes": ("30", "had more than 30 processes and threads"),
    "open-files": ("1500", "had more than 1500 open files"),
    "largest-file": ("2MiB", "wrote a file of more than 2 MiB"),
    "output": ("4MiB", "wrote more than 4 MiB of output"),
    "files": ("300", "made more than 300 files and folders"),
    "scratch": ("8MiB", "wrote more than 8 MiB of temporary files"),
}
#: The same of a wheel with large files and with sources that a compiler needs long for; the last one is of
#: an installer that was taken over, since no code of a wheel's runs while it is installed.
LOW_INSTALL = {
    "memory": ("64MiB", "used more than 64 MiB of memory"),
    "address-space": ("80MiB", "used more than 80 MiB of address space"),
    "cpu-time": ("1s", "took more than 1 s of processor time"),
    "wall-time": ("1s", "took longer than 1 s"),
    "processes": ("2", "had more than 2 processes and threads"),
    "open-files": ("5", "had more than 5 open files"),
    "largest-file": ("1MiB", "wrote a file of more than 1 MiB"),
    "output": ("1MiB", "wrote more than 1 MiB of output"),
    "files": ("5", "made more than 5 files and folders"),
    "scratch": ("8MiB", "wrote more than 8 MiB of temporary files"),
}
#: The same of pip, which no code of a package runs in either.
LOW_FETCH = {
    "memory": ("192MiB", "used more than 192 MiB of memory"),
    "wall-time": ("4s", "took longer than 4 s"),
    "largest-file": ("1MiB", "wrote a file of more than 1 MiB"),
}
_FETCHED = {
    "memory": "has 512 MiB of zeros in its dist-info folder",
    "wall-time": "is on an index that does not answer",
    "largest-file": "is a wheel of 3 MiB",
}
_INSTALLED = "has 4 MiB of data and four generated modules of 2.5 MB"
_TAKEN_OVER = "fills the folder for temporary files, in the installer's place"


class Overuse(NamedTuple):
    """A package and its line. ``value`` is what the flag is given, ``line`` the end of what is seen."""

    stage: Stage
    limit: str
    does: str
    value: str
    line: str

    @property
    def flag(self) -> str:
        """The flag of the limit."""
        return f"--{self.stage.name}-{self.limit}"

    @property
    def seen(self) -> str:
        """The whole line, as it is shown to people: ``…`` for what is not always the same."""
        name = f"over-{self.limit}"
        if self.stage is TRACE:
            module = name.replace("-", "_")
            return f"note: {name}==1: {module} cannot be imported in the sandbox: …{self.line}"
        # Of a wheel it is an error, or a note if only a compiler was stopped: that is a matter of its pace.
        return f"{'' if self.stage is INSTALL else 'shelf: error: '}…{name}==1: …{self.line}"


def overuse(stage: Stage, limit: str) -> Overuse:
    """Return the package for a limit of a stage."""
    low = {"fetch": LOW_FETCH, "install": LOW_INSTALL}.get(stage.name, LOW)
    value, did = low[limit]
    does = {
        "fetch": _FETCHED.get(limit, ""),
        "install": _TAKEN_OVER if limit == "scratch" else _INSTALLED,
    }.get(stage.name, CODE[limit][0])
    return Overuse(stage, limit, does, value, f"{did} while it was {stage.doing} (--{stage.name}-{limit})")


ALL = tuple(overuse(stage, limit.name) for stage in (FETCH, INSTALL, TRACE, BUILD) for limit in stage.table)


def table() -> str:
    """Return the table of docs/security.md."""
    head = "| limit | default | a package that | given | what the curator sees |\n|---|---|---|---|---|\n"
    by_name = {limit.name: limit for limit in TABLE}
    rows = []
    for one in ALL:
        limit = by_name[one.limit]
        default = show(limit, getattr(one.stage.limits, limit.field))
        assert one.flag == flag(one.stage, limit)
        rows.append(f"| `{one.flag}` | {default} | {one.does} | {one.value} | `{one.seen}` |\n")
    return head + "".join(rows)
