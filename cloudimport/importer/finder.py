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
from _thread import get_ident
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from os import listdir as _listdir
from types import ModuleType

from cloudimport.importer.loader import make_spec
from cloudimport.site.tree import SiteTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

    from cloudimport.importer.bursts import Bursts

_STANDARD = sys.stdlib_module_names | set(sys.builtin_module_names)


class ShelfFinder:
    """The finder on ``sys.meta_path``."""

    def __init__(
        self,
        tree: SiteTree,
        watched: Mapping[str, Callable[[ModuleType], None]] | None = None,
        bursts: Bursts | None = None,
    ) -> None:
        """``watched`` says what to call when a module of the standard library was loaded.

        ``bursts`` holds garbage collection back meanwhile; None: nothing does.
        """
        self._bursts = bursts
        self._watched = watched or {}
        self._tree = tree
        self._root = tree.root
        self._prefix = tree.prefix
        self._find = tree.index.find_module
        self._names = tree.index.names
        self._listings: dict[str, frozenset[str]] = {}

    def before_first(self, told: Callable[[], None]) -> None:
        """Have ``told`` called when a module of the environment is first looked for: once, or a few times
        at once.
        """
        find = self._find

        def first(stem: str) -> Any:
            self._find = find
            told()
            return find(stem)

        self._find = first

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the environment, or None if it is not ours to find.

        A FetchError never comes from here: finding does no I/O.
        """
        if path is None:
            if fullname in _STANDARD:
                return self._watch(fullname) if fullname in self._watched else None
            if fullname not in self._names or self._shadowed(fullname):
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
        if not found:
            return None
        spec = make_spec(fullname, self._tree, *found)
        if self._bursts is not None:
            self._bursts.watch(spec)
        return spec

    def _watch(self, name: str) -> ModuleSpec | None:
        """Return the spec that ``PathFinder`` has, whose loader tells us when the module is there."""
        spec = PathFinder.find_spec(name)
        loader, told = getattr(spec, "loader", None), self._watched[name]
        if loader is None:
            return spec

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the next call, and whoever looks, finds the class's own
            loader.exec_module(module)
            told(module)

        loader.exec_module = exec_module
        return spec

    def invalidate_caches(self) -> None:
        """Forget what folders before the site tree hold (importlib.invalidate_caches)."""
        self._listings.clear()

    def _shadowed(self, name: str) -> bool:
        """Whether a folder that stands before the site tree on ``sys.path`` has ``name``."""
        for entry in sys.path:
            if entry == self._root:
                return False
            if entry.__class__ is not str or entry in _standard_folders():
                continue
            entry = entry or os.getcwd()  # what "" means changes with the current folder
            listing = self._listings.get(entry)
            if listing is None:
                # Our own folders say what they have without being listed, which would fill them.
                ours = entry.startswith(self._prefix)
                listing = self._listings[entry] = _Anything() if ours else _importable(entry)
            if name in listing and PathFinder.find_spec(name, [entry]) is not None:
                return True
        return False


def _relative(folder: str, prefix: str) -> str:
    """Return a folder of the tree relative to its root; packages write ``__path__`` in many ways."""
    if folder.endswith("/") or "//" in folder or "/." in folder:
        folder = os.path.normpath(folder)
    return folder[len(prefix) :]


def _importable(entry: str) -> frozenset[str]:
    """Return the first parts of names in a folder (an archive or a missing folder: whatever it may have)."""
    try:
        return frozenset(name.partition(".")[0] for name in os.listdir(entry))
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


class FolderFinder(FileFinder):
    """A path entry finder for one folder of the site tree (PEP 302, PEP 420).

    Names that the environment does not have are looked up on the real folder, so that modules
    written into it are found, as they are under pip. It is a FileFinder for those who ask what
    they have before them: pkg_resources finds distributions and namespaces only through one.
    """

    def __init__(self, path: str, tree: SiteTree, details: list[Any]) -> None:
        super().__init__(path, *details)
        self._tree = tree
        self._below = _relative(path, tree.prefix)

    def find_spec(self, fullname: str, target: Any = None) -> ModuleSpec | None:
        """Return a spec; for a folder without ``__init__`` one that says where the portion is."""
        if not self._below and fullname in _STANDARD:
            return None  # in Lambda the site tree's root stands before the standard library
        tail = fullname.rpartition(".")[2]
        stem = f"{self._below}/{tail}" if self._below else tail
        found = self._tree.index.find_module(stem)
        if found:
            return make_spec(fullname, self._tree, *found)
        if self._tree.make_folder(stem):
            spec = ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [self._tree.prefix + stem]
            return spec
        return super().find_spec(fullname, target)

    def iter_modules(self, prefix: str = "") -> Iterator[tuple[str, bool]]:
        """Yield (name, is package) for each module of the folder, for ``pkgutil.iter_modules``."""
        seen = dict(self._tree.modules_in(self._below))
        try:
            names = _listdir(self.path)
        except OSError:
            names = []
        for name in {name.partition(".")[0] for name in names}.difference(seen):
            spec = super().find_spec(name)  # a module that a program has written here
            if spec is not None and spec.loader is not None:
                seen[name] = spec.submodule_search_locations is not None
        for name in sorted(seen):
            if name != "__init__" and "." not in name:
                yield prefix + name, seen[name]


def teach_pkgutil(pkgutil: Any) -> None:
    """Have ``pkgutil`` ask a FolderFinder for its modules; for a FileFinder it would list folders."""
    pkgutil.iter_importer_modules.register(FolderFinder, FolderFinder.iter_modules)


def path_hook(tree: SiteTree) -> Callable[[str], FolderFinder]:
    """Return a hook for ``sys.path_hooks`` that answers for the tree's folders and no others."""
    details = [
        (ExtensionFileLoader, EXTENSION_SUFFIXES),
        (SourceFileLoader, SOURCE_SUFFIXES),
        (SourcelessFileLoader, BYTECODE_SUFFIXES),
    ]

    asking: set[int] = set()  # threads whose fetch may import, and so ask for the same path again

    def cloudimport_path_hook(path: str) -> FolderFinder:
        if path == tree.root:
            return FolderFinder(path, tree, details)
        if path.startswith(tree.prefix):
            relative = _relative(path, tree.prefix)
            if tree.index.find_folder(relative):
                return FolderFinder(tree.prefix + relative, tree, details)
            me = get_ident()
            if me not in asking:
                asking.add(me)
                try:
                    tree.ensure(relative)  # an archive, for zipimport's hook
                finally:
                    asking.discard(me)
        raise ImportError("not a folder of the site tree", path=path)

    return cloudimport_path_hook
