"""What importing a package read on one target, told for another, where it cannot be imported here.

The same release has the same modules on every target: only names of native files say which machine and
interpreter they are for. What does not map is left out; it is a hint either way. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from cloudimport.format.records import Extents
from cloudimport.ids import Pin, Target
from shelf_tools.indexing import Built
from shelf_tools.trace import Opened, Trace

#: Tags of an extension module's name: CPython's ``EXT_SUFFIX`` and PEP 3149's stable ABI.
_EXTENSION = re.compile(r"\.(cpython-3[0-9]+[a-z]*(-[a-z0-9_]+)*|abi3)\.so$")
#: auditwheel puts the first eight digits of a library's digest into its name.
_HASH = re.compile(r"-[0-9a-f]{8}(?=[-.])")
_MACHINE = re.compile(r"x86[_-]64|amd64|aarch64|arm64")
_PYTHON = re.compile(r"(cp|cpython-|python)3\.?[0-9]+")


def stem(path: str) -> str:
    """Return what a file is called whatever its target: no tags, no hash, no machine."""
    folder, slash, base = path.rpartition("/")
    base = _EXTENSION.sub(".so", base)
    if ".so" in base:
        base = _HASH.sub("", base)
    return _PYTHON.sub(r"\1", _MACHINE.sub("machine", f"{folder}{slash}{base}"))


class Names:
    """The paths of one build, found by what a build for another target calls them."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._by_stem: dict[str, str] = {}
        for path in sorted(self._paths):
            key = stem(path)
            self._by_stem[key] = "" if key in self._by_stem else path  # "": two files, neither is meant

    def find(self, path: str) -> str:
        """Return the path here of what is called ``path`` elsewhere, or ""."""
        return path if path in self._paths else self._by_stem.get(stem(path), "")

    def find_all(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Return those of the paths that are here, each once, in their order."""
        return tuple(dict.fromkeys(filter(None, map(self.find, paths))))


class Donor(NamedTuple):
    """A build whose layout says what importing it read, and whether this very publish made it."""

    built: Built
    is_ours: bool

    @property
    def traced(self) -> str:
        """The target that it was traced for."""
        return self.built.layout.traced or self.built.content.target


def best(donors: Iterable[Donor], target: Target) -> Donor | None:
    """Return the donor whose trace fits ``target`` best, or None if none of them was traced.

    The same Python before the nearest, this publish's before the shelf's, a trace of its own before one that
    it has borrowed.
    """

    def distance(donor: Donor) -> tuple[int, bool, bool, str]:
        other = donor.built.content.target
        away = abs(Target.parse(other).python[1] - target.python[1])
        return away, not donor.is_ours, bool(donor.built.layout.traced), other

    return min((donor for donor in donors if donor.built.layout.order == "trace"), key=distance, default=None)


def borrow(donor: Donor, pin: Pin, names: Callable[[str], Names | None]) -> Trace:
    """Return the trace that a donor's layout holds, with the names that files have for another target.

    ``names`` gives the files of the package and of others that are published with it, None for a package that
    is not.
    """
    layout = donor.built.layout
    own = names(pin.name) or Names(())
    in_order = _in_order(donor.built)
    lead = [row for row in in_order if row.block < layout.lead]
    files = donor.built.content.files
    follow = (
        Opened(name, path, "code")
        for name, paths in layout.follow.items()
        for path in _found(names(name), paths)
    )
    return Trace(
        opened=(*_opened(lead, pin, own), *follow),
        c_opened=own.find_all(files[at].path for at in layout.eager),
        failed={},
        notes=(),
        reached=tuple(_opened(in_order[len(lead) :], pin, own)),
        imports=_imports(layout.imports, own, names),
    )


class _Row(NamedTuple):
    block: int
    offset: int
    path: str
    kind: str


def _in_order(built: Built) -> list[_Row]:
    """Return files and code objects as they lie in the packs."""
    rows: list[_Row] = []

    def add(extents: Extents, path: str, kind: str) -> None:
        if extents:
            rows.append(_Row(extents[0], extents[1], path, kind))

    for file, extents in zip(built.content.files, built.layout.files, strict=True):
        add(extents, file.path, "file")
    for path, extents in built.layout.code.items():
        add(extents, path, "code")
    return sorted(rows)


def _opened(rows: Sequence[_Row], pin: Pin, own: Names) -> Iterable[Opened]:
    for row in rows:
        path = own.find(row.path)
        if path:
            yield Opened(pin.name, path, row.kind)


def _found(names: Names | None, paths: Iterable[str]) -> tuple[str, ...]:
    return names.find_all(paths) if names else ()


def _imports(
    imports: Mapping[str, Mapping[str, tuple[str, ...]]], own: Names, names: Callable[[str], Names | None]
) -> dict[str, dict[str, tuple[str, ...]]]:
    out: dict[str, dict[str, tuple[str, ...]]] = {}
    for path, by in imports.items():
        here = own.find(path)
        found = {name: rows for name, others in by.items() if (rows := _found(names(name), others))}
        if here and found:
            out[here] = found
    return out
