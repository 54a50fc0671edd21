"""Yanking: ``status.json``, changed by conditional replacement, and what publishing makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format import keys
from cloudimport.format.requirements import Requirement
from cloudimport.format.status import Status, check_reason
from cloudimport.ids import Pin
from shelf_tools.store import Store

#: Racing curators take turns; each round one of them wins.
_ROUNDS = 100


class YankedPinsError(CloudImportError):
    """Pins that are to be published were yanked; one line each."""


def read_status(store: Store) -> Status:
    """Return the shelf's status; of a shelf without one, that nothing is yanked.

    Raises a FetchError, and FormatError for one of a newer format.
    """
    return _read(store)[0]


def _read(store: Store) -> tuple[Status, str | None]:
    """Return the status and its object's version (None: there is no such object)."""
    found = store.read_versioned(keys.STATUS)
    if found is None:
        return Status.empty(), None
    return Status.decode(found[0], f"{store.url}/{keys.STATUS}"), found[1]


def yank(store: Store, pin: Pin, reason: str) -> str:
    """Mark a pin as yanked; return the reason that it had before, or "".

    Raises ConfigurationError for a reason that is none and for a pin that is not on the shelf.
    """
    reason = check_reason(reason)
    prefix = keys.build_prefix(pin.name, pin.version, "")[:-1]
    if not any(key.endswith("/build.json") for key in store.list(prefix)):
        raise ConfigurationError(f"{pin} is not on {store.url}: 'shelf ls' lists what is")
    return _change(store, pin, reason)


def unyank(store: Store, pin: Pin) -> str:
    """Take the mark off again; return the reason that it had. Raises ConfigurationError if it had none."""
    reason = _change(store, pin, "")
    if not reason:
        raise ConfigurationError(f"{pin} is not yanked on {store.url}: 'shelf yank' lists what is")
    return reason


def _change(store: Store, pin: Pin, reason: str) -> str:
    """Set a pin's reason, or take it away (""); return the one that it had. What others change is kept."""
    for _ in range(_ROUNDS):
        status, version = _read(store)
        before = status.yanked.get(pin, "")
        if before == reason:
            return before
        rest = {other: why for other, why in status.yanked.items() if other != pin}
        changed = status._replace(yanked={**rest, pin: reason} if reason else rest)
        if store.replace(keys.STATUS, changed.encode(), version):
            return before
    raise ConfigurationError(f"{store.url}/{keys.STATUS} kept changing while it was written: try again")


def refuse_yanked(
    store: Store, requirements: Iterable[Requirement], allowed: bool, note: Callable[[str], None]
) -> None:
    """Raise YankedPinsError if requirements are of yanked pins; if they are ``allowed``, note it instead."""
    yanked = read_status(store).yanked
    lines = [f"{r.where}: {r.pin} is yanked: {yanked[r.pin]}" for r in requirements if r.pin in yanked]
    lines = list(dict.fromkeys(lines))
    if lines and not allowed:
        lines[-1] += "; take another version, or publish it all the same with --allow-yanked"
        raise YankedPinsError("\n".join(lines))
    for line in lines:
        note(line)
