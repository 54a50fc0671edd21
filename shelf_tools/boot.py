"""``shelf boot``: the blocks that a handler needed, copied together in the order in which it needed them.

One part a package, under that package's own prefix: who may not read a package does not get it this way
either. The lockfile says where the parts lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import ConfigurationError, CorruptError, FormatError
from cloudimport.fetch.engine import check
from cloudimport.fetch.plan import range_size
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex, Section
from cloudimport.format.lock import BootRange, Lock
from cloudimport.format.records import MALFORMED, integer, parse, sha256, text
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.record import read_record
from shelf_tools.environments import replace_lock
from shelf_tools.store import Store, open_store

#: Blocks that are read at a time.
_READERS = 8


class Trace(NamedTuple):
    """What a run needed (``CLOUDIMPORT_TRACE``): blocks as (name, version, number), in order."""

    environment: str
    target: str
    blocks: tuple[tuple[str, str, int], ...]

    @classmethod
    def read(cls, path: Path) -> Trace:
        """Return the trace in a file. Raises ConfigurationError."""
        try:
            record = parse(path.read_bytes(), "trace", str(path))
            rows = tuple((text(name), text(version), integer(n)) for name, version, n in record["blocks"])
            return cls(text(record["index"]), text(record["target"]), tuple(dict.fromkeys(rows)))
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
        except (FormatError, *MALFORMED) as error:
            raise ConfigurationError(
                f"{path} is not a trace ({error}): make one with 'shelf trace' or CLOUDIMPORT_TRACE"
            ) from None


class Made(NamedTuple):
    """A boot image: its parts, how many reads it takes, and its bytes."""

    parts: int
    ranges: int
    size: int


def publish_boot(trace: Trace, lock: Path, shelf: str, environ: Mapping[str, str]) -> Made:
    """Write a boot image for one target of a lockfile, and put it there.

    ``shelf`` is where the lock says none. Raises ConfigurationError if the trace is of another environment,
    a FetchError or FormatError.
    """
    try:
        locked = Lock.decode(lock.read_text(encoding="utf-8"), str(lock))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{lock} cannot be read: {error}") from None
    ref = locked.targets.get(trace.target)
    if ref is None or ref.digest != trace.environment:
        raise ConfigurationError(
            f"the trace is of environment {trace.environment[:12]} for {trace.target}, which {lock} "
            "does not have: trace with this lockfile"
        )
    url = locked.shelf or shelf
    source = open_source(url, SourceConfig(environ=environ))
    try:
        index = EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
        ranges = _write(open_store(url, environ), source, index, trace)
    finally:
        source.close()
    replace_lock(lock, locked._replace(boots={**locked.boots, trace.target: ranges}))
    return Made(len({row.digest for row in ranges}), len(ranges), sum(row.length for row in ranges))


def _write(store: Store, source: Source, index: EnvironmentIndex, trace: Trace) -> tuple[BootRange, ...]:
    """Write the parts; return the reads in the order in which their first blocks are needed."""
    numbers = {build.pin: number for number, build in enumerate(index.builds)}
    needed: dict[tuple[str, str], list[int]] = {}
    position: dict[tuple[str, str, int], int] = {}
    for at, (name, version, block) in enumerate(trace.blocks):
        needed.setdefault((name, version), []).append(block)
        position[name, version, block] = at
    unknown = [f"{name}=={version}" for name, version in needed if (name, version) not in numbers]
    if unknown:
        raise ConfigurationError(f"the trace names {unknown[0]}, which its environment does not have")
    parts = {index.section(numbers[pin]): blocks for pin, blocks in needed.items()}  # type: ignore[index]
    ranges: list[BootRange] = []
    for section, blocks in parts.items():
        before = sum(row.length for row in ranges)
        ranges += _write_part(store, source, section, index.target, blocks, before)
    return tuple(sorted(ranges, key=lambda row: position[row.name, row.version, row.runs[0]]))


def _write_part(
    store: Store, source: Source, section: Section, target: str, blocks: Sequence[int], before: int
) -> Iterator[BootRange]:
    """Copy a package's blocks together; yield the reads that bring them, after others of ``before`` bytes."""
    refs = [section.block(number) for number in blocks]
    with ThreadPoolExecutor(_READERS) as pool:
        frames = list(pool.map(lambda ref: source.read(ref.key, ref.offset, ref.length), refs))
    for ref, frame in zip(refs, frames, strict=True):
        check(ref, frame)
    data = b"".join(frames)
    name, version = section.pin
    part = BootRange(name, version, sha256(data), 0, len(data), ())
    store.put(part.key(target), data)
    if sha256(source.read(part.key(target))) != part.digest:
        raise CorruptError(f"{source.url}/{part.key(target)} does not read back as it was written")
    start, first = 0, 0
    for end in range(1, len(blocks) + 1):
        length = sum(map(len, frames[first:end]))
        if end == len(blocks) or length + len(frames[end]) > range_size(before + start):
            yield part._replace(start=start, length=length, runs=_runs(blocks[first:end]))
            start, first = start + length, end


def _runs(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return numbers as runs: first number and count, flattened."""
    runs: list[int] = []
    for number in numbers:
        if runs and number == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += (number, 1)
    return tuple(runs)
