"""Writers and collections beside one another: announcements, and a flag (docs/format.md, section 11).

A writer puts a lease, then looks at the flag, and waits while it is up. A collection raises the flag, then
reads the leases. Whatever the timing, one of the two sees the other: either the collection knows what the
writer needs, or the writer begins when the collection is through.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from cloudimport.errors import CloudImportError, ConfigurationError, FetchError, FormatError
from cloudimport.format import keys
from cloudimport.format.records import FORMAT, MALFORMED, canonical, identity, parse, text, texts
from cloudimport.ids import Pin
from shelf_tools.store import Entry, Store

#: Seconds. How long a lease is honoured after it was written; a publish ends or writes it again before.
LEASE = 24 * 3600.0
#: Seconds after which a writer puts its lease again, and after which it may no longer rely on it.
_RENEWED, _RELIED = 3600.0, 23 * 3600.0
#: Seconds. A collection shows every _BEAT that it lives, and deletes nothing when it could not for _LATE.
#: Whoever sees no sign of life for _DEAD takes its flag down. Between the two lies the longest that a
#: request may be under way: boto3 tries five times with a timeout of 60 s, and waits up to 20 s between.
_BEAT, _LATE, _DEAD = 30.0, 120.0, 600.0
#: Seconds between two looks at the flag.
_LOOK = 0.25

Build = tuple[Pin, str]
Say = Callable[[str], None]


def _clock() -> float:
    """Return seconds that also pass while the machine sleeps: for those whose promises others count on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _silent(_: str) -> None:
    return


class LostTurnError(CloudImportError):
    """A collection could not show in time that it lives: it stops, nothing wrong was deleted."""


class Lease:
    """An announcement on a shelf: a writer will refer to these builds and change these environments."""

    def __init__(self, store: Store, builds: Iterable[Build], environments: Iterable[str]) -> None:
        """Write nothing yet. ``environments`` are requirements digests."""
        rows = sorted([pin.name, pin.version, target] for pin, target in builds)
        record = {"builds": rows, "environments": sorted(environments), "format": FORMAT, "kind": "lease"}
        self._store, self.data = store, canonical(record)
        self._key = f"{keys.LEASES}{secrets.token_hex(16)}.json"
        self._written = 0.0

    def put(self) -> None:
        """Write it. Raises a FetchError."""
        began = _clock()
        self._store.put(self._key, self.data)
        self._written = began

    def keep(self) -> None:
        """Write it again if it is old: to be called before a pointer is written.

        Raises ConfigurationError if it was not called for so long that others no longer honour it.
        """
        age = _clock() - self._written
        if age > _RELIED:
            raise ConfigurationError(
                f"{self._store.url}: nothing was written for {age / 3600:.0f} hours, and what is needed may "
                "have been collected: run it again"
            )
        if age > _RENEWED:
            self.put()

    def remove(self) -> None:
        """Take it back. Where that is not allowed or possible, it lapses by itself."""
        with suppress(FetchError):
            self._store.delete(self._key)


@contextmanager
def holding(
    store: Store, builds: Iterable[Build], environments: Iterable[str] = (), say: Say = _silent
) -> Iterator[Lease]:
    """Hold a lease while the block runs, which begins when no collection is deleting.

    No collection removes what belongs to the builds, nor an index of the environments (by requirements
    digest), whether or not anything points to it yet. What was known of the shelf before has to be looked at
    again inside. ``say`` hears that it waits. Raises a FetchError.
    """
    lease = Lease(store, builds, environments)
    lease.put()
    try:
        _wait(store, say)
        yield lease
    finally:
        lease.remove()


class Leased(NamedTuple):
    """What writers that are at work have announced, and the keys of leases that have lapsed."""

    builds: frozenset[Build]
    environments: frozenset[str]
    lapsed: tuple[Entry, ...]


def read_leases(store: Store, now: float | None) -> Leased:
    """Return what is announced; ``now``: seconds by the store's clock. Raises a FetchError or FormatError."""
    builds: set[Build] = set()
    environments: set[str] = set()
    lapsed = []
    for entry in store.entries(keys.LEASES):
        if now is not None and entry.modified is not None and now - entry.modified > LEASE:
            lapsed.append(entry)
            continue
        found = store.read_versioned(entry.key)
        if found is not None:  # else its writer is through, and what it wrote has a pointer
            one = decode(found[0], f"{store.url}/{entry.key}")
            builds |= one.builds
            environments |= one.environments
    return Leased(frozenset(builds), frozenset(environments), tuple(lapsed))


