"""``shelf gc``: what no environment needs goes, beside publishes that run.

What is needed: everything that an environment pointer leads to, its history included; what the leases of
writers name; builds and objects that are younger than the grace period. The rest is looked for twice: once
without any promise, to know whether there is something to do, and again behind the flag (leases.py), by
what the shelf is then. Only the second look decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cloudimport.errors import CloudImportError, DeniedError, UnreachableError
from cloudimport.format import keys
from cloudimport.format.records import MALFORMED, parse, requirements_digest, texts
from cloudimport.sources.base import Source
from shelf_tools.compressing import decompress_record
from shelf_tools.leases import LEASE, Leased, Turn, collecting, read_leases
from shelf_tools.reach import Build, Environment, Reach, build_of, environments, unreadable
from shelf_tools.store import Entry, Store, Unfinished

#: Objects that are deleted at a time.
_DELETERS = 8
#: From so many packages on, all are listed at once instead of one by one.
_ALL = 50
_DIGEST = "[0-9a-f]{64}"
_INDEX = re.compile(rf"envs/{_DIGEST}\Z")
_BOOT_LIST = re.compile(rf"boots/(?P<index>{_DIGEST})/{_DIGEST}\Z")
_ENVIRONMENT = re.compile(rf"envs/(?P<digest>{_DIGEST})\.json\Z")


@dataclass
class Plan:
    """What a collection finds. ``young`` is unneeded and within the grace period, ``held`` by a lease.

    ``ageless`` is unneeded, and the store does not say since when. ``strange`` are keys that no shelf of
    this format has. All these are left alone. ``notes`` are lines on what could not be looked at.
    """

    garbage: list[Entry] = field(default_factory=list)
    unfinished: list[Unfinished] = field(default_factory=list)
    young: list[Entry] = field(default_factory=list)
    held: list[Entry] = field(default_factory=list)
    ageless: list[Entry] = field(default_factory=list)
    strange: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that go."""
        return sum(one.size for one in self.garbage) + sum(one.size for one in self.unfinished)

    @property
    def objects(self) -> int:
        """How many things go."""
        return len(self.garbage) + len(self.unfinished)


def look(store: Store, source: Source, older_than: float, now: float | None) -> Plan:
    """Return what a collection would delete. ``older_than`` in seconds; ``now``: by the store's clock.

    Raises a FetchError, and FormatError if it cannot be known what an environment needs.
    """
    return _Look(store, source, Reach(source), older_than, now).plan(None)


def collect(
    store: Store,
    source: Source,
    older_than: float,
    now: float,
    say: Callable[[str], None],
    on_start: Callable[[int], None],
    on_done: Callable[[str], None],
) -> Plan:
    """Delete what no environment needs; return what went, and what did not, and why.

    ``now``: seconds since 1970, by this machine's clock.
    Raises as ``look``, and LostTurnError if it was held up: what went until then went rightly.
    """
    reach = Reach(source)
    # Which packages there may be something of. What is too young by this clock alone waits for the next time.
    first = _Look(store, source, reach, older_than, now).plan(None)
    if not first.objects:
        return first
    names = {build[0].name for entry in first.garbage if (build := build_of(entry.key))}
    with collecting(store, say) as turn:
        plan = _Look(store, source, reach, older_than, turn.now()).plan(names)
        on_start(plan.objects)
        _delete(store, plan, turn, on_done)
    return plan


def _delete(store: Store, plan: Plan, turn: Turn, on_done: Callable[[str], None]) -> None:
    """Delete pointers before what they lead to: whenever it ends, a build is whole or not there."""

    def remove(entry: Entry) -> None:
        turn.check()
        store.delete(entry.key)
        on_done(keys.package_of(entry.key) or entry.key)

    def discard(one: Unfinished) -> None:
        turn.check()
        store.discard(one)
        on_done(keys.package_of(one.key) or one.key)

    pointers = [entry for entry in plan.garbage if _leads(entry.key)]
    others = [entry for entry in plan.garbage if not _leads(entry.key)]
    with ThreadPoolExecutor(_DELETERS) as pool:
        for act, things in ((remove, pointers), (remove, others), (discard, plan.unfinished)):
            futures = [pool.submit(act, one) for one in things]  # type: ignore[arg-type]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                for future in futures:
                    future.cancel()
                raise


def _leads(key: str) -> bool:
    return key.endswith(".json") or _BOOT_LIST.match(key) is not None


