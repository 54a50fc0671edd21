"""Pinned requirements as the curator reads them: files in, requirements that hold for a target out.

``cloudimport.format.requirements`` reads the lines, for the runtime as well; what needs
``packaging`` (markers, PEP 508) is checked here. No marker is ever eval'ed: ``packaging`` parses.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName
from packaging.version import InvalidVersion

from cloudimport.errors import ConfigurationError
from cloudimport.format import requirements as files
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target, normalise_name

#: A target names no patch release. 99 stands for "the newest there will be": images and Lambda
#: run the newest patch release, and an environment must not depend on who publishes it.
PATCH = 99


def read_pins(path: str | os.PathLike[str]) -> tuple[Requirement, ...]:
    """Return the pins of a requirements file and of the files that it includes.

    Raises ConfigurationError with all errors, one a line, each with file and line number.
    """
    return _checked(path)[0]


def read_options(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Return the lines of a requirements file (and its includes) that say which indexes to use.

    They are pip options such as ``--extra-index-url URL``, for ``fetch(options=...)``.
    Raises ConfigurationError as ``read_pins`` does.
    """
    return _checked(path)[1]


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


def _checked(path: str | os.PathLike[str]) -> tuple[tuple[Requirement, ...], tuple[str, ...]]:
    """Return pins and index options of a file. Raises ConfigurationError with all errors."""
    options: list[str] = []
    errors: list[str] = []
    found = files.collect(os.fspath(path), _read, errors, options)
    errors += _marker_errors(found)
    if errors:
        raise ConfigurationError("\n".join(errors))
    return tuple(found), tuple(dict.fromkeys(options))


def _read(path: str) -> str:
    return files.decode(Path(path).read_bytes())


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
