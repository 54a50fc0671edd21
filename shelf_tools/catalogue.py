"""What a shelf has for a target: names, versions, builds; looked up as they are asked for.

The versions of a name are one listing of its prefix; all names are listed only to say which are near.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches

from packaging.requirements import Requirement as Dependency
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from cloudimport.errors import ConfigurationError
from cloudimport.format.content import Content
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from shelf_tools.builds import read_build
from shelf_tools.indexing import Built
from shelf_tools.reach import build_of
from shelf_tools.status import Mark
from shelf_tools.store import Store

#: Listings and builds that are read at a time.
_READERS = 8
#: Versions that a message names.
_SHOWN = 8


class Catalogue:
    """The builds of a shelf. ``marks``: which pins are yanked, and why."""

    def __init__(self, store: Store, source: Source, marks: Mapping[Pin, Mark]) -> None:
        self.url = store.url
        self._store, self._source, self._marks = store, source, marks
        self._versions: dict[str, dict[str, list[str]]] = {}
        self._builds: dict[tuple[Pin, str], Built] = {}

    def versions(self, name: str) -> dict[str, list[str]]:
        """Return the versions of a name, each with its targets; none if there is no such name.

        Raises a FetchError.
        """
        if name not in self._versions:
            found: dict[str, list[str]] = {}
            for key in self._store.list(f"packages/{name}/"):
                build = build_of(key) if key.endswith("/build.json") else None
                if build is not None:
                    found.setdefault(build[0].version, []).append(build[1])
            self._versions[name] = found
        return self._versions[name]

    def matching(self, name: str, ranges: SpecifierSet, target: Target) -> list[str]:
        """Return the versions for a target within ranges, newest first.

        Pre-releases as PEP 440 has it: if they are named, or nothing else fits. Yanked ones only if one is
        pinned exactly (PEP 592).
        """
        there = [Version(v) for v, targets in self.versions(name).items() if str(target) in targets]
        is_pinned = any(one.operator in ("==", "===") and "*" not in one.version for one in ranges)
        allowed = [v for v in there if is_pinned or Pin.of(name, str(v)) not in self._marks]
        return [Pin.of(name, str(v)).version for v in sorted(ranges.filter(allowed), reverse=True)]

    def build(self, pin: Pin, target: Target) -> Built:
        """Return a build. Raises ConfigurationError if it is gone, a FetchError or FormatError."""
        key = pin, str(target)
        if key not in self._builds:
            built = read_build(self._source, pin, str(target))
            if built is None:
                raise ConfigurationError(f"{pin} for {target} is not on {self.url}")
            self._builds[key] = built
        return self._builds[key]

    def metadata(self, pin: Pin, target: Target) -> Content:
        """Return what a version needs; raises as ``build``."""
        return self.build(pin, target).content

    def builds(self, pins: Collection[Pin], target: Target) -> list[Built]:
        """Return several builds, read at once; raises as ``build``."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(lambda pin: self.build(pin, target), pins))

    def look(self, names: Collection[str]) -> None:
        """List the versions of several names at once. Raises a FetchError."""
        with ThreadPoolExecutor(_READERS) as pool:
            list(pool.map(self.versions, names))

    def names(self) -> list[str]:
        """Return all names, by listing all of the shelf. Raises a FetchError."""
        found = (build_of(key) for key in self._store.list("packages/") if key.endswith("/build.json"))
        return sorted({build[0].name for build in found if build is not None})

    def problems(self, lines: Collection[str], targets: Collection[Target]) -> dict[str, str]:
        """Return what is wrong with each need that nothing on the shelf meets, and what is near it."""
        wanted = {line: Dependency(line) for line in lines}
        self.look({canonicalize_name(one.name) for one in wanted.values()})
        found = {line: self._problem(one, targets) for line, one in wanted.items()}
        return {line: problem for line, problem in found.items() if problem}

    def _problem(self, wanted: Dependency, targets: Collection[Target]) -> str:
        name = canonicalize_name(wanted.name)
        versions = self.versions(name)
        if not versions:
            near = get_close_matches(name, self.names(), 3)
            there = f"; near it there is {', '.join(near)}" if near else ""
            return f"{name} is not on {self.url}{there}: 'shelf publish' publishes it"
        if any(self.matching(name, wanted.specifier, target) for target in targets):
            return ""
        elsewhere = sorted(
            {
                one
                for v, of in versions.items()
                if wanted.specifier.contains(v, prereleases=True)
                for one in of
            }
        )
        if elsewhere and not {str(target) for target in targets} & set(elsewhere):
            wants = next(iter(targets), "another target")
            return (
                f"{name}{wanted.specifier} is on {self.url} for {', '.join(elsewhere)} only, and this takes "
                f"{wants}: 'shelf publish --target {wants}'"
            )
        here = self._here(name, targets)
        if elsewhere:
            return f"{name}: what is on {self.url} is yanked; {_named(name, here, wanted.specifier)}"
        return f"{name}{wanted.specifier} is not on {self.url}; {_named(name, here, wanted.specifier)}"

    def _here(self, name: str, targets: Collection[Target]) -> list[str]:
        usable = {str(target) for target in targets}
        return [v for v, of in self.versions(name).items() if usable & set(of)]


def _named(name: str, versions: Collection[str], ranges: SpecifierSet) -> str:
    """Say which versions there are, those that look most like what was asked for first."""
    if not versions:
        return f"of {name} there is no version for this target"
    asked = next((one.version for one in ranges), "")
    near = get_close_matches(asked, versions, 3, 0.5)
    newest = [str(v) for v in sorted(map(Version, versions), reverse=True)]
    listed = list(dict.fromkeys([*near, *newest]))
    more = ", …" if len(listed) > _SHOWN else ""
    return f"of {name} there is {', '.join(listed[:_SHOWN])}{more}"