class _Look:
    """One look at a shelf. The order matters: leases first, then environments, then objects."""

    def __init__(
        self, store: Store, source: Source, reach: Reach, older_than: float, now: float | None
    ) -> None:
        self._store, self._source, self._reach = store, source, reach
        self._older_than, self._now = older_than, now

    def plan(self, names: set[str] | None) -> Plan:
        """Return what to delete, of packages ``names`` only, if that is not None."""
        # Who has a lease no more has written its pointer: so pointers are read later than leases.
        leased = read_leases(self._store, self._now)
        roots = environments(self._store)
        entries = list(self._entries(names))
        needed = self._needed(roots, entries, names)
        held = self._builds(leased.builds, names)
        young = self._young(entries, names)
        plan = Plan(list(leased.lapsed))
        try:
            plan.unfinished += self._unfinished()
        except (DeniedError, UnreachableError) as error:  # another permission, and not every server has it
            plan.notes.append(f"what uploads have left unfinished cannot be listed, and stays: {error}")
        for entry in entries:
            if entry.key in needed:
                continue
            if entry.key in held or self._is_held(entry.key, leased):
                plan.held.append(entry)
            else:
                self._place(plan, entry, young).append(entry)
        return plan

    def _place(self, plan: Plan, entry: Entry, young: set[str]) -> list[Entry]:
        """Return where in a plan an object belongs that nobody needs or holds."""
        if not _is_known(entry.key):
            return plan.strange
        if not self._older_than:
            return plan.garbage
        age = self._age(entry.modified)
        if age is None:
            return plan.ageless
        return plan.young if entry.key in young or age < self._older_than else plan.garbage

    def _entries(self, names: set[str] | None) -> Iterator[Entry]:
        yield from self._store.entries("envs/")
        yield from self._store.entries("boots/")
        if names is None or len(names) > _ALL:
            yield from self._store.entries("packages/")
            return
        for name in sorted(names):
            yield from self._store.entries(f"packages/{name}/")

    def _age(self, modified: float | None) -> float | None:
        """Return seconds since a write, by the store's clock, None if that is not known."""
        return None if modified is None or self._now is None else self._now - modified

    def _unfinished(self) -> Iterator[Unfinished]:
        # Writers may be at them: what is older than any lease has none.
        for one in self._store.unfinished():
            age = self._age(one.modified)
            if age is not None and age > max(LEASE, self._older_than):
                yield one

    def _needed(
        self, roots: Iterable[Environment], entries: Iterable[Entry], names: set[str] | None
    ) -> set[str]:
        """Return the keys that environments need. Raises a FetchError or FormatError."""
        wanted: set[str] = set()
        builds: set[Build] = set()
        indexes: set[str] = set()
        empty: set[str] = set()
        for root in roots:
            refs = [ref for _, ref in root.indexes()]
            empty |= set() if refs else {keys.environment_pointer(root.digest)}
            try:
                found = self._reach.indexes(refs)
            except CloudImportError as error:
                what = f"the environment {root.digest[:12]} ({', '.join(root.pointer.requirements)[:100]})"
                raise unreadable(what, error) from error
            indexes |= {ref.digest for ref in refs}
            for needs in found:
                wanted |= needs.keys
                builds |= {(pin, needs.target) for pin in needs.builds}
        wanted |= {entry.key for entry in entries if _ENVIRONMENT.match(entry.key)} - empty
        for entry in entries:
            match = _BOOT_LIST.match(entry.key)
            if match and match["index"] in indexes:
                wanted |= self._boot(entry.key)
        return wanted | self._builds(builds, names)

    def _young(self, entries: Iterable[Entry], names: set[str] | None) -> set[str]:
        """Return what young pointers lead to: it may be older."""
        young = [entry.key for entry in entries if self._is_young(entry)]
        builds = {build for key in young if key.endswith("/build.json") and (build := build_of(key))}
        boots = (self._boot(key) for key in young if _BOOT_LIST.match(key))
        return self._builds(builds, names).union(*boots)

    def _boot(self, key: str) -> set[str]:
        boot = self._reach.boot(key)
        return {key, *boot.part_keys()} if boot else set()

    def _builds(self, builds: Iterable[Build], names: set[str] | None) -> set[str]:
        """Return what the pointers of builds lead to, of packages ``names``, if that is not None."""
        try:
            return self._reach.builds(one for one in builds if names is None or one[0].name in names)
        except CloudImportError as error:
            raise unreadable("a build", error) from error

    def _is_young(self, entry: Entry) -> bool:
        age = self._age(entry.modified)
        return bool(self._older_than) and (age is None or age < self._older_than)

    def _is_held(self, key: str, leased: Leased) -> bool:
        """Whether a writer is at work on what a key belongs to."""
        if key.startswith("packages/"):
            return build_of(key) in leased.builds
        if match := _ENVIRONMENT.match(key):  # nothing is left in it
            return match["digest"] in leased.environments
        if not _INDEX.match(key) or not leased.environments:
            return False
        try:
            return self._requirements(key) in leased.environments
        except CloudImportError:
            return True  # not to be known now; it is there the next time

    def _requirements(self, key: str) -> str:
        """Return the requirements digest of an index that nothing points to. Raises CloudImportError."""
        plain = decompress_record(self._source.read(key), key)
        record = parse(plain[: plain.find(b"\n")], "environment-index", key)
        try:
            return requirements_digest(texts(record["requirements"]))
        except MALFORMED as error:
            raise unreadable(key, CloudImportError(repr(error))) from None


def _is_known(key: str) -> bool:
    patterns = (_INDEX, _BOOT_LIST, _ENVIRONMENT)
    return build_of(key) is not None or any(pattern.match(key) for pattern in patterns)


def grouped(plan: Plan) -> Mapping[str, tuple[int, int]]:
    """Return what goes for people: a build, or what else it is, to objects and bytes."""
    found: dict[str, tuple[int, int]] = {}
    for key, size in (
        *((entry.key, entry.size) for entry in plan.garbage),
        *((one.key + " (unfinished)", one.size) for one in plan.unfinished),
    ):
        build = build_of(key)
        name = f"{build[0]} {build[1]}" if build else key
        count, total = found.get(name, (0, 0))
        found[name] = count + 1, total + size
    return dict(sorted(found.items()))
