"""Objects whose key ends with a digest: which of them pointers lead to, and whether they are what they say.

The walk goes on where something is damaged: what cannot be read is noted, what it would have led to is not
known until it is repaired.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cloudimport.errors import AbsentError, CorruptError, FormatError
from cloudimport.format import keys
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.layout import BuildPointer, Layout
from cloudimport.format.records import EnvironmentPointer, Ref, requirements_digest, sha256
from cloudimport.sources.base import Source
from shelf_tools.compressing import decompress_record
from shelf_tools.reach import BootList, Build, Environment, build_of, pack_keys
from shelf_tools.store import Store

#: Objects that are read at a time.
_READERS = 8
#: What keys of objects begin with, after the last slash, that are stored as they are.
_BARE = ("pack-", "boot-")


def plain(key: str, data: bytes) -> bytes:
    """Return the bytes that an object's digest is of. Raises CorruptError if that is not the key's."""
    name = key.rpartition("/")[2]
    wanted = name.rpartition("-")[2]
    is_bare = name.startswith(_BARE) or key.startswith("boots/")
    try:
        found = data if is_bare else decompress_record(data, key)
        actual = sha256(found)
    except FormatError as error:
        found, actual = b"", str(error)
    if actual != wanted:
        raise CorruptError(
            f"{key} is damaged: expected sha256 {wanted}, got {actual}",
            key=key,
            package=keys.package_of(key),
            expected=wanted,
            actual=actual,
        )
    return found


def read_checked(source: Source, key: str) -> bytes:
    """Return an object's bytes as they are stored, checked. Raises CorruptError or another FetchError."""
    data = source.read(key)
    plain(key, data)
    return data


class Indexed(NamedTuple):
    """An index that an environment points to, and the builds that it names with their contents' digests.

    ``builds`` is None if the index cannot be read.
    """

    requirements: tuple[str, ...]
    target: str
    key: str
    builds: dict[Build, str] | None


