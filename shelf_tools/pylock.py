"""``pylock.toml`` (PEP 751) as a list of pins: ``packaging`` reads and checks it.

A wheel, or a source distribution, comes from where the file says, with a hash that the file has.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from packaging.pylock import Package, PackageSdist, PackageWheel, Pylock, PylockValidationError
from packaging.utils import canonicalize_name

from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import Requirement, parse_lines
from cloudimport.ids import Pin
from shelf_tools.markers import decided
from shelf_tools.pins import Link, Listed

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Hashes that are strong enough to tie a file by, as in requirements files.
_STRONG = ("sha256", "sha384", "sha512")
_TABLE = re.compile(r"\s*\[\[\s*packages\s*\]\]")


def read_pylock(
    text: str,
    path: Path,
    extras: Collection[str] = (),
    groups: Collection[str] | None = None,
    *,
    exported: bool = False,
) -> Listed:
    """Return the pins of a lock file's text, with the files that it names.

    ``path`` names it in errors, and its relative paths are relative to it. ``groups`` None are the file's
    default ones. ``exported``: the text was made of the file at ``path`` and is not what it has, so that
    its line numbers say nothing. Raises ConfigurationError with all errors, one a line.
    """
    try:
        lock = Pylock.from_dict(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: is not TOML: {error}") from None
    except PylockValidationError as error:
        raise ConfigurationError(
            f"{path}: is not a lock file of PEP 751: {' '.join(str(error).split())}"
        ) from None
    places = _places("" if exported else text, path, len(lock.packages))
    reader = _Reader(lock, path, places, extras, groups)
    found = [one for at, package in enumerate(lock.packages) for one in reader.package(at, package)]
    if reader.errors:
        raise ConfigurationError("\n".join(reader.errors))
    environments = tuple(map(str, lock.environments or ()))
    return Listed(
        tuple(found), links=reader.links, environments=environments, python=str(lock.requires_python or "")
    )


def _places(text: str, path: Path, count: int) -> list[str]:
    """Return where each package stands: its line, if they are written as tables."""
    lines = [number for number, line in enumerate(text.splitlines(), 1) if _TABLE.match(line)]
    return [f"{path}:{line}" for line in lines] if len(lines) == count else [str(path)] * count


class _Reader:
    """Turns packages into requirements; what goes wrong is collected."""

    def __init__(
        self,
        lock: Pylock,
        path: Path,
        places: Sequence[str],
        extras: Collection[str],
        groups: Collection[str] | None,
    ) -> None:
        self.errors: list[str] = []
        self.links: dict[Pin, tuple[Link, ...]] = {}
        self._folder = path.parent
        self._places = places
        self._extras = frozenset(map(canonicalize_name, extras))
        self._groups = frozenset(lock.default_groups or () if groups is None else groups)
        known = {*(lock.dependency_groups or ()), *(lock.default_groups or ())}
        for what, asked, there in (
            ("extra", self._extras, set(lock.extras or ())),
            ("dependency group", self._groups, known),
        ):
            for name in sorted(asked - there):
                listed = ", ".join(sorted(there)) or "none"
                self.errors.append(f"{path}: has no {what} {name!r}: it has {listed}")

    def package(self, at: int, package: Package) -> Iterator[Requirement]:
        """Yield the requirement of a package, if extras and groups ask for it."""
        where = self._places[at]
        try:
            marker = decided(str(package.marker or ""), self._extras, self._groups)
            if marker is None:
                return
            yield self._requirement(package, marker, where)
        except ConfigurationError as error:
            self.errors.append(f"{where}: {package.name}: {error}")

    def _requirement(self, package: Package, marker: str, where: str) -> Requirement:
        if package.is_direct or not package.version:
            raise ConfigurationError("is a folder, an archive or a repository: pin a released version")
        wheels, sdist = package.wheels or (), package.sdist
        if sdist and wheels and not _strong(sdist):
            sdist = None  # it is of no use, and is not needed
        files = (*wheels, *((sdist,) if sdist else ()))
        links = tuple(self._link(file, _page(package)) for file in files)
        hashes = "".join(f" --hash={value}" for link in links for value in link.hashes)
        joined = f" ; {marker}" if marker else ""
        (found,) = parse_lines([f"{package.name}=={package.version}{joined}{hashes}"], where)
        self.links[found.pin] = tuple(dict.fromkeys((*self.links.get(found.pin, ()), *links)))
        return found._replace(where=where)

    def _link(self, file: PackageWheel | PackageSdist, page: str) -> Link:
        strong = _strong(file)
        if not strong:
            raise ConfigurationError(f"{file.filename} has no sha256, sha384 or sha512 hash")
        url = file.url or (self._folder / str(file.path)).resolve().as_uri()
        return Link(file.filename, url, strong, page)


def _strong(file: PackageWheel | PackageSdist) -> tuple[str, ...]:
    return tuple(f"{name}:{file.hashes[name].lower()}" for name in _STRONG if name in file.hashes)


def _page(package: Package) -> str:
    """Return a package's page of the index that it was found on (PEP 751: a base URL as of PEP 503)."""
    index = package.index or ""
    return f"{index.rstrip('/')}/{package.name}/" if index.startswith(("http://", "https://")) else ""
