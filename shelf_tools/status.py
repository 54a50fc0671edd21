"""Yanking: ``status.json``, changed by conditional replacement, and what publishing makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cloudimport.errors import CloudImportError, ConfigurationError, DeniedError, FormatError
from cloudimport.format import keys
from cloudimport.format.requirements import Requirement
from cloudimport.format.status import Status, check_reason
from cloudimport.ids import Pin
from shelf_tools.store import Store

#: Racing curators take turns; each round one of them wins.
_ROUNDS = 100
#: Bytes of a pointer, at the most (docs/format.md, section 2).
_MOST = 4 << 20
#: Seconds since 1970, at the most: what is larger is no date (2^35 is in the year 3058).
_LAST = 1 << 35


class Mark(NamedTuple):
    """Why a pin is yanked, and since when: seconds since 1970, None if the shelf does not say."""

    reason: str
    since: int | None

    def record(self) -> dict[str, Any]:
        """Return it for JSON."""
        return self._asdict()


class YankedPinsError(CloudImportError):
    """Pins that are to be published were yanked; one line each."""


def read_status(store: Store) -> Status:
    """Return the shelf's status; of a shelf without one, that nothing is yanked.

    Raises a FetchError, and FormatError for one of a newer format.
    """
    return _read(store)[0]


def marks(status: Status) -> dict[Pin, Mark]:
    """Return the yanked pins of a status with their marks."""
    return {pin: Mark(reason, _since(status.record, pin)) for pin, reason in status.yanked.items()}


def _since(record: Mapping[str, Any], pin: Pin) -> int | None:
    """Return when a pin was yanked, as far as it says so: nothing depends on it."""
    rows = record.get("since")
    row = rows.get(pin.name) if isinstance(rows, dict) else None
    when = row.get(pin.version) if isinstance(row, dict) else None
    return when if type(when) is int and 0 <= when < _LAST else None


def read_marks(store: Store, complain: Callable[[str], None]) -> dict[Pin, Mark]:
    """Return what is yanked; where that cannot be known since the status is damaged or denied, nothing, and
    complain in a line. Raises another FetchError.
    """
    try:
        return marks(read_status(store))
    except (FormatError, DeniedError) as error:
        complain(f"which pins are yanked is not known: {error}")
        return {}


def verify_status(store: Store) -> list[str]:
    """Return a line if the shelf's status cannot be read. Raises a FetchError if it cannot be fetched.

    No digest says what it has to be, so nothing else can be checked of it, and it cannot be repaired.
    """
    try:
        found = store.read_versioned(keys.STATUS)
        if found is not None and len(found[0]) > _MOST:
            raise FormatError(f"{store.url}/{keys.STATUS} is larger than a pointer can be")
        read_status(store)
    except FormatError as error:
        advice = "if it is damaged, remove it and yank them again ('shelf yank')"
        return [f"{error}; until it can be read nobody hears of yanked pins: {advice}"]
    return []


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
        since = marks(status)[pin].since if before else int(time.time())
        mark = Mark(reason, since) if reason else None
        if store.replace(keys.STATUS, _changed(status, {pin: mark}).encode(), version):
            return before
    raise _kept_changing(store)


def _changed(status: Status, new: Mapping[Pin, Mark | None]) -> Status:
    """Return a status with other marks for some pins (None: no mark); whatever else it says stays."""
    found = {pin: mark for pin, mark in {**marks(status), **new}.items() if mark}
    since: dict[str, dict[str, int]] = {}
    for pin, mark in found.items():
        if mark.since is not None:
            since.setdefault(pin.name, {})[pin.version] = mark.since
    left = {name: value for name, value in status.record.items() if name != "since"}
    reasons = {pin: mark.reason for pin, mark in found.items()}
    return Status(reasons, {**left, "since": since} if since else left)


def carry_over(store: Store, found: Mapping[Pin, Mark]) -> None:
    """Mark pins as yanked that are not yet, in one write: what a shelf says already is kept.

    Raises a FetchError, FormatError, and ConfigurationError if others keep changing it.
    """
    for _ in range(_ROUNDS):
        status, version = _read(store)
        new = {pin: mark for pin, mark in found.items() if pin not in status.yanked}
        if not new or store.replace(keys.STATUS, _changed(status, new).encode(), version):
            return
    raise _kept_changing(store)


def _kept_changing(store: Store) -> ConfigurationError:
    return ConfigurationError(f"{store.url}/{keys.STATUS} kept changing while it was written: try again")


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
