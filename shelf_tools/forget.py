"""``shelf forget``: environments that nobody is to find any more, so that a collection can take them.

Who has a lockfile of a forgotten index goes on until the collection, and then cannot start with an empty
cache. So an index that was replaced stays unless that is asked for: nobody knows whose lockfile pins it,
whereas the newest is what the curator has in hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format import keys
from cloudimport.format.lock import Lock
from cloudimport.format.records import EnvironmentPointer, canonical, parse, requirements_digest
from shelf_tools import pins
from shelf_tools.environments import read_lock
from shelf_tools.store import Store

#: Racing writers of one environment take turns; each round one of them wins.
_ROUNDS = 50
#: So many digits of a digest name it.
_DIGITS = 8


class Wanted(NamedTuple):
    """What to forget: an environment, by the digits that its requirements digest or one of its indexes has
    at the beginning.

    ``indexes``: these only; None: those of now. ``targets``: of these only, if there are any. ``history``:
    the replaced ones too.
    """

    digits: str
    indexes: frozenset[str] | None
    targets: frozenset[str]
    history: bool


class Forgotten(NamedTuple):
    """Of one environment: how many indexes were forgotten, and how many it still has, of now and replaced."""

    digest: str
    requirements: tuple[str, ...]
    indexes: int
    current: int
    replaced: int


def read_wanted(named: str, targets: Iterable[str], history: bool) -> tuple[Wanted, Lock | None]:
    """Return what ``named`` means: a lockfile, a requirements file, or digits; and the lockfile.

    Raises ConfigurationError.
    """
    path, only = Path(named), frozenset(targets)
    if path.is_file():
        with open(path, "rb") as stream:
            is_lock = stream.read(64).lstrip().startswith(b"{")
        if is_lock:
            locked = read_lock(path)
            indexes = frozenset(ref.digest for ref in locked.targets.values())
            return Wanted(requirements_digest(locked.requirements), indexes, only, history), locked
        listed = pins.read_pins(path)
        return Wanted(requirements_digest(one.line for one in listed), None, only, history), None
    if len(named) < _DIGITS or len(named) > 64 or set(named) - set("0123456789abcdef"):
        raise ConfigurationError(
            f"{named!r} is neither a lockfile, nor a requirements file, nor {_DIGITS} digits or more of a "
            "digest: 'shelf ls --envs' shows them"
        )
    return Wanted(named, None, only, history), None


def forget(store: Store, wanted: Wanted) -> Forgotten:
    """Take an environment's indexes, or some of them, out of its pointer.

    Raises ConfigurationError if there is none, or several, and a FetchError.
    """
    key, indexes = _find(store, wanted)
    for _ in range(_ROUNDS):
        found = store.read_versioned(key)
        if found is None:
            break
        what = f"{store.url}/{key}"
        try:
            record, pointer = parse(found[0], "environment", what), EnvironmentPointer.decode(found[0], what)
        except FormatError:  # nobody can tell what it leads to, and nobody can write to it
            store.delete(key)
            return Forgotten(key[5:-5], (), 0, 0, 0)
        gone = _forget(record, pointer, wanted, indexes)
        if not gone:
            break
        if store.replace(key, canonical(record), found[1]):
            left = EnvironmentPointer.decode(canonical(record), what)
            replaced = sum(map(len, left.history.values()))
            return Forgotten(key[5:-5], pointer.requirements, gone, len(left.targets), replaced)
    else:
        raise ConfigurationError(f"{store.url}/{key} kept changing: try again")
    raise ConfigurationError(f"{store.url}: the environment has nothing of that kind to forget")


def _find(store: Store, wanted: Wanted) -> tuple[str, frozenset[str] | None]:
    """Return the pointer's key, and which of its indexes. Raises ConfigurationError."""
    if wanted.indexes is not None or len(wanted.digits) == 64:
        key = keys.environment_pointer(wanted.digits)
        if store.read_versioned(key) is not None:
            return key, wanted.indexes
    names = sorted(store.list("envs/"))
    found = [key for key in names if key.startswith(f"envs/{wanted.digits}") and key.endswith(".json")]
    inside: dict[str, set[str]] = {}
    for key in names if not found else ():
        for digest in _indexes(store, key) if key.endswith(".json") else ():
            if digest.startswith(wanted.digits):
                inside.setdefault(key, set()).add(digest)
    if len(found) + len(inside) > 1 or any(len(digests) > 1 for digests in inside.values()):
        raise ConfigurationError(f"{store.url}: {wanted.digits} is not one environment: give more digits")
    if found:
        return found[0], None
    for key, digests in inside.items():
        return key, frozenset(digests)
    raise ConfigurationError(
        f"{store.url} has no environment {wanted.digits[:12]}: 'shelf ls --envs' shows those that it has"
    )


def _indexes(store: Store, key: str) -> Iterable[str]:
    found = store.read_versioned(key)
    if found is None:
        return ()
    try:
        pointer = EnvironmentPointer.decode(found[0], key)
    except FormatError:
        return ()
    old = (ref for refs in pointer.history.values() for ref in refs)
    return [ref.digest for ref in (*pointer.targets.values(), *old)]


def _forget(
    record: dict[str, Any], pointer: EnvironmentPointer, wanted: Wanted, indexes: frozenset[str] | None
) -> int:
    """Change a pointer's record, keeping what else it says; return how many indexes it has no more."""
    gone, kept = 0, dict(record.get("kept", {}))
    for target in sorted({*pointer.targets, *pointer.history}):
        if wanted.targets and target not in wanted.targets:
            continue
        current, old = pointer.targets.get(target), pointer.history.get(target, ())
        goes = current is not None and (indexes is None or current.digest in indexes)
        stay = [ref for ref in old if not wanted.history and ref.digest not in (indexes or ())]
        gone += goes + len(old) - len(stay)
        _set(record["targets"], kept, target, stay, goes or current is None)
    record["kept"] = kept
    if not kept:
        del record["kept"]
    return gone


def _set(rows: dict[str, Any], kept: dict[str, Any], target: str, stay: list[Any], without: bool) -> None:
    """Give a target the history ``stay``; ``without``: and no index of now."""
    kept.pop(target, None)
    if without:
        rows.pop(target, None)
        if stay:
            kept[target] = stay
    else:
        rows[target]["history"] = stay
