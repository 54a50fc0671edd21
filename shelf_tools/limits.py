"""What a run in a sandbox, and pip, may use: one table of names, units, flags, defaults and words.

A limit is known by its name (``memory``) and by its flag, stage in front (``--install-memory``); in
``shelf.toml`` the same name stands in the stage's table.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from shelf_tools.process import Finished

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@dataclass(frozen=True)
class Limits:
    """What one run in a sandbox may use.

    For the whole: ``memory_bytes`` (memory that is not a file's), ``cpu_seconds``, ``processes`` (threads
    count), ``wall_seconds``, ``scratch_bytes`` (/tmp), and ``output_bytes`` of what is handed over (/out);
    ``output_files`` is for files and folders in each of these two. Per process: ``address_bytes``,
    ``memory_bytes`` (private writable memory) and ``cpu_seconds`` once more, ``file_bytes`` (largest
    file), ``open_files``.
    """

    address_bytes: int
    memory_bytes: int
    processes: int
    cpu_seconds: int
    wall_seconds: int
    file_bytes: int
    open_files: int
    output_bytes: int
    output_files: int
    scratch_bytes: int


@dataclass(frozen=True)
class FetchLimits:
    """What one run of pip, which is in no sandbox, may use.

    ``memory_bytes`` (private writable memory), ``wall_seconds``, and ``file_bytes`` of one file that comes.
    """

    memory_bytes: int
    wall_seconds: int
    file_bytes: int


class Stage(NamedTuple):
    """What a run does. ``name`` is in flags and tables, ``doing`` ends a sentence on the package.

    ``limits`` are the defaults; a stage has those rows of the table that these have fields for.
    """

    name: str
    doing: str
    limits: Limits | FetchLimits

    @property
    def table(self) -> tuple[Limit, ...]:
        """The rows of the table that hold for the stage."""
        return tuple(limit for limit in TABLE if hasattr(self.limits, limit.field))


#: pip, for a batch of wheels. It reads a wheel's whole dist-info folder into memory, and three megabytes of a
#: wheel can be three gigabytes of that; measured: 72 MB for a batch of eight with 98 MB of wheels, which go
#: to disk as they come. The time is that of a 2 GB wheel on a slow line.
FETCH_LIMITS = FetchLimits(memory_bytes=GIB, wall_seconds=1800, file_bytes=4 * GIB)
FETCH = Stage("fetch", "fetched", FETCH_LIMITS)


#: Unpacking and compiling one wheel. PyPI's largest wheels (CUDA builds of PyTorch) unpack to about
#: 2 GiB with one file of 1.5 GiB; the widest trees (ansible, azure) have about 60,000 files, and as many
#: with bytecode; the compiler takes 1 GiB for the largest generated sources; processes are the
#: compiler's workers. /out lies in memory, so its size bounds memory too.
INSTALL_LIMITS = Limits(
    address_bytes=4 * GIB,
    memory_bytes=2 * GIB,
    processes=16,
    cpu_seconds=900,
    wall_seconds=900,
    file_bytes=3 * GIB,
    open_files=256,
    output_bytes=4 * GIB,
    output_files=200_000,
    scratch_bytes=64 * MIB,
)
INSTALL = Stage("install", "installed", INSTALL_LIMITS)

#: Importing one package. Libraries of 5 GiB are mapped by CUDA packages (address space, not data);
#: numerical libraries start a few threads; the slowest imports known take some 20 s of CPU.
TRACE_LIMITS = Limits(
    address_bytes=12 * GIB,
    memory_bytes=4 * GIB,
    processes=64,
    cpu_seconds=120,
    wall_seconds=120,
    file_bytes=64 * MIB,
    open_files=1024,
    output_bytes=16 * MIB,
    output_files=10_000,
    scratch_bytes=256 * MIB,
)
TRACE = Stage("trace", "imported", TRACE_LIMITS)

#: Building one source distribution: unpacked sources, an environment of build tools and the build tree
#: lie in /tmp. A compiler takes 1 to 2 GiB for the largest C++ sources, one a core; a build of scipy
#: takes some 30 minutes of CPU a core on two cores, and has 20,000 files.
BUILD_LIMITS = Limits(
    address_bytes=16 * GIB,
    memory_bytes=8 * GIB,
    processes=512,
    cpu_seconds=7200,
    wall_seconds=3600,
    file_bytes=3 * GIB,
    open_files=1024,
    output_bytes=4 * GIB,
    output_files=400_000,
    scratch_bytes=8 * GIB,
)
BUILD = Stage("build", "built", BUILD_LIMITS)

STAGES = (FETCH, INSTALL, TRACE, BUILD)


@dataclass(frozen=True)
class StageLimits:
    """The limits of each stage."""

    fetch: FetchLimits = FETCH_LIMITS
    install: Limits = INSTALL_LIMITS
    trace: Limits = TRACE_LIMITS
    build: Limits = BUILD_LIMITS

    @classmethod
    def of(cls, *given: Mapping[str, Mapping[str, int]]) -> StageLimits:
        """Return the defaults changed by ``given``: values by stage and name; what comes first wins."""
        chosen = [ChainMap(*(dict(one.get(stage.name, {})) for one in given)) for stage in STAGES]
        return cls(
            **{stage.name: _changed(stage, values) for stage, values in zip(STAGES, chosen, strict=True)}
        )


class Limit(NamedTuple):
    """One row of the table.

    ``field`` is the attribute of Limits, ``name`` the word in flags and tables, ``unit`` one of ``bytes``,
    ``seconds`` and ``number``; ``help`` says what it bounds, ``exceeded`` what a package did that passed
    it. ``signs`` are what programs print when it strikes: the texts of errno values, and Python's.
    """

    field: str
    name: str
    unit: str
    help: str
    exceeded: str
    signs: re.Pattern[str] | None = None


def _signs(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_FULL = r"Errno 28\]|No space left on device"
TABLE = (
    Limit(
        "memory_bytes",
        "memory",
        "bytes",
        "memory of the whole sandbox, and private writable memory of one process",
        "used more than {} of memory",
        _signs(r"MemoryError|Errno 12\]|Cannot allocate memory|bad_alloc|out of memory"),
    ),
    Limit(
        "address_bytes",
        "address-space",
        "bytes",
        "address space of one process, mapped files included",
        "used more than {} of address space",
    ),
    Limit(
        "cpu_seconds",
        "cpu-time",
        "seconds",
        "processor time of the whole sandbox",
        "took more than {} of processor time",
        _signs(r"SIGXCPU|CPU time limit exceeded"),
    ),
    Limit("wall_seconds", "wall-time", "seconds", "time that passes", "took longer than {}"),
    Limit(
        "processes",
        "processes",
        "number",
        "processes and threads",
        "had more than {} processes and threads",
        _signs(r"Errno 11\]|Resource temporarily unavailable|can't start new thread|Cannot fork"),
    ),
    Limit(
        "open_files",
        "open-files",
        "number",
        "open files of one process",
        "had more than {} open files",
        _signs(r"Errno 24\]|Too many open files"),
    ),
    Limit(
        "file_bytes",
        "largest-file",
        "bytes",
        "size of one file",
        "wrote a file of more than {}",
        _signs(r"Errno 27\]|File too large|File size limit exceeded|SIGXFSZ"),
    ),
    Limit(
        "output_bytes",
        "output",
        "bytes",
        "all that is handed over",
        "wrote more than {} of output",
        _signs(_FULL),
    ),
    Limit(
        "output_files",
        "files",
        "number",
        "files and folders of the output, and of temporary files",
        "made more than {} files and folders",
        _signs(_FULL),
    ),
    Limit(
        "scratch_bytes",
        "scratch",
        "bytes",
        "temporary files",
        "wrote more than {} of temporary files",
        _signs(_FULL),
    ),
)
_BY_FIELD = {limit.field: limit for limit in TABLE}
_BY_NAME = {limit.name: limit for limit in TABLE}
WALL_TIME = _BY_NAME["wall-time"]

_UNITS = {
    "bytes": {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "KIB": KIB, "MIB": MIB, "GIB": GIB},
    "seconds": {"": 1, "S": 1, "MIN": 60, "H": 3600},
    "number": {"": 1},
}
_EXAMPLES = {"bytes": "2GiB or 512MiB", "seconds": "90, 15min or 1h", "number": "200"}
#: Far beyond any machine, and far below what setrlimit(2) and tmpfs take.
_MOST = 1 << 50


def flag(stage: Stage, limit: Limit) -> str:
    """Return such as ``--install-memory``."""
    return f"--{stage.name}-{limit.name}"


def parse(limit: Limit, text: str) -> int:
    """Return a limit's value (bytes, seconds, a number) from such as ``2GiB``. Raises ConfigurationError."""
    return amount(limit.unit, text)


