"""Pinned requirements as the curator reads them: files in, requirements that hold for a target out.

``cloudimport.format.requirements`` reads the lines, for the runtime as well; what needs
``packaging`` (markers, PEP 508) is checked here. No marker is ever eval'ed: ``packaging`` parses.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.requirements import Requirement as Dependency
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from cloudimport.errors import ConfigurationError
from cloudimport.format import requirements as files
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target, normalise_name

#: A target names no patch release. 99 stands for "the newest there will be": images and Lambda
#: run the newest patch release, and an environment must not depend on who publishes it.
PATCH = 99


class Link(NamedTuple):
    """A wheel, or a source distribution, that a list names by its URL.

    ``hashes`` are ``sha256:<hex>`` (or sha384, sha512). ``page`` is the package's page of the
    index that the list names besides, "" if it names none.
    """

    filename: str
    url: str
    hashes: tuple[str, ...]
    page: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.filename.endswith(".whl")


class Constraint(NamedTuple):
    """A line of a file of constraints, and where it stands."""

    allowed: Dependency
    where: str


class Listed(NamedTuple):
    """A list of pins, however it was written.

    ``options`` are lines of pip's requirements file that say which indexes to use, such as
    ``--extra-index-url URL``; ``constraint_files`` those that were named by ``-c``, ``constraints`` what they
    have; ``links`` the files of pins that are to come from just there. It is for targets for which one of
    the markers ``environments`` holds, if there are any, and that ``python`` (PEP 440) allows.
    """

    requirements: tuple[Requirement, ...]
    options: tuple[str, ...] = ()
    constraint_files: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    links: Mapping[Pin, tuple[Link, ...]] = MappingProxyType({})
    environments: tuple[str, ...] = ()
    python: str = ""


def read_list(path: str | os.PathLike[str]) -> Listed:
    """Return what a requirements file and the files that it includes have.

    Raises ConfigurationError with all errors, one a line, each with file and line number.
    """
    lines: list[str] = []
    errors: list[str] = []
    found = files.collect(os.fspath(path), _read, errors, lines)
    errors += _marker_errors(found)
    constraint_files = tuple(dict.fromkeys(line[3:] for line in lines if line.startswith("-c ")))
    constraints = [one for path in constraint_files for one in _read_constraints(path, errors)]
    if errors:
        raise ConfigurationError("\n".join(errors))
    options = tuple(dict.fromkeys(line for line in lines if not line.startswith("-c ")))
    return Listed(tuple(found), options, constraint_files, tuple(constraints))


def read_pins(path: str | os.PathLike[str]) -> tuple[Requirement, ...]:
    """Return the pins of a requirements file; raises ConfigurationError as ``read_list`` does."""
    return read_list(path).requirements


def read_options(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the lines of a file of requirements, pinned or not, that say which indexes to use.

    Other lines may have errors. Constraints are among them, as ``-c FILE``.
    """
    lines: list[str] = []
    files.collect(os.fspath(path), _read, [], lines)
    return tuple(dict.fromkeys(lines))


def wanted(listed: Listed, target: Target) -> tuple[Requirement, ...]:
    """Return what ``for_target`` does of a list; raises ConfigurationError also for a target that the list
    is not for, and for each pin that the list's own constraints do not allow there.
    """
    if not allows_python(SpecifierSet(listed.python), target):
        raise ConfigurationError(f"the list is for Python {listed.python}: {target} is not")
    if listed.environments and not any(holds(marker, target) for marker in listed.environments):
        raise ConfigurationError(f"the list is for {' or '.join(listed.environments)}: {target} is not")
    found = for_target(listed.requirements, target)
    errors = [
        f"{one.where}: {one.pin} is not allowed by {allowed} at {where}"
        for allowed, where in listed.constraints
        for one in found
        if one.pin.name == canonicalize_name(allowed.name)
        and holds(str(allowed.marker or ""), target)
        and not allowed.specifier.contains(one.pin.version, prereleases=True)
    ]
    if errors:
        raise ConfigurationError("\n".join(errors))
    return found


def for_target(requirements: Iterable[Requirement], target: Target) -> tuple[Requirement, ...]:
    """Return the requirements whose marker holds for ``target``, one for each name.

    Lines of one pin are merged: extras are joined; of two lists of hashes, what both allow.
    Raises ConfigurationError, naming both lines, for each name with two versions, and for each
    marker that cannot be decided.
    """
    errors: list[str] = []
    found: dict[str, Requirement] = {}
    for requirement in requirements:
        try:
            if not holds(requirement.marker, target):
                continue
        except ConfigurationError as error:
            errors.append(f"{requirement.where}: {requirement.pin}: {error}")
            continue
        first = found.get(requirement.pin.name)
        if first is None:
            found[requirement.pin.name] = requirement
        elif first.pin == requirement.pin:
            found[requirement.pin.name] = _merged(first, requirement, errors)
        else:
            against = f"contradicts {first.pin} at {first.where}"
            errors.append(f"{requirement.where}: {requirement.pin} {against} for {target}")
    if errors:
        raise ConfigurationError("\n".join(errors))
    return tuple(found.values())


