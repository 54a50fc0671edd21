"""``shelf mirror``: what lockfiles need, copied to a folder of this host that its sandboxes read.

A sandbox with ``CLOUDIMPORT_SHARED`` set to that folder takes from it what it would fetch. It checks
every byte, so the folder need not be trusted; that nobody but its owner writes to it keeps it useful.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import CorruptError, FormatError
from cloudimport.format import codec, keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import Lock
from cloudimport.format.records import Ref, sha256
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.environments import read_lock

#: Objects that are copied at a time, and bytes that are read at a time of one.
_READERS, _PIECE = 8, 16 << 20


class Mirrored(NamedTuple):
    """How many objects a mirror has for the lockfiles, how many were copied now, and their bytes."""

    objects: int
    copied: int
    size: int


class Wanted(NamedTuple):
    """An object that a lockfile needs: where from, its size in bytes (-1: not known) and digest.

    ``data`` are its bytes if they were read and checked already, as those of an index are.
    """

    source: Source
    key: str
    size: int
    digest: str = ""
    data: bytes | None = None


def mirror(
    locks: Sequence[Path],
    folder: Path,
    shelf: str,
    environ: Mapping[str, str],
    on_start: Callable[[int], None],
    on_done: Callable[[str], None],
) -> Mirrored:
    """Copy to ``folder`` what the lockfiles name: indexes, packs and boot images, for all their targets.

    ``shelf`` is where a lock says none; ``on_start`` hears how many objects are missing, ``on_done`` of
    each that is copied. What is there, and whole, is not copied again; an object appears whole, and checked,
    or not at all. Raises ConfigurationError, a FetchError, FormatError or OSError.
    """
    sources: dict[str, Source] = {}
    try:
        wanted: dict[str, Wanted] = {}
        for path in locks:
            locked = read_lock(path)
            url = locked.shelf or shelf
            source = sources.setdefault(url, open_source(url, SourceConfig(environ=environ)))
            wanted.update((one.key, one) for one in needed(source, locked, locked.targets))
        return fill(folder, list(wanted.values()), on_start, on_done)
    finally:
        for source in sources.values():
            source.close()


def fill(
    folder: Path, wanted: Sequence[Wanted], on_start: Callable[[int], None], on_done: Callable[[str], None]
) -> Mirrored:
    """Copy objects to ``folder`` that are not there, or not whole. As ``mirror`` says; raises the same."""
    with ThreadPoolExecutor(_READERS) as pool:
        there = pool.map(lambda one: _is_there(folder, one), wanted)
        missing = [one for one, is_there in zip(wanted, there, strict=True) if not is_there]
        on_start(len(missing))
        sizes = []
        for one, size in zip(missing, pool.map(lambda one: _copy(folder, one), missing), strict=True):
            on_done(keys.package_of(one.key) or one.key)
            sizes.append(size)
    return Mirrored(len(wanted), len(missing), sum(sizes))


def needed(
    source: Source, locked: Lock, targets: Iterable[str], have: Path | None = None
) -> Iterator[Wanted]:
    """Yield what a lockfile needs for some of its targets: indexes, boot images and packs.

    An index that is whole in the folder ``have`` is read from there. Raises a FetchError or FormatError.
    """
    for target in targets:
        ref = locked.targets[target]
        key = keys.environment_index(ref.digest)
        data = _index(have, key, ref) or source.read(key)
        plain = codec.decompress(data, ref.size)
        _check(Wanted(source, key, ref.stored, ref.digest), sha256(plain))
        yield Wanted(source, key, len(data), data=data)
        for part in locked.boots.get(target, ()):
            yield Wanted(source, part.key(target), -1, part.digest)
        yield from packs(source, EnvironmentIndex(plain, ref))


def packs(source: Source, index: EnvironmentIndex) -> Iterator[Wanted]:
    """Yield the packs that an index leads to."""
    for number in range(len(index.builds)):
        for pack, size in index.section(number).packs:
            yield Wanted(source, pack, size, pack.rpartition("-")[2])


def _index(have: Path | None, key: str, ref: Ref) -> bytes | None:
    """Return an index as it is stored, from a folder, if it is there and whole."""
    if have is None:
        return None
    try:
        with open(have / key, "rb") as file:
            data = file.read(ref.stored + 1)
        return data if sha256(codec.decompress(data, ref.size)) == ref.digest else None
    except (OSError, FormatError):
        return None


def _check(one: Wanted, actual: str) -> None:
    if actual != one.digest:
        raise CorruptError(
            f"{one.source.url}/{one.key} is damaged: expected sha256 {one.digest}, got {actual}",
            key=one.key,
            package=keys.package_of(one.key),
            expected=one.digest,
            actual=actual,
        )


def _is_there(folder: Path, one: Wanted) -> bool:
    """Whether an object is there with the bytes that it is to have."""
    try:
        with open(folder / one.key, "rb") as file:
            if one.data is not None:
                return file.read(len(one.data) + 1) == one.data
            digest = hashlib.sha256()
            while piece := file.read(_PIECE):
                digest.update(piece)
    except OSError:
        return False
    return digest.hexdigest() == one.digest


def make_folders(folder: Path, key: str) -> None:
    """Make the folders of an object, for everybody to read, whatever the umask."""
    for part in reversed(Path(key).parents):
        made = folder / part
        try:
            made.mkdir(parents=True)
        except FileExistsError:
            continue
        made.chmod(0o755)


def _copy(folder: Path, one: Wanted) -> int:
    """Copy an object; return its size in bytes."""
    target = folder / one.key
    make_folders(folder, one.key)
    temporary = target.with_name(f".tmp-{secrets.token_hex(8)}")
    digest, size = hashlib.sha256(), 0
    try:
        with open(temporary, "xb") as file:
            for piece in _pieces(one):
                file.write(piece)
                digest.update(piece)
                size += len(piece)
        if one.data is None:
            _check(one, digest.hexdigest())
        temporary.chmod(0o644)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return size


def _pieces(one: Wanted) -> Iterator[bytes]:
    if one.data is not None:
        yield one.data
    elif one.size < 0:
        yield one.source.read(one.key)
    else:
        for at in range(0, one.size, _PIECE):
            yield one.source.read(one.key, at, min(_PIECE, one.size - at))