def amount(unit: str, text: str) -> int:
    """Return what a text says, in a unit (``bytes``, ``seconds``, ``number``). Raises ConfigurationError."""
    found = re.fullmatch(r"([0-9]{1,15})\s*([A-Za-z]*)", text.strip())
    factor = _UNITS[unit].get(found[2].upper()) if found else None
    value = int(found[1]) * factor if found and factor else 0
    if not 0 < value <= _MOST:
        raise ConfigurationError(f"{text!r} is no {unit}: write such as {_EXAMPLES[unit]}")
    return value


def show(limit: Limit, value: int) -> str:
    """Return a value as ``parse`` reads it, for people: ``2 GiB``, ``15 min``, ``200``."""
    if limit.unit == "number":
        return str(value)
    steps = (
        ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"), (1, "bytes"))
        if limit.unit == "bytes"
        else ((3600, "h"), (60, "min"), (1, "s"))
    )
    fitting = ((size, unit) for size, unit in steps if value >= size and value % size == 0)
    size, unit = next(fitting, steps[-1])
    return f"{value // size} {unit}"


def _changed(stage: Stage, given: Mapping[str, int]) -> Any:
    """Return a stage's limits with those in ``given`` (by name) instead of the defaults."""
    defaults: Any = stage.limits  # each kind has fields of its own
    return replace(defaults, **{_BY_NAME[name].field: value for name, value in given.items()})


