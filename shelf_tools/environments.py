"""Environments on a shelf: the index, its pointer, the lockfile, and their checks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from cloudimport.errors import CloudImportError, ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.lock import BootRange, Lock
from cloudimport.format.records import EnvironmentPointer, Ref, canonical, parse, requirements_digest
from cloudimport.format.status import Status
from cloudimport.ids import Target
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools.builds import write_record
from shelf_tools.indexing import Built, build_index
from shelf_tools.store import Store
from shelf_tools.swap import write_file

#: Racing publishers of one environment take turns; each round one of them wins.
_ROUNDS = 50


def open_shelf(store: Store) -> None:
    """Create the shelf's own records if there are none. Raises FormatError for a newer shelf."""
    found = store.read_versioned(keys.SHELF)
    if found is None:
        store.create(keys.STATUS, Status.empty().encode())
        store.create(keys.SHELF, canonical({"format": 1, "kind": "shelf", "access": "package"}))
        found = store.read_versioned(keys.SHELF)
    if found is not None:
        parse(found[0], "shelf", f"{store.url}/{keys.SHELF}")


def publish_environment(
    store: Store,
    source: Source,
    lines: Sequence[str],
    target: Target,
    builds: Iterable[Built],
    warn: Callable[[str], None],
) -> Ref:
    """Write an environment's index and then point to it; return the index's reference.

    Raises a FetchError, and FormatError if what is there is of a newer format.
    """
    data = build_index(builds, sorted(set(lines)), target, warn)
    ref = write_record(store, keys.environment_index(""), data)
    EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    key = keys.environment_pointer(requirements_digest(lines))
    for _ in range(_ROUNDS):
        found = store.read_versioned(key)
        if found is None:
            pointer, version = EnvironmentPointer(tuple(sorted(set(lines))), {}, {}), None
        else:
            pointer, version = EnvironmentPointer.decode(found[0], f"{store.url}/{key}"), found[1]
        if pointer.targets.get(str(target)) == ref:
            return ref
        if store.replace(key, pointer.merged(str(target), ref).encode(), version):
            return ref
    raise ConfigurationError(f"{store.url}/{key} kept changing while it was written: try again")


def write_lock(path: Path, shelf: str, lines: Sequence[str], targets: dict[str, Ref]) -> None:
    """Write the lockfile; targets that it has for the same requirements are kept, and boot images of indexes
    that stay the same. Raises OSError.
    """
    lines = sorted(set(lines))
    kept: dict[str, Ref] = {}
    boots: dict[str, tuple[BootRange, ...]] = {}
    try:
        old = Lock.decode(path.read_text(encoding="utf-8"), str(path))
        if list(old.requirements) == lines and old.shelf == shelf:
            kept = old.targets
            boots = {
                target: boot
                for target, boot in old.boots.items()
                if targets.get(target, kept[target]) == kept[target]
            }
    except (OSError, UnicodeDecodeError, ConfigurationError):
        pass  # absent, or of another list: it is made anew
    replace_lock(path, Lock(shelf, tuple(lines), {**kept, **targets}, boots))


def read_lock(path: Path) -> Lock:
    """Return the lockfile at ``path``. Raises ConfigurationError."""
    try:
        return Lock.decode(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def replace_lock(path: Path, lock: Lock) -> None:
    """Write a lockfile in place of what is there. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lock.encode())


def verify_environments(store: Store, source: Source) -> list[str]:
    """Return a line for each thing that is wrong with the shelf's environments."""
    problems: list[str] = []
    for key in sorted(store.list("envs/")):
        if not key.endswith(".json"):
            continue
        try:
            pointer = EnvironmentPointer.decode(source.read(key), f"{source.url}/{key}")
            if keys.environment_pointer(requirements_digest(pointer.requirements)) != key:
                raise FormatError(f"{source.url}/{key} is for other requirements than its name says")
            for target, ref in pointer.targets.items():
                _check_index(source, target, ref)
        except CloudImportError as error:
            problems.append(str(error))
    return problems


def _check_index(source: Source, target: str, ref: Ref) -> None:
    key = keys.environment_index(ref.digest)
    index = EnvironmentIndex(read_record(source, key, ref), ref)
    if index.target != target:
        raise FormatError(f"{source.url}/{key} is for {index.target}, not for {target}")
    for number in range(len(index.builds)):
        section = index.section(number)
        for block in range(section.block_count):
            section.block(block)
        for file in range(len(section.paths)):
            section.pieces(section.extents[file])
        section.folder("")
