"""``shelf boot``: the blocks that a handler needed, copied together in the order in which it needed them.

One part a package, under that package's own prefix: who may not read a package does not get it this way
either. The lockfile says where the parts lie.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import ConfigurationError, CorruptError, FormatError
from cloudimport.fetch.engine import check
from cloudimport.fetch.plan import leads, range_size
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex, Section
from cloudimport.format.lock import BootRange
from cloudimport.format.records import MALFORMED, integer, parse, sha256, text
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from cloudimport.sources.record import read_record
from shelf_tools.environments import check_lock, read_lock, replace_lock
from shelf_tools.signing import Signer
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


def publish_boot(
    trace: Trace, lock: Path, shelf: str, environ: Mapping[str, str], signers: Sequence[Signer] = ()
) -> Made:
    """Write a boot image for one target of a lockfile, and put it there.

    ``shelf`` is where the lock says none. Raises ConfigurationError if the trace is of another environment,
    or the lock is signed and none of ``signers`` has one of its keys, a FetchError or FormatError.
    """
    locked = read_lock(lock)
    check_lock(lock, signers)
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
    replace_lock(lock, locked._replace(boots={**locked.boots, trace.target: ranges}), signers)
    return Made(len({row.digest for row in ranges}), len(ranges), sum(row.length for row in ranges))


def _write(store: Store, source: Source, index: EnvironmentIndex, trace: Trace) -> tuple[BootRange, ...]:
    """Write the parts; return the reads in the order in which their first blocks are needed."""
    numbers = {build.pin: number for number, build in enumerate(index.builds)}
    unknown = [f"{name}=={version}" for name, version, _ in trace.blocks if (name, version) not in numbers]
    if unknown:
        raise ConfigurationError(f"the trace names {unknown[0]}, which its environment does not have")
    blocks = [(index.section(numbers[name, version]), block) for name, version, block in trace.blocks]  # type: ignore[index]
    reads = _divide([(section, block, section.block(block).length) for section, block in blocks])
    digests = {}
    for section in {section: None for section, _ in reads}:
        own = [block for other, run in reads if other is section for block in run]
        digests[section] = _write_part(store, source, section, index.target, own)
    starts = dict.fromkeys(digests, 0)
    ranges = []
    for section, run in reads:
        length = sum(section.block(block).length for block in run)
        ranges.append(BootRange(*section.pin, digests[section], starts[section], length, _runs(run)))
        starts[section] += length
    return tuple(ranges)


def _divide(blocks: Sequence[tuple[Section, int, int]]) -> list[tuple[Section, list[int]]]:
    """Return the reads that bring blocks (section, number, bytes), which are needed in this order."""
    wanted: Counter[Section] = Counter()
    for section, _, length in blocks:
        wanted[section] += length
    reads: list[tuple[Section, list[int]]] = []
    latest: dict[Section, list[int]] = {}
    room: dict[Section, int] = {}
    before = 0
    for section, block, length in blocks:
        if section not in latest or length > room[section]:
            alone = section not in latest and leads(wanted[section])
            latest[section], room[section] = [], 0 if alone else range_size(before)
            reads.append((section, latest[section]))
        latest[section].append(block)
        room[section] -= length
        before += length
    return reads


def _write_part(store: Store, source: Source, section: Section, target: str, blocks: Sequence[int]) -> str:
    """Copy a package's blocks together, as they are needed; return the digest of that."""
    refs = [section.block(number) for number in blocks]
    with ThreadPoolExecutor(_READERS) as pool:
        frames = list(pool.map(lambda ref: source.read(ref.key, ref.offset, ref.length), refs))
    for ref, frame in zip(refs, frames, strict=True):
        check(ref, frame)
    data = b"".join(frames)
    part = BootRange(*section.pin, sha256(data), 0, len(data), ())
    store.put(part.key(target), data)
    if sha256(source.read(part.key(target))) != part.digest:
        raise CorruptError(f"{source.url}/{part.key(target)} does not read back as it was written")
    return part.digest


def _runs(numbers: Sequence[int]) -> tuple[int, ...]:
    """Return numbers as runs: first number and count, flattened."""
    runs: list[int] = []
    for number in numbers:
        if runs and number == runs[-2] + runs[-1]:
            runs[-1] += 1
        else:
            runs += (number, 1)
    return tuple(runs)