def decode(data: bytes, what: str) -> Leased:
    """Return what a lease announces. Raises FormatError naming ``what``."""
    record = parse(data, "lease", what)
    try:
        named = [identity(*row) for row in record["builds"]]
        builds = frozenset((Pin(name, version), target) for name, version, target in named)
        return Leased(builds, frozenset(texts(record["environments"])), ())
    except MALFORMED as error:
        raise FormatError(f"{what} is not a well-formed lease: {error!r}") from None


class Turn:
    """A collection's time to delete: its flag is up, and shows every so often that it lives."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._version = ""
        self._beats = 0
        self._alive = _clock()
        self._end = threading.Event()
        self._lost = ""
        self._thread = threading.Thread(target=self._show_life, name="collection", daemon=True)

    def check(self) -> None:
        """Return if it may still delete. Raises LostTurnError."""
        if not self._lost and _clock() - self._alive < _LATE:
            return
        raise LostTurnError(
            f"{self._store.url}: the collection was held up ({self._lost or 'no answer'}) and stops before "
            "others take it for dead: run it again"
        )

    def now(self) -> float | None:
        """Return the time by the store's clock, seconds since 1970: when the flag was raised. Or None."""
        return next((entry.modified for entry in self._store.entries(keys.COLLECTION)), None)

    def begin(self) -> None:
        """Show from now on that it lives. Raises LostTurnError or a FetchError."""
        self._version = self._current() or ""
        if not self._version:
            raise LostTurnError(f"{self._store.url}: another collection is at work: run it again")
        self._thread.start()

    def end(self) -> None:
        """Take the flag down, if it is ours still."""
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()
        with suppress(FetchError):  # then others do, when it shows no life
            version = self._current()
            if version is not None:
                self._store.replace(keys.COLLECTION, _flag(""), version)

    def _show_life(self) -> None:
        while not self._end.wait(_BEAT):
            began = _clock()
            self._beats += 1
            data = _flag(self._name, self._beats)
            try:
                done = self._store.replace(keys.COLLECTION, data, self._version)
                found = self._store.read_versioned(keys.COLLECTION) if done else None
            except FetchError:
                with suppress(FetchError):
                    self._version = self._current() or self._version
                continue
            if found is None or found[0] != data:
                self._lost = "its flag was taken down"
                return
            self._version, self._alive = found[1], began

    def _current(self) -> str | None:
        """Return the flag's version if it is still ours: a write whose answer was lost may have been made."""
        found = self._store.read_versioned(keys.COLLECTION)
        is_ours = found is not None and _deleting(found[0], self._store) == self._name
        return found[1] if found is not None and is_ours else None


@contextmanager
def collecting(store: Store, say: Say = _silent) -> Iterator[Turn]:
    """Hold the flag of collections while the block runs. Raises a FetchError."""
    name = secrets.token_hex(16)
    data = _flag(name)
    while not store.replace(keys.COLLECTION, data, _wait(store, say)):
        pass  # another collection was faster
    turn = Turn(store, name)
    try:
        turn.begin()
        yield turn
    finally:
        turn.end()


def _flag(name: str, beat: int = 0) -> bytes:
    return canonical({"beat": beat, "deleting": name, "format": FORMAT, "kind": "collection"})


def _deleting(data: bytes, store: Store) -> str:
    """Return the name of the collection whose flag is up, or "". Raises FormatError."""
    what = f"{store.url}/{keys.COLLECTION}"
    record = parse(data, "collection", what)
    try:
        return text(record["deleting"])
    except MALFORMED as error:
        raise FormatError(f"{what} is not well-formed: {error!r}") from None


def _wait(store: Store, say: Say) -> str | None:
    """Return when no flag is up, with its version for ``replace`` (None: there is none)."""
    seen: bytes | None = None
    since, said = 0.0, False
    while True:
        found = store.read_versioned(keys.COLLECTION)
        # An empty flag is being written, by a store that does not write at once.
        if found is None or (found[0] and not _deleting(found[0], store)):
            return None if found is None else found[1]
        if found[0] != seen:
            seen, since = found[0], time.monotonic()
        elif time.monotonic() - since > _DEAD:
            store.replace(keys.COLLECTION, _flag(""), found[1])  # or it lives after all, or others did
            continue
        if not said:
            say(f"{store.url}: waiting for a collection ('shelf gc') that is deleting")
            said = True
        time.sleep(_LOOK)
