"""Whether a list of pins is complete: dependencies from installed METADATA, checked with ``packaging``.

PEP 508 (requirements, markers, extras), PEP 440 (ranges). Nothing is resolved: the list is what
somebody locked, and here it is found out what it lacks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from packaging.requirements import Requirement as Dependency
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target
from shelf_tools.pins import allows_python, holds

#: Characters of a name or of a range that are shown.
_MOST_TEXT = 200


class Metadata(Protocol):
    """What is looked at of a build; ``Content`` has it."""

    @property
    def requires(self) -> tuple[str, ...]:
        """The values of Requires-Dist."""

    @property
    def requires_python(self) -> str:
        """The value of Requires-Python, or ""."""

    @property
    def extras(self) -> tuple[str, ...]:
        """The values of Provides-Extra."""


class Missing(NamedTuple):
    """One requirement that the list does not meet.

    ``requirement`` is as it should be met (``urllib3 (>=1.26,<3)`` or ``Python >=3.13``);
    ``needed_by`` the pin with the extra that asks for it; ``installed`` the version that the list
    (or the target, for Python) has instead, or None.
    """

    requirement: str
    needed_by: str
    installed: str | None


class Report(NamedTuple):
    """What is missing, and ``notes`` on what could not be checked, one line each."""

    missing: list[Missing]
    notes: list[str]


def missing(
    contents: Mapping[Pin, Metadata], requirements: Iterable[Requirement], target: Target
) -> list[Missing]:
    """Return what ``check`` finds missing."""
    return check(contents, requirements, target).missing


def check(contents: Mapping[Pin, Metadata], requirements: Iterable[Requirement], target: Target) -> Report:
    """Return which dependencies of the contents the requirements do not meet on ``target``.

    ``requirements`` are those that hold for the target (``pins.for_target``). Extras count when a
    requirement line or another package's dependency asks for them, transitively. A pin without
    content counts as there, with unknown dependencies. Malformed metadata never raises.
    """
    listed = tuple(requirements)
    checker = _Checker({r.pin.name: r.pin for r in listed}, contents, target)
    for requirement in listed:
        checker.python(requirement.pin)
        checker.ask(requirement.pin, ("", *requirement.extras))
    checker.run()
    return Report(list(dict.fromkeys(checker.missing)), list(dict.fromkeys(checker.notes)))


def explain(missing: Sequence[Missing]) -> str:
    """Return one line for a person for each, in the order in which they were found."""
    return "\n".join(map(_explained, missing))


def _explained(one: Missing) -> str:
    if one.requirement.startswith("Python "):
        return f"{one.needed_by} needs {one.requirement}, the target has {one.installed}"
    needed = f"{one.requirement} is needed by {one.needed_by}"
    if one.installed is None:
        return f"{needed} and is not in the list"
    name = one.requirement.partition(" ")[0].partition("[")[0]
    return f"{needed}; the list pins {name}=={one.installed}, which does not fit"


class _Checker:
    """Follows (pin, extra) from the list through the contents, each once."""

    def __init__(self, pins: dict[str, Pin], contents: Mapping[Pin, Metadata], target: Target) -> None:
        self.missing: list[Missing] = []
        self.notes: list[str] = []
        self._pins = pins
        self._contents = contents
        self._target = target
        self._queue: list[tuple[Pin, str]] = []
        self._seen: set[tuple[Pin, str]] = set()

    def ask(self, pin: Pin, extras: Iterable[str]) -> None:
        """Queue a pin's dependencies, of itself ("") and of extras."""
        known = {canonicalize_name(extra) for extra in getattr(self._contents.get(pin), "extras", ())}
        for extra in extras:
            if (pin, extra) in self._seen:
                continue
            self._seen.add((pin, extra))
            self._queue.append((pin, extra))
            if extra and pin in self._contents and extra not in known:
                self.notes.append(f"{pin} has no extra {extra!r}")

    def run(self) -> None:
        """Follow the queue to its end."""
        for pin, extra in self._queue:
            content = self._contents.get(pin)
            for line in content.requires if content else ():
                self._dependency(line, pin, extra)

    def python(self, pin: Pin) -> None:
        """Check Requires-Python: it fits if the target's first or its newest patch release does."""
        content = self._contents.get(pin)
        if content is None or not content.requires_python:
            return
        try:
            fits = allows_python(SpecifierSet(content.requires_python), self._target)
        except ValueError:  # InvalidSpecifier, and a number that is too long for int()
            self.notes.append(f"{pin}: Requires-Python {content.requires_python[:200]!r} cannot be read")
            return
        if not fits:
            has = f"{self._target.python[0]}.{self._target.python[1]}"
            self.missing.append(Missing(f"Python {content.requires_python}", str(pin), has))

    def _dependency(self, line: str, pin: Pin, extra: str) -> None:
        try:
            wanted = Dependency(line)
            marker = str(wanted.marker or "")
            if not holds(marker, self._target, extra) or (extra and holds(marker, self._target)):
                return  # not on this target, or needed without the extra as well
            found = self._pins.get(canonicalize_name(wanted.name))
            fits = found is not None and wanted.specifier.contains(found.version, prereleases=True)
        except (ConfigurationError, ValueError, RecursionError) as error:
            # ValueError: InvalidRequirement, and numbers that are too long for int(); RecursionError:
            # parentheses without end.
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            self.notes.append(f"{pin}: its dependency {line[:200]!r} is left unchecked: {said[:300]}")
            return
        if not fits:
            by = f"{pin.name}[{extra}]=={pin.version}" if extra else str(pin)
            self.missing.append(Missing(_shown(wanted), by, found.version if found else None))
        if found is not None:
            self.ask(found, sorted({canonicalize_name(name) for name in wanted.extras}))


def _shown(wanted: Dependency) -> str:
    """Return a dependency as it is said to people: ``name[extra] (range)``."""
    extras = f"[{','.join(sorted(wanted.extras))}]" if wanted.extras else ""
    ranges = ",".join(sorted(map(str, wanted.specifier), key=lambda s: (s[0] != ">", s)))
    return _cut(canonicalize_name(wanted.name) + extras) + (f" ({_cut(ranges)})" if ranges else "")


def _cut(text: str) -> str:
    """Return a text of a package's, no longer than a line for a person may be."""
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}..."