class Walk:
    """What pointers of a shelf lead to, as far as it can be read.

    ``needed``: keys with a digest; ``current``: those that the pointers of builds lead to. ``damaged``: the
    key of what cannot be read, and why. ``indexes``: those of environments, of now and of their history;
    ``signed``: the public keys that have signed one, by its key.
    """

    def __init__(self, store: Store, source: Source) -> None:
        """Raises a FetchError if the shelf cannot be listed or read at all."""
        self._store, self._source = store, source
        self.needed: dict[str, None] = {}
        self.current: set[str] = set()
        self.damaged: dict[str, str] = {}
        self.indexes: list[Indexed] = []
        self.signed: dict[str, set[str]] = {}
        for key in sorted(store.list("envs/")):
            if key.endswith(".json"):
                self._environment(key)
        published = dict.fromkeys(self._published())
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(self._build, published))
        for build in {build for index in self.indexes for build in index.builds or ()} - set(published):
            key = keys.build_pointer(*build[0], build[1])
            self.damaged[key] = f"{store.url}/{key} is gone, and an environment has {build[0]}"
        self._boots()

    def contents(self, build: Build) -> set[str]:
        """Return the digests of a build's content, as indexes name it: one, or none if none does."""
        return {index.builds[build] for index in self.indexes if index.builds and build in index.builds}

    def signers(self, build: Build) -> set[str]:
        """Return the public keys that have signed environments that have a build."""
        signed = (
            self.signed.get(index.key, set()) for index in self.indexes if build in (index.builds or ())
        )
        return set().union(*signed)

    def check(self, on_done: Callable[[str], None], skip: Iterable[str] = ()) -> None:
        """Read every needed object, but those in ``skip``, and note those that are damaged or gone."""
        known = {*skip, *self.damaged}
        left = [key for key in self.needed if key not in known]
        with ThreadPoolExecutor(_READERS) as pool:
            for key, problem in zip(left, pool.map(self._problem, left), strict=True):
                on_done(keys.package_of(key) or key)
                if problem:
                    self.damaged[key] = problem

    def _problem(self, key: str) -> str:
        try:
            read_checked(self._source, key)
        except (AbsentError, CorruptError) as error:
            return str(error)
        return ""

    def _published(self) -> Iterator[Build]:
        for key in self._store.list("packages/"):
            build = build_of(key) if key.endswith("/build.json") else None
            if build is not None:
                yield build

    def _environment(self, key: str) -> None:
        found = self._store.read_versioned(key)
        if found is None:
            return  # forgotten meanwhile
        try:
            pointer = EnvironmentPointer.decode(found[0], f"{self._store.url}/{key}")
            if keys.environment_pointer(requirements_digest(pointer.requirements)) != key:
                raise FormatError(f"{self._store.url}/{key} is for other requirements than its name says")
        except FormatError as error:
            self.damaged[key] = str(error)
            return
        for target, signatures in pointer.signatures.items():
            index = keys.environment_index(pointer.targets[target].digest)
            self.signed[index] = {one.key for one in signatures}
        for target, ref in Environment("", pointer).indexes():
            self._index(pointer.requirements, target, ref)

    def _index(self, requirements: tuple[str, ...], target: str, ref: Ref) -> None:
        key = keys.environment_index(ref.digest)
        if key in self.needed:
            return
        data, builds = self._read(key), None
        if data is not None:
            builds = self._parsed(key, target, ref, data)
        self.indexes.append(Indexed(requirements, target, key, builds))

    def _parsed(self, key: str, target: str, ref: Ref, data: bytes) -> dict[Build, str] | None:
        builds: dict[Build, str] = {}
        try:
            index = EnvironmentIndex(data, ref)
            if index.target != target:
                raise FormatError(f"{self._store.url}/{key} is for {index.target}, not for {target}")
            for number, build in enumerate(index.builds):
                prefix = keys.build_prefix(*build.pin, index.target)
                layout = f"{prefix}layout-{build.layout}"
                builds[build.pin, index.target] = build.content
                packs = [pack for pack, _ in index.section(number).packs]
                self.needed |= dict.fromkeys((f"{prefix}content-{build.content}", layout, *packs))
        except FormatError as error:  # of the right digest: it was made so
            self.damaged[key] = str(error)
            return None
        return builds

    def _build(self, build: Build) -> None:
        key = keys.build_pointer(*build[0], build[1])
        try:
            pointer = BuildPointer.decode(self._source.read(key), f"{self._store.url}/{key}")
            if (pointer.name, pointer.version, pointer.target) != (*build[0], build[1]):
                raise FormatError(f"{self._store.url}/{key} is of {pointer.name}=={pointer.version}")
            if self.contents(build) - {pointer.content.digest}:
                raise FormatError(f"{self._store.url}/{key} has another content than environments have")
        except AbsentError:
            return  # collected meanwhile
        except FormatError as error:
            self.damaged[key] = str(error)
            return
        prefix = keys.build_prefix(*build[0], build[1])
        layout = f"{prefix}layout-{pointer.layout.digest}"
        records = {
            f"{prefix}content-{pointer.content.digest}",
            f"{prefix}provenance-{pointer.provenance.digest}",
        }
        packs = self._packs(layout)
        self.needed |= dict.fromkeys(sorted({*records, *packs}))
        self.current |= {layout, *records, *packs}

    def _packs(self, layout: str) -> list[str]:
        """Return the keys of a layout's packs, as far as it can be read."""
        data = self._read(layout)
        try:
            return list(pack_keys(Layout.decode(data, layout))) if data is not None else []
        except FormatError as error:
            self.damaged[layout] = str(error)
            return []

    def _boots(self) -> None:
        for key in self._store.list("boots/"):
            index = keys.environment_index(key.split("/")[1])
            data = self._read(key) if index in self.needed else None
            if data is not None:
                try:
                    self.needed |= dict.fromkeys(BootList.decode(data, key).part_keys())
                except FormatError as error:
                    self.damaged[key] = str(error)

    def _read(self, key: str) -> bytes | None:
        """Return the plain bytes of an object that leads to others, or note what is wrong with it."""
        self.needed[key] = None
        try:
            return plain(key, self._source.read(key))
        except (AbsentError, CorruptError) as error:
            self.damaged[key] = str(error)
            return None


class Survey(NamedTuple):
    """Keys of sound objects, and of what is damaged or gone, with the problem."""

    sound: set[str]
    damaged: dict[str, str]


def survey(
    store: Store, source: Source, on_start: Callable[[int], None], on_done: Callable[[str], None]
) -> Survey:
    """Read every object that pointers lead to; at what seems damaged have a second look.

    Others may have removed or replaced it meanwhile. Raises a FetchError if the store cannot be read.
    """
    first = Walk(store, source)
    on_start(len(first.needed) - len(set(first.needed) & set(first.damaged)))
    first.check(on_done)
    sound = set(first.needed) - set(first.damaged)
    if not first.damaged:
        return Survey(sound, {})
    second = Walk(store, source)
    second.check(lambda _: None, skip=sound)
    return Survey(sound, {key: why for key, why in second.damaged.items() if key in first.damaged})
