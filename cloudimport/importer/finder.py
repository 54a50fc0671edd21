"""Finders: a dict look-up for each import, no I/O, and None for what is not ours.

Two of them share one look-up. ``ShelfFinder`` stands on ``sys.meta_path`` before ``PathFinder`` and
answers for what the environment has. ``FolderFinder`` is what ``PathFinder`` gets, by a path
hook, for each folder of the site tree on ``sys.path`` or on a package's ``__path__``: so namespace
packages are PathFinder's own, spread over distributions and local folders alike.

Who wins is the order of ``sys.path``, as it is under pip: whatever folder stands there before the
site tree comes first, and the standard library before all. No lock is held anywhere here.
Import budget: ``importlib.machinery``, ``sys``, ``os``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import FileFinder, ModuleSpec, PathFinder
from typing import Any

from cloudimport.importer.loader import make_spec
from cloudimport.site.tree import SiteTree

_STANDARD = sys.stdlib_module_names | set(sys.builtin_module_names)


class ShelfFinder:
    """The finder on ``sys.meta_path``."""

    def __init__(self, tree: SiteTree) -> None:
        self._tree = tree
        self._root = tree.root
        self._prefix = tree.prefix
        self._find = tree.index.find_module
        self._names = tree.index.names
        self._listings: dict[str, frozenset[str]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the environment, or None if it is not ours to find.

        A FetchError never comes from here: finding does no I/O.
        """
        if path is None:
            if fullname not in self._names or fullname in _STANDARD or self._shadowed(fullname):
                return None
            stem = fullname
        else:
            if fullname.partition(".")[0] not in self._names:
                return None
            folder = next(iter(path), None)
            if folder.__class__ is not str or not folder.startswith(self._prefix):
                return None
            stem = f"{folder[len(self._prefix) :]}/{fullname.rpartition('.')[2]}"
        found = self._find(stem)
        return make_spec(fullname, self._tree, *found) if found else None

    def invalidate_caches(self) -> None:
        """Forget what folders before the site tree hold (importlib.invalidate_caches)."""
        self._listings.clear()

    def _shadowed(self, name: str) -> bool:
        """Whether a folder that stands before the site tree on ``sys.path`` has ``name``."""
        for entry in sys.path:
            if entry == self._root:
                return False
            if entry in _standard_folders():
                continue
            listing = self._listings.get(entry)
            if listing is None:
                listing = self._listings[entry] = _importable(entry)
            if name in listing and PathFinder.find_spec(name, [entry]) is not None:
                return True
        return False


def _importable(entry: str) -> frozenset[str]:
    """Return the first parts of names in a folder (an archive or a missing folder: whatever it may have)."""
    try:
        return frozenset(name.partition(".")[0] for name in os.listdir(entry or "."))
    except NotADirectoryError:
        return _Anything()
    except OSError:
        return frozenset()


class _Anything(frozenset[str]):
    """For entries that only their own importer can list, such as zip archives."""

    def __contains__(self, name: object) -> bool:
        return True


_standard: frozenset[str] = frozenset()


def _standard_folders() -> frozenset[str]:
    global _standard
    if not _standard:
        library = os.path.dirname(os.__file__)
        archive = f"python{sys.version_info[0]}{sys.version_info[1]}.zip"
        _standard = frozenset({library, f"{library}/lib-dynload", f"{os.path.dirname(library)}/{archive}"})
    return _standard


class FolderFinder:
    """A path entry finder for one folder of the site tree (PEP 302, PEP 420).

    Names that the environment does not have are looked up on the real folder, so that modules
    written into it are found, as they are under pip.
    """

    def __init__(self, path: str, tree: SiteTree, details: list[Any]) -> None:
        self.path = path
        self._tree = tree
        self._real = FileFinder(path, *details)
        self._relative = path[len(tree.prefix) :]

    def find_spec(self, fullname: str, target: Any = None) -> ModuleSpec | None:
        """Return a spec; for a folder without ``__init__`` one that says where the portion is."""
        tail = fullname.rpartition(".")[2]
        stem = f"{self._relative}/{tail}" if self._relative else tail
        found = self._tree.index.find_module(stem)
        if found:
            return make_spec(fullname, self._tree, *found)
        if self._tree.index.find_folder(stem):
            self._tree.ensure(stem)
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [self._tree.prefix + stem]
            return spec
        return self._real.find_spec(fullname, target)

    def invalidate_caches(self) -> None:
        """Forget what the real folder holds."""
        self._real.invalidate_caches()

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Yield (name, is package) for each module of the folder, for ``pkgutil.iter_modules``."""
        import pkgutil

        seen = {}
        for stem, is_package in self._tree.modules_in(self._relative):
            seen[stem] = is_package
        for name, is_package in pkgutil.iter_importer_modules(self._real):
            seen.setdefault(name, is_package)
        for name in sorted(seen):
            if name != "__init__" and "." not in name:
                yield prefix + name, seen[name]


def path_hook(tree: SiteTree) -> Callable[[str], FolderFinder]:
    """Return a hook for ``sys.path_hooks`` that answers for the tree's folders and no others."""
    from importlib.machinery import (
        BYTECODE_SUFFIXES,
        EXTENSION_SUFFIXES,
        SOURCE_SUFFIXES,
        ExtensionFileLoader,
        SourceFileLoader,
        SourcelessFileLoader,
    )

    details = [
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (SourceFileLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    ]

    def cloudimport_path_hook(path: str) -> FolderFinder:
        if path == tree.root:
            return FolderFinder(tree.prefix, tree, details)
        if path.startswith(tree.prefix) and tree.index.find_folder(path[len(tree.prefix) :]):
            return FolderFinder(path, tree, details)
        raise ImportError("not a folder of the site tree", path=path)

    return cloudimport_path_hook
