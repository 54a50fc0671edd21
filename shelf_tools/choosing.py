"""Which versions of a shelf go together: what functions need, and what that needs, by resolvelib.

Dependencies are those of the builds' METADATA as the shelf's contents have them (PEP 508, markers and extras
for the target); the newest version that fits is taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from packaging.requirements import Requirement as Dependency
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from resolvelib import AbstractProvider, BaseReporter, ResolutionImpossible, ResolutionTooDeep, Resolver
from resolvelib.resolvers import RequirementInformation

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, Target
from shelf_tools.pins import holds

#: Rounds of the resolver: each decides one name, so that this is a search without an end.
_ROUNDS = 20_000
#: Lines of a conflict that are told.
_TOLD = 20


class Metadata(Protocol):
    """What is looked at of a build's content."""

    @property
    def requires(self) -> tuple[str, ...]:
        """The values of Requires-Dist."""


class Offer(Protocol):
    """What there is to choose from."""

    url: str

    def matching(self, name: str, ranges: SpecifierSet, target: Target) -> list[str]:
        """Return the versions within ranges, best first."""
        ...

    def metadata(self, pin: Pin, target: Target) -> Metadata:
        """Return what a version needs."""
        ...


class Wanted(NamedTuple):
    """A name, with at most one extra (""): a requirement with two extras is two of these."""

    name: str
    extra: str
    ranges: SpecifierSet


class Candidate(NamedTuple):
    """A version that may be taken; with an extra it stands for what that extra adds."""

    pin: Pin
    extra: str


_Key = tuple[str, str]
_Information = RequirementInformation[Wanted, Candidate]


def choose(lines: Iterable[str], offer: Offer, target: Target) -> list[Pin]:
    """Return the pins that meet the lines and one another's dependencies, sorted by name.

    Raises ConfigurationError with what contradicts what, one a line, a FetchError or FormatError.
    """
    wanted = [one for line in lines for one in _wanted(Dependency(line))]
    resolver: Resolver[Wanted, Candidate, _Key] = Resolver(_Provider(offer, target), BaseReporter())
    try:
        found = resolver.resolve(wanted, max_rounds=_ROUNDS)
    except ResolutionImpossible as error:
        raise ConfigurationError(_conflict(error.causes, offer, target)) from None
    except ResolutionTooDeep:
        raise ConfigurationError(
            f"no versions on {offer.url} that go together were found: pin some"
        ) from None
    return sorted({candidate.pin for candidate in found.mapping.values()})


def _wanted(one: Dependency) -> list[Wanted]:
    name = canonicalize_name(one.name)
    extras = sorted(map(canonicalize_name, one.extras))
    return [Wanted(name, extra, one.specifier) for extra in ("", *extras)]


class _Provider(AbstractProvider[Wanted, Candidate, _Key]):
    def __init__(self, offer: Offer, target: Target) -> None:
        self._offer, self._target = offer, target

    def identify(self, requirement_or_candidate: Wanted | Candidate) -> _Key:
        one = requirement_or_candidate
        return (one.name if isinstance(one, Wanted) else one.pin.name), one.extra

    def get_preference(
        self,
        identifier: _Key,
        resolutions: Mapping[_Key, Candidate],
        candidates: Mapping[_Key, Iterator[Candidate]],
        information: Mapping[_Key, Iterator[_Information]],
        backtrack_causes: Sequence[_Information],
    ) -> Any:
        """Decide first what contradicted something, then what is pinned, then by name."""
        causes = {one.requirement.name for one in backtrack_causes}
        is_pinned = any(
            range_.operator == "==" for one in information[identifier] for range_ in one.requirement.ranges
        )
        return identifier[0] not in causes, not is_pinned, identifier

    def find_matches(
        self,
        identifier: _Key,
        requirements: Mapping[_Key, Iterator[Wanted]],
        incompatibilities: Mapping[_Key, Iterator[Candidate]],
    ) -> Collection[Candidate]:
        ranges = SpecifierSet()
        for one in requirements[identifier]:
            ranges &= one.ranges
        refused = {one.pin for one in incompatibilities[identifier]}
        pins = [
            Pin(identifier[0], version)
            for version in self._offer.matching(identifier[0], ranges, self._target)
        ]
        return [Candidate(pin, identifier[1]) for pin in pins if pin not in refused]

    def is_satisfied_by(self, requirement: Wanted, candidate: Candidate) -> bool:
        return requirement.ranges.contains(candidate.pin.version, prereleases=True)

    def get_dependencies(self, candidate: Candidate) -> Iterable[Wanted]:
        pin, extra = candidate
        found = []
        if extra:
            found.append(Wanted(pin.name, "", SpecifierSet(f"=={pin.version}")))
        for line in self._offer.metadata(pin, self._target).requires:
            found += self._needed(line, pin, extra)
        return found

    def _needed(self, line: str, pin: Pin, extra: str) -> list[Wanted]:
        """Return what a line of Requires-Dist asks for; one that cannot be read, for nothing."""
        try:
            one = Dependency(line)
            marker = str(one.marker or "")
            if not holds(marker, self._target, extra) or (extra and holds(marker, self._target)):
                return []  # not on this target, or needed without the extra as well
        except (ConfigurationError, ValueError, RecursionError):
            return []  # as ``check`` leaves it, with a note when it was published
        return [found for found in _wanted(one) if (found.name, found.extra) != (pin.name, extra)]


def _conflict(causes: Iterable[_Information], offer: Offer, target: Target) -> str:
    lines = dict.fromkeys(map(_cause, causes))
    names = sorted({one.requirement.name for one in causes})
    there = [
        f"of {name} there is {', '.join(offer.matching(name, SpecifierSet(), target)) or 'nothing'}"
        for name in names
    ]
    head = f"no versions on {offer.url} for {target} go together:"
    return "\n".join([head, *list(lines)[:_TOLD], *there[:_TOLD]])


def _cause(one: _Information) -> str:
    wanted, parent = one
    extra = f"[{wanted.extra}]" if wanted.extra else ""
    by = f"{parent.pin} needs" if parent else "the file says"
    return f"{by} {wanted.name}{extra}{wanted.ranges}"