def from_table(where: str, tables: object) -> dict[str, dict[str, int]]:
    """Return the limits by stage and name that a TOML table of tables has. Raises ConfigurationError.

    ``where`` is what an error begins with.
    """
    stages = {stage.name: stage for stage in STAGES}
    if not isinstance(tables, dict) or not tables.keys() <= stages.keys():
        raise ConfigurationError(f"{where}: there are tables for {', '.join(stages)}, and no others")
    return {name: _from_table(f"{where}.{name}", stages[name], table) for name, table in tables.items()}


def _from_table(where: str, stage: Stage, table: object) -> dict[str, int]:
    known = [limit.name for limit in stage.table]
    if not isinstance(table, dict) or not table.keys() <= set(known):
        raise ConfigurationError(f"{where}: there are the keys {', '.join(known)}, and no others")
    found = {}
    for name, value in table.items():
        if not isinstance(value, (int, str)) or isinstance(value, bool):
            raise ConfigurationError(f"{where}: {name} has to be a number, or such as '2GiB'")
        try:
            found[name] = parse(_BY_NAME[name], str(value))
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {name}: {error}") from None
    return found


def limited(limits: FetchLimits) -> list[str]:
    """Return a prefix that sets limits (setrlimit(2)) for a program outside of any sandbox."""
    return ["prlimit", f"--data={limits.memory_bytes}", f"--fsize={limits.file_bytes}", "--core=0", "--"]


def passed(field: str, limits: Limits | FetchLimits, stage: Stage, *, certain: bool = True) -> str:
    """Say that a package passed a limit: what it did, the value, and the flag."""
    limit = _BY_FIELD[field]
    did = limit.exceeded.format(show(limit, getattr(limits, field)))
    return f"{'' if certain else 'probably '}{did} while it was {stage.doing} ({flag(stage, limit)})"


