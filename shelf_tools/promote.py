"""``shelf promote``: environments from one shelf to another, in the order in which a publisher writes.

Nothing is built again: what was tried on the one is, byte for byte, what is used from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cloudimport.errors import AbsentError, CloudImportError, ConfigurationError
from cloudimport.format import keys
from cloudimport.format.layout import BuildPointer
from cloudimport.format.lock import BootRange
from cloudimport.format.records import (
    FORMAT,
    EnvironmentPointer,
    Ref,
    canonical,
    parse,
    requirements_digest,
    signatures_of,
)
from cloudimport.format.signing import environment_message, is_signed
from cloudimport.ids import Pin
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.builds import ConflictError
from shelf_tools.copying import Copier
from shelf_tools.environments import check_lock, open_shelf, read_lock
from shelf_tools.leases import Lease, holding
from shelf_tools.reach import BootList, Build, Needs, Reach, environments
from shelf_tools.signing import Signer, signed
from shelf_tools.status import Mark, YankedPinsError, carry_over, marks, read_status
from shelf_tools.store import open_store

#: Builds, and objects of a build, that are copied at a time.
_BUILDS, _OBJECTS = 4, 4
#: Racing writers of one environment take turns; each round one of them wins.
_ROUNDS = 50


class PromoteError(CloudImportError):
    """Some builds could not be promoted; one line each."""


@dataclass(frozen=True)
class Wanted:
    """One index to promote, and what the pointer it came from says beside it, such as who signed it.

    ``pinned`` is the lockfile that has it, "" if none does.
    """

    requirements: tuple[str, ...]
    target: str
    ref: Ref
    beside: Mapping[str, Any] = field(default_factory=dict)
    boots: tuple[BootList, ...] = ()
    pinned: str = ""

    @property
    def message(self) -> bytes:
        """What is signed of it."""
        return environment_message(self.target, requirements_digest(self.requirements), self.ref.digest)


@dataclass(frozen=True)
class Promoted:
    """How many indexes and builds were promoted, and objects and bytes that had to be copied.

    ``notes``: lines on pins that are yanked.
    """

    indexes: int
    builds: int
    objects: int
    size: int
    notes: tuple[str, ...] = ()


class Promotion:
    """From one shelf to another."""

    def __init__(
        self, source: str, destination: str, environ: Mapping[str, str], signers: Sequence[Signer] = ()
    ) -> None:
        """``signers`` sign what they have signed already. Raises ConfigurationError if a URL cannot be one,
        or both are the same.
        """
        self._signers = tuple(signers)
        self._from = open_source(source, SourceConfig(environ=environ))
        self._from_store = open_store(source, environ)
        self._store = open_store(destination, environ)
        self._to = open_source(destination, SourceConfig(environ=environ))
        if self._store.url == self._from_store.url:
            raise ConfigurationError(f"{self._store.url} cannot be promoted to itself: name another shelf")
        self._reach = Reach(self._from)
        self._copier = Copier(self._from, self._store, self._to)

    def close(self) -> None:
        """Drop connections."""
        self._from.close()
        self._to.close()

    def of_locks(self, paths: Sequence[Path]) -> list[Wanted]:
        """Return what lockfiles pin, with their boot images.

        Raises ConfigurationError, also if one is not signed by those who are to sign it, or a FetchError.
        """
        found = []
        for path in paths:
            locked = read_lock(path)
            check_lock(path, self._signers)
            rows = self._rows(requirements_digest(locked.requirements))
            for target, ref in locked.targets.items():
                row = rows.get(target, {})
                is_same = row.get("index", [""])[0] == ref.digest
                boots = _boot_lists(ref, target, locked.boots.get(target, ()))
                beside = _beside(row) if is_same else {}
                found.append(Wanted(locked.requirements, target, ref, beside, boots, str(path)))
        return found

    def of_all(self) -> list[Wanted]:
        """Return what every environment has now; what was replaced stays. Raises a FetchError."""
        found = []
        for environment in environments(self._from_store):
            rows = self._rows(environment.digest)
            for target, ref in environment.pointer.targets.items():
                listed = self._from_store.list(f"boots/{ref.digest}/")
                boots = tuple(boot for key in sorted(listed) if (boot := self._reach.boot(key)))
                beside = _beside(rows.get(target, {}))
                found.append(Wanted(environment.pointer.requirements, target, ref, beside, boots))
        return found

    def _rows(self, digest: str) -> dict[str, Any]:
        """Return the targets of an environment's pointer as they stand there; none if there is none."""
        key = keys.environment_pointer(digest)
        try:
            data = self._from.read(key)
        except AbsentError:
            return {}
        EnvironmentPointer.decode(data, f"{self._from.url}/{key}")
        rows: dict[str, Any] = parse(data, "environment", key)["targets"]
        return rows

    def run(
        self,
        wanted: Sequence[Wanted],
        on_start: Callable[[int], None],
        on_done: Callable[[str], None],
        say: Callable[[str], None],
        allow_yanked: bool = False,
    ) -> Promoted:
        """Copy builds, then indexes, then point to them. What is there is not copied again.

        Pins that either shelf says are yanked are refused; if that is allowed, their marks go along.
        Raises YankedPinsError for these and PromoteError for what would not be signed any more, before
        anything is written; and PromoteError with a line for each build that conflicts, fails or is damaged;
        what was copied until then is used by the next run.
        """
        self._check_signatures(wanted)
        needs = self._reach.indexes(one.ref for one in wanted)
        builds = {(pin, need.target): need for need in needs for pin in need.builds}
        pins = sorted({pin for pin, _ in builds})
        marked, notes = self._yanked(pins, allow_yanked)
        open_shelf(self._store)
        digests = [requirements_digest(one.requirements) for one in wanted]
        with holding(self._store, builds, digests, say) as lease:
            carry_over(self._store, marked)  # before anybody can see the environments
            on_start(len(builds))
            objects = self._builds(builds, needs, on_done, lease)
            for one in wanted:
                objects += self._copies(keys.environment_index(one.ref.digest))
                objects += self._boots(one)
                lease.keep()
                self._point(one)
        return Promoted(len(wanted), len(builds), len(objects), sum(objects), tuple(notes))

    def _check_signatures(self, wanted: Sequence[Wanted]) -> None:
        """Raises PromoteError with a line for each environment that ``_signed`` refuses, or FormatError."""
        errors = []
        for one in wanted:
            key = keys.environment_pointer(requirements_digest(one.requirements))
            try:
                self._signed(one, self._row(key, one)[2])
            except PromoteError as error:
                errors.append(str(error))
        if errors:
            raise PromoteError("\n".join(errors))

    def _signed(self, one: Wanted, old: Mapping[str, Any]) -> list[list[str]]:
        """Return the signatures that an index has at its destination, where the row was ``old``.

        They are those that fit of both shelves, and the signers', of what a lockfile that they have signed
        pins or they have signed on one of the shelves. Raises PromoteError if they have not, or if it would
        be without and the index that was there had one.
        """
        had = signatures_of(dict(old))
        both = [*had, *signatures_of(dict(one.beside))]
        name = f"environment {requirements_digest(one.requirements)[:12]} for {one.target}"
        trusted = [signer.key for signer in self._signers]
        if self._signers and not one.pinned and not is_signed(both, trusted, lambda: one.message):
            raise PromoteError(
                f"{name} on {self._from.url} ({one.ref.digest[:12]}) is not signed by "
                f"{', '.join(key[:16] for key in trusted)}: 'shelf publish --sign KEYFILE' looks at what it "
                "signs"
            )
        found = signed(one.message, self._signers, both)
        if had and not found:
            raise PromoteError(
                f"{name} on {self._store.url} is signed by {had[-1].key[:16]}, and what would take its place "
                f"({one.ref.digest[:12]}) is not: publish it to {self._from.url} with --sign KEYFILE, or "
                "give --sign KEYFILE with a lockfile that this key has signed"
            )
        return [list(signature) for signature in found]

    def _yanked(self, pins: Sequence[Pin], allowed: bool) -> tuple[dict[Pin, Mark], list[str]]:
        """Return the marks of pins on the first shelf, and a line for each pin that is yanked on either.

        Raises YankedPinsError with these lines unless they are ``allowed``, a FetchError, or FormatError.
        """
        first, second = (marks(read_status(store)) for store in (self._from_store, self._store))
        lines = [
            f"{pin} is yanked on {store.url}: {found[pin].reason}"
            for pin in pins
            for store, found in ((self._from_store, first), (self._store, second))
            if pin in found
        ]
        if lines and not allowed:
            lines[-1] += "; take another version, or promote it all the same with --allow-yanked"
            raise YankedPinsError("\n".join(lines))
        return {pin: first[pin] for pin in pins if pin in first}, lines

    def _builds(
        self, builds: Iterable[Build], needs: Sequence[Needs], on_done: Callable[[str], None], lease: Lease
    ) -> list[int]:
        """Copy builds; return the sizes of the objects that were not there."""
        wanted: dict[Build, set[str]] = {}
        for need in needs:
            for pin in need.builds:
                prefix = f"packages/{pin.name}/"
                own = {key for key in need.keys if key.startswith(prefix)}
                wanted.setdefault((pin, need.target), set()).update(own)
        errors, sizes = [], []
        with (
            ThreadPoolExecutor(_BUILDS, "builds") as pool,
            ThreadPoolExecutor(_OBJECTS, "objects") as objects,
        ):
            futures = {
                build: pool.submit(self._build, build, wanted[build], objects, lease) for build in builds
            }
            for (pin, target), future in futures.items():
                try:
                    sizes += future.result()
                except CloudImportError as error:
                    text = str(error)
                    errors.append(text if str(pin) in text else f"{pin} for {target}: {text}")
                on_done(str(pin))
        if errors:
            raise PromoteError("\n".join(errors))
        return sizes

    def _build(self, build: Build, pinned: set[str], pool: ThreadPoolExecutor, lease: Lease) -> list[int]:
        (pin, target), key = build, keys.build_pointer(*build[0], build[1])
        data = self._from.read(key)
        pointer = BuildPointer.decode(data, f"{self._from.url}/{key}")
        if f"{keys.build_prefix(*pin, target)}content-{pointer.content.digest}" not in pinned:
            raise ConflictError(
                f"{pin} for {target}: {self._from.url}/{key} has another content than its index"
            )
        is_there = self._has(build, pointer)
        wanted = (pinned | self._reach.build(build)) - {key}
        there = {entry for name in {_folder(one) for one in wanted} for entry in self._store.list(name)}
        missing = sorted(wanted - there, key=_order)
        sizes = list(pool.map(lambda one: self._copier.copy(one, self._reach.sizes.get(one, -1)), missing))
        lease.keep()
        if not is_there and not self._store.create(key, data):
            self._has(build, pointer)
        return sizes

    def _has(self, build: Build, pointer: BuildPointer) -> bool:
        """Whether the destination has a build. Raises ConflictError if it has other content for it."""
        (pin, target), key = build, keys.build_pointer(*build[0], build[1])
        found = self._store.read_versioned(key)
        if found is None:
            return False
        other = BuildPointer.decode(found[0], f"{self._store.url}/{key}").content.digest
        if other != pointer.content.digest:
            raise ConflictError(
                f"{pin} for {target} is on {self._store.url} with content {other}, and on {self._from.url} "
                f"with content {pointer.content.digest}: the wheels differ; publish the same file to both"
            )
        return True

    def _boots(self, one: Wanted) -> Iterator[int]:
        """Copy boot images: parts before the list that names them; yield sizes."""
        for boot in one.boots:
            for key in boot.part_keys():
                yield from self._copies(key)
            self._store.put(boot.key, boot.encode())

    def _copies(self, key: str) -> Iterator[int]:
        """Copy an object unless it is there; yield its size."""
        if key not in self._store.list(key):
            yield self._copier.copy(key)

    def _point(self, one: Wanted) -> None:
        """Make an index that of its environment and target; the one that was there is history."""
        key = keys.environment_pointer(requirements_digest(one.requirements))
        for _ in range(_ROUNDS):
            record, version, old = self._row(key, one)
            history = [*record.get("kept", {}).pop(one.target, []), *old.get("history", []), old.get("index")]
            kept = {ref[0]: ref for ref in history if ref and ref[0] != one.ref.digest}
            same = _beside(old) if old.get("index", [""])[0] == one.ref.digest else {}
            row = {**same, **one.beside, "index": list(one.ref), "history": list(kept.values())}
            row["signatures"] = self._signed(one, old)
            if not row["signatures"]:
                del row["signatures"]
            if row == old or self._put(key, record, one.target, row, version):
                return
        raise ConfigurationError(f"{self._store.url}/{key} kept changing while it was written: try again")

    def _row(self, key: str, one: Wanted) -> tuple[dict[str, Any], str | None, dict[str, Any]]:
        """Return an environment's pointer at the destination, its version, and the target's row; they are
        empty if there is none. Raises FormatError.
        """
        found = self._store.read_versioned(key)
        if found is None:
            empty = EnvironmentPointer(one.requirements, {}, {}).encode()
            return parse(empty, "environment", key), None, {}
        EnvironmentPointer.decode(found[0], f"{self._store.url}/{key}")
        record = parse(found[0], "environment", key)
        return record, found[1], record["targets"].get(one.target, {})

    def _put(self, key: str, record: dict[str, Any], target: str, row: object, version: str | None) -> bool:
        record["targets"][target] = row
        if not record.get("kept", True):
            del record["kept"]
        return self._store.replace(key, canonical({**record, "format": FORMAT}), version)


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a target's row says beside its index and history."""
    return {name: value for name, value in row.items() if name not in ("index", "history")}


def _boot_lists(ref: Ref, target: str, ranges: Iterable[BootRange]) -> tuple[BootList, ...]:
    parts = tuple(dict.fromkeys((row.name, row.version, row.digest) for row in ranges))
    return (BootList(ref.digest, target, parts),) if parts else ()


def _folder(key: str) -> str:
    return key.rpartition("/")[0] + "/"


#: In which order a build's objects are written.
_KINDS = ("pack", "layout", "content", "provenance")


def _order(key: str) -> int:
    return _KINDS.index(key.rpartition("/")[2].partition("-")[0])
