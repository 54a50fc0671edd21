"""Who needs a build: the environments that have it, and the packages in them that ask for it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Dependency

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format import keys
from cloudimport.format.content import Content
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.records import Ref
from cloudimport.ids import Pin, normalise_name
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools.objects import plain
from shelf_tools.reach import Build, environments
from shelf_tools.store import Store

#: Records that are read at a time.
_READERS = 8


class Need(NamedTuple):
    """An environment that has a build: its requirements digest, the index, and whether that was replaced."""

    environment: str
    requirements: tuple[str, ...]
    pinned: str
    replaced: bool


class NeededBy(NamedTuple):
    """Who needs a build. ``packages``: a pin, and the lines of its Requires-Dist that name the build's.

    ``problems``: lines on environments and packages that could not be read.
    """

    environments: tuple[Need, ...]
    packages: tuple[tuple[Pin, tuple[str, ...]], ...]
    problems: tuple[str, ...]


def needed_by(store: Store, source: Source, build: Build) -> NeededBy:
    """Return who needs a build. Raises a FetchError if the store cannot be listed, FormatError for a damaged
    pointer of an environment.
    """
    refs = {
        (one.digest, ref.digest): (one, ref, one.pointer.targets.get(target) != ref)
        for one in environments(store)
        for target, ref in one.indexes()
        if target == build[1]
    }
    problems: list[str] = []
    needs: list[Need] = []
    beside: dict[str, Pin] = {}
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda row: _index(source, row[1], problems), refs.values())
        for (one, ref, replaced), index in zip(refs.values(), read, strict=True):
            if index is None or build[0] not in {found.pin for found in index.builds}:
                continue
            needs.append(Need(one.digest, one.pointer.requirements, ref.digest, replaced))
            for found in index.builds:
                prefix = keys.build_prefix(*found.pin, build[1])
                beside[f"{prefix}content-{found.content}"] = found.pin
        asking = pool.map(lambda key: _asks(source, key, build[0].name, problems), beside)
        packages = {pin: lines for pin, lines in zip(beside.values(), asking, strict=True) if lines}
    return NeededBy(tuple(sorted(needs)), tuple(sorted(packages.items())), tuple(dict.fromkeys(problems)))


def _index(source: Source, ref: Ref, problems: list[str]) -> EnvironmentIndex | None:
    try:
        return EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    except CloudImportError as error:
        problems.append(str(error))
        return None


def _asks(source: Source, key: str, name: str, problems: list[str]) -> tuple[str, ...]:
    """Return the dependencies of a content that name a package, under whatever marker."""
    try:
        content = Content.decode(plain(key, source.read(key)), key)
    except CloudImportError as error:
        problems.append(str(error))
        return ()
    return tuple(line for line in content.requires if content.name != name and _name(line) == name)


def _name(line: str) -> str:
    try:
        return normalise_name(Dependency(line).name)
    except (InvalidRequirement, ConfigurationError, ValueError, RecursionError):
        return ""
