"""Who needs a build: the environments that have it, and the packages in them that ask for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from cloudimport.errors import CloudImportError
from cloudimport.format import keys
from cloudimport.format.content import Content
from cloudimport.format.index import EnvironmentIndex
from cloudimport.format.records import Ref
from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.record import read_record
from shelf_tools import pins
from shelf_tools.check import check
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
    """Who needs a build. ``packages``: a pin, and the lines of its Requires-Dist that ask for the build's.

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
    indexes: list[EnvironmentIndex] = []
    with ThreadPoolExecutor(_READERS) as pool:
        read = pool.map(lambda row: _index(source, row[1], problems), refs.values())
        for (one, ref, replaced), index in zip(refs.values(), read, strict=True):
            if index is not None and build[0] in {found.pin for found in index.builds}:
                needs.append(Need(one.digest, one.pointer.requirements, ref.digest, replaced))
                indexes.append(index)
        wanted = {_key(one.pin, one.content, build[1]): None for index in indexes for one in index.builds}
        found = pool.map(lambda key: _content(source, key, problems), wanted)
        contents = {key: one for key, one in zip(wanted, found, strict=True) if one is not None}
    packages: dict[Pin, dict[str, None]] = {}
    for index in indexes:
        for pin, lines in _asking(index, build, contents, problems):
            packages.setdefault(pin, {}).update(dict.fromkeys(lines))
    rows = tuple((pin, tuple(lines)) for pin, lines in sorted(packages.items()))
    return NeededBy(tuple(sorted(needs)), rows, tuple(dict.fromkeys(problems)))


def _asking(
    index: EnvironmentIndex, build: Build, contents: Mapping[str, Content], problems: list[str]
) -> Iterator[tuple[Pin, tuple[str, ...]]]:
    """Yield what asks for a build in one environment, with the extras and markers that hold there."""
    target = Target.parse(build[1])
    keyed = ((one.pin, _key(one.pin, one.content, build[1])) for one in index.builds)
    there = {pin: contents[key] for pin, key in keyed if key in contents}
    try:
        listed = pins.for_target(parse_lines(index.requirements), target)
    except CloudImportError as error:
        problems.append(str(error))
        return
    for pin, others in check(there, listed, target).needs.items():
        if build[0] in others:
            yield pin, others[build[0]]


def _index(source: Source, ref: Ref, problems: list[str]) -> EnvironmentIndex | None:
    try:
        return EnvironmentIndex(read_record(source, keys.environment_index(ref.digest), ref), ref)
    except CloudImportError as error:
        problems.append(str(error))
        return None


def _key(pin: Pin, content: str, target: str) -> str:
    return f"{keys.build_prefix(*pin, target)}content-{content}"


def _content(source: Source, key: str, problems: list[str]) -> Content | None:
    try:
        return Content.decode(plain(key, source.read(key)), key)
    except CloudImportError as error:
        problems.append(str(error))
        return None