def holds(marker: str, target: Target, extra: str = "") -> bool:
    """Return whether a marker's text holds for ``target`` and ``extra``. Raises ConfigurationError."""
    if not marker:
        return True
    try:
        return Marker(marker).evaluate({**marker_environment(target), "extra": extra})
    except (InvalidMarker, InvalidVersion, UndefinedComparison, UndefinedEnvironmentName) as error:
        raise ConfigurationError(f"the marker {marker!r} cannot be decided: {_line(error)}") from None


def select(names: Iterable[str], pins: Iterable[Pin], flag: str) -> frozenset[Pin]:
    """Return the pins that ``names`` (``name`` or ``name==version``) mean.

    Raises ConfigurationError, with ``flag``, one line each, for names that are none of the pins.
    """
    listed = tuple(pins)
    found: set[Pin] = set()
    errors = []
    for text in names:
        wanted = Pin.parse(text) if "==" in text else None
        name = wanted.name if wanted else normalise_name(text)
        matching = [pin for pin in listed if (pin == wanted if wanted else pin.name == name)]
        found.update(matching)
        if not matching:
            errors.append(f"{flag} {text}: the requirements have no such pin")
    if errors:
        raise ConfigurationError("\n".join(errors))
    return frozenset(found)


def allows_python(wanted: SpecifierSet, target: Target) -> bool:
    """Return whether a Requires-Python fits: if the target's first or its newest patch release does."""
    versions = (f"{target.python[0]}.{target.python[1]}.0", python_full_version(target))
    return any(wanted.contains(version, prereleases=True) for version in versions)


def python_full_version(target: Target) -> str:
    """Return the ``python_full_version`` that stands for a target, such as ``3.12.99``."""
    return f"{target.python[0]}.{target.python[1]}.{PATCH}"


def marker_environment(target: Target) -> dict[str, str]:
    """Return PEP 508's environment markers for ``target``, whatever machine computes them.

    What a target does not say (the kernel's release and version) is empty, as uv has it.
    """
    full = python_full_version(target)
    return {
        "implementation_name": "cpython",
        "implementation_version": full,
        "os_name": "posix",
        "platform_machine": target.machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": full,
        "python_version": f"{target.python[0]}.{target.python[1]}",
        "sys_platform": "linux",
    }


def _read(path: str) -> str:
    return files.decode(Path(path).read_bytes())


_INCLUDE = re.compile(r"(?:-[rc]|--requirement|--constraint)(?:\s*=\s*|\s*)(?P<path>\S.*)\Z")


def _read_constraints(path: str, errors: list[str], above: tuple[str, ...] = ()) -> list[Constraint]:
    """Return what a file of constraints has, ranges or pins; what goes wrong is added to ``errors``."""
    try:
        lines = files.logical_lines(_read(path)) if path not in above else []
    except (OSError, UnicodeError) as error:
        errors.append(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}")
        return []
    found: list[Constraint] = []
    for number, line in lines:
        include = _INCLUDE.match(line)
        if include:
            inner = files.beside(path, include["path"].strip("\"' "))
            found += _read_constraints(inner, errors, (*above, path))
        elif not line.startswith("-"):  # an index: constraints do not say where packages come from
            try:
                found.append(Constraint(_dependency(files.without_hashes(line)), f"{path}:{number}"))
            except (ValueError, RecursionError) as error:
                errors.append(f"{path}:{number}: {line[:200]!r} is not a constraint: {_line(error)}")
    return found


def _dependency(line: str) -> Dependency:
    found = Dependency(line)
    if found.url or found.extras:
        raise ValueError("a constraint has a name and versions, no URL and no extras")
    return found


def _marker_errors(requirements: Sequence[Requirement]) -> list[str]:
    errors = []
    for requirement in requirements:
        try:
            Marker(requirement.marker or "python_version >= '3'")
        except InvalidMarker as error:
            what = f"the marker {requirement.marker!r} is not valid: {_line(error)}"
            errors.append(f"{requirement.where}: {requirement.pin}: {what}")
    return errors


def _merged(first: Requirement, other: Requirement, errors: list[str]) -> Requirement:
    both = first.hashes and other.hashes
    hashes = tuple(h for h in first.hashes if h in other.hashes) if both else first.hashes or other.hashes
    if both and not hashes:
        errors.append(f"{other.where}: {other.pin} has other hashes than at {first.where}")
    extras = tuple(sorted({*first.extras, *other.extras}))
    return first._replace(extras=extras, hashes=hashes)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