def speaks(text: str, field: str) -> bool:
    """Whether a program's text is of what happens when a limit strikes."""
    signs = _BY_FIELD[field].signs
    return signs is not None and signs.search(text) is not None


def explain(finished: Finished, limits: Limits, stage: Stage) -> str:
    """Say which limit ended a run that failed, or "" if none seems to have.

    The kernel's own word counts first: what the guard stopped the run for, the time limit, the signals
    SIGXCPU and SIGXFSZ. Otherwise it is what the programs printed, weighed with what the guard
    saw them use; that is a guess, and said to be one unless both agree.
    """
    if finished.timed_out:
        return passed("wall_seconds", limits, stage)
    if finished.struck:
        return passed(finished.struck, limits, stage)
    if finished.returncode in _STATUSES:
        return passed(_STATUSES[finished.returncode], limits, stage)
    # A process that has used up its time is killed a second later, if SIGXCPU does not end it.
    if finished.seen.get("cpu_seconds", 0) >= limits.cpu_seconds:
        return passed("cpu_seconds", limits, stage)
    if finished.returncode in (-9, 137) and finished.seen.get("oom_kills"):
        less = f"--jobs or {flag(stage, _BY_FIELD['memory_bytes'])}"
        return f"was killed while it was {stage.doing}, since this machine ran out of memory: lower {less}"
    return suspect(finished.stderr.decode("utf-8", "replace")[-_TEXT:], limits, stage, finished.seen)


#: signal(7): SIGXCPU and SIGXFSZ, the same numbers on every machine that there are targets for.
_SIGNALS = {24: "cpu_seconds", 25: "file_bytes"}
#: As a process' status, as a shell tells it, and as Python's exit status for a child's (modulo 256).
_STATUSES = {
    status: field for number, field in _SIGNALS.items() for status in (-number, 128 + number, 256 - number)
}
#: Characters at the end of an error output that are looked at.
_TEXT = 4000
#: The part of a limit that a run must have been seen to use for the guess to be certain. The guard looks
#: ten times a second.
_NEAR = 0.8
#: Limits on what lies in a folder, and the part of them below which a folder is not what was full.
_FOLDERS, _NOTHING = ("output_bytes", "output_files", "scratch_bytes"), 0.05


def suspect(text: str, limits: Limits, stage: Stage, seen: Mapping[str, int]) -> str:
    """Say which limit an error's text speaks of, or "" if of none. ``seen`` is what was used, by field."""
    fields = [limit.field for limit in TABLE if speaks(text, limit.field)]
    if not fields:
        return ""
    if fields[0] == "memory_bytes":
        return _of_memory(limits, stage, seen)
    part = {field: seen.get(field, 0) / getattr(limits, field) for field in fields}
    field = max(fields, key=lambda one: part[one])
    if field in _FOLDERS and field in seen and part[field] < _NOTHING:
        return ""  # /dev/shm, say: its size is nobody's to choose
    return passed(field, limits, stage, certain=part[field] >= _NEAR)


def _of_memory(limits: Limits, stage: Stage, seen: Mapping[str, int]) -> str:
    """Say which of the two limits it was for which there was no more memory (both are ENOMEM)."""
    memory = max(seen.get("memory_bytes", 0), seen.get("data_bytes", 0)) / limits.memory_bytes
    address = seen.get("address_bytes", 0) / limits.address_bytes
    if max(memory, address) < _HALF:  # one piece that was too large is never seen
        limit = _BY_FIELD["address_bytes"]
        other = f"{show(limit, limits.address_bytes)} of address space ({flag(stage, limit)})"
        return f"{passed('memory_bytes', limits, stage, certain=False)}, or more than {other}"
    field = "memory_bytes" if memory >= address else "address_bytes"
    return passed(field, limits, stage, certain=max(memory, address) >= _NEAR)


#: Below this part of a limit, what was seen says nothing.
_HALF = 0.5
