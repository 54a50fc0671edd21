"""``shelf verify --repair``: what is damaged or gone is replaced by what has the right digest, or not at all.

Where the bytes come from is a donor: another shelf, or what was built again from the package index
(rebuild.py). A pointer has no digest of its own; that of a build is put back if an environment says which
content the build has. The pointer of an environment cannot be checked by anything: it is not repaired.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from cloudimport.errors import AbsentError, CorruptError, DeniedError, FormatError
from cloudimport.format.layout import BuildPointer
from cloudimport.format.signing import is_signed
from cloudimport.sources.base import Source
from shelf_tools.builds import message_of
from shelf_tools.leases import holding
from shelf_tools.objects import Walk, plain, read_checked, survey
from shelf_tools.reach import Build, build_of
from shelf_tools.store import Store

#: How often a thing is replaced that is damaged again at once.
_TRIES = 3
#: Opens the donor for what is damaged, as a walk found it; who gets it reads objects from it, by their keys.
Opener = Callable[[Walk], Source]


@dataclass
class Repaired:
    """Keys that are sound again, and those that are not, with the reason.

    ``unsigned``: builds of signed environments whose pointer none of these keys has signed as it is now.
    """

    done: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    unsigned: list[Build] = field(default_factory=list)


def repair(
    store: Store,
    source: Source,
    open_donor: Opener,
    on_start: Callable[[int], None],
    on_done: Callable[[str], None],
    say: Callable[[str], None],
) -> Repaired:
    """Check every object that pointers lead to and repair what can be. ``on_start`` and ``on_done`` hear of
    their number and of each.

    ``open_donor`` is called if something is damaged. Beside publishes and collections that run, nothing is
    lost, and nothing is left that a later collection would not take. Raises a FetchError if a store cannot be
    reached.
    """
    found = survey(store, source, on_start, on_done)
    if not found.damaged:
        return Repaired()
    builds = {build for key in found.damaged if (build := build_of(key))}
    digests = [key[5:-5] for key in store.list("envs/") if key.endswith(".json")]
    with holding(store, builds, digests, say):
        return _Repair(store, source, open_donor).run(found.sound)


class _Repair:
    def __init__(self, store: Store, source: Source, open_donor: Opener) -> None:
        self._store, self._source, self._open_donor = store, source, open_donor
        self._donor: Source | None = None
        self._put_back: dict[Build, BuildPointer] = {}

    def run(self, sound: set[str]) -> Repaired:
        """Repair in rounds: an index or a layout that is sound again leads to more."""
        why: dict[str, str] = {}
        tried: Counter[str] = Counter()
        while True:
            walk = Walk(self._store, self._source)
            walk.check(lambda _: None, skip=sound)
            sound |= set(walk.needed) - set(walk.damaged)
            left = {key: said for key, said in walk.damaged.items() if key not in why and tried[key] < _TRIES}
            if not left:
                done = sorted(set(tried) - set(walk.damaged) - set(why))
                unsigned = [
                    build for build, pointer in self._put_back.items() if _lacks(pointer, build, walk)
                ]
                why = {key: why.get(key, said) for key, said in walk.damaged.items()}
                return Repaired(done, why, sorted(unsigned))
            for key in sorted(left):
                tried[key] += 1
                problem = self._replace(key, walk)
                if problem:
                    why[key] = f"{left[key]}; {problem}"

    def _replace(self, key: str, walk: Walk) -> str:
        """Replace an object; return why it cannot be, or ""."""
        if key.startswith("envs/") and key.endswith(".json"):
            return f"no digest says what it has to be: 'shelf forget {key[5:17]}', and publish it again"
        if self._donor is None:
            self._donor = self._open_donor(walk)
        try:
            data = self._donor.read(key)
            build = build_of(key) if key.endswith("/build.json") else None
            if build is not None:
                return self._replace_pointer(key, build, data, walk)
            plain(key, data)
        except (AbsentError, DeniedError, CorruptError, FormatError) as error:
            return f"not to be had from {self._donor.url}: {error}"
        self._store.put(key, data)
        read_checked(self._source, key)
        return ""

    def _replace_pointer(self, key: str, build: Build, data: bytes, walk: Walk) -> str:
        pointer = BuildPointer.decode(data, key)
        whose = (pointer.name, pointer.version, pointer.target)
        if whose != (*build[0], build[1]) or walk.contents(build) != {pointer.content.digest}:
            assert self._donor is not None
            return f"that of {self._donor.url} is not of the content that environments have"
        found = self._store.read_versioned(key)
        if self._store.replace(key, data, None if found is None else found[1]):
            self._put_back[build] = pointer
        return ""


def _lacks(pointer: BuildPointer, build: Build, walk: Walk) -> bool:
    """Whether a build's pointer is not signed by those who have signed environments that have it."""
    signers = walk.signers(build)
    return bool(signers) and not is_signed(pointer.signatures, signers, lambda: message_of(pointer))
