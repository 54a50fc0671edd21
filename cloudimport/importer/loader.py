"""Loaders: modules run from memory, extension modules from the site tree.

They are subclasses of importlib's own file loaders, so that whatever asks a loader anything
(inspect, pkgutil, pytest, Django, Jinja2) gets the answer that pip-installed code would get.
Import budget: ``marshal``, ``_imp``, ``importlib.machinery``.
"""

from __future__ import annotations

import _imp
import marshal
import os
import sys
from importlib._bootstrap_external import MAGIC_NUMBER  # importlib.util brings contextlib along
from importlib.machinery import ExtensionFileLoader, ModuleSpec, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType

from cloudimport.format.index import Module, Section
from cloudimport.ids import Pin
from cloudimport.site.room import is_full, no_space
from cloudimport.site.tree import SiteTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MAGIC = MAGIC_NUMBER.hex()


class FromTree:
    """What the loaders share: the module's place in the index."""

    def __init__(self, name: str, path: str, tree: SiteTree, section: Section, module: Module) -> None:
        # Not by the base class: its initialiser makes the file be there (cloudimport.site.patches).
        self.name, self.path = name, path
        self._tree, self._section, self._module = tree, section, module

    def pin_in(self, tree: SiteTree) -> Pin | None:
        """Return the pin whose module it loads, None if that is of another environment."""
        return self._section.pin if tree is self._tree else None

    def get_data(self, path: str) -> bytes:
        """Return the bytes of a file, of the environment or not. Raises OSError or a FetchError."""
        text = os.fsdecode(path)
        if text.startswith(self._tree.prefix):
            found = self._tree.index.find_file(os.path.normpath(text)[len(self._tree.prefix) :])
            if found is not None and not self._tree.is_changed(*found):
                return self._tree.read(*found)
        with open(path, "rb") as file:
            return file.read()


class ShelfSourceLoader(FromTree, SourceFileLoader):  # type: ignore[misc]  # typeshed: abc and machinery differ
    """Loads a source module: its code object from the shelf's bytecode when that fits this interpreter."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the module's code object. Raises a FetchError or SyntaxError."""
        code: CodeType
        tree, section = self._tree, self._section
        tree.activate(section.build)
        changed = tree.is_changed(section, self._module.file)
        if self._module.code and not changed and _bytecode_fits(tree.index.builds[section.build].magic):
            code = marshal.loads(tree.code(section, self._module))
            _imp._fix_co_filename(code, self.path)  # type: ignore[attr-defined]
            return code
        source = self.get_data(self.path) if changed else tree.read(section, self._module.file)
        code = self.source_to_code(source, self.path)
        return code

    def path_stats(self, path: str) -> dict[str, Any]:
        """Return time (seconds) and size (bytes) of the source, from the index."""
        file = self._module.file
        return {"mtime": self._section.stamp(file) / 1e9, "size": self._section.sizes[file]}

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Bytecode is never written: the shelf has it."""


class ShelfBytecodeLoader(FromTree, SourcelessFileLoader):
    """Loads a module that its distribution ships, or its publisher has left, as bytecode only."""

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the module's code object. Raises ImportError if it is of another interpreter."""
        self._tree.activate(self._section.build)
        try:
            code = super().get_code(fullname)
        except ImportError as error:
            found = self.get_data(self.path)[:4]
            if found == MAGIC_NUMBER:
                raise
            raise ImportError(
                f"{error}: {self._section.pin} has no source, and its bytecode is not of this Python (magic "
                f"number {found.hex()}, not {_MAGIC}): use the Python that it was published for",
                name=fullname,
                path=self.path,
            ) from None
        # What 'shelf publish --bytecode-only' writes names its source by the path below the root.
        if code is not None and code.co_filename == self._section.paths[self._module.file][:-1]:
            _imp._fix_co_filename(code, self.path[:-1])  # type: ignore[attr-defined]
        return code


class ShelfExtensionLoader(FromTree, ExtensionFileLoader):
    """Loads an extension module from the site tree, what it needs first."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Materialise the module's files and load it. Raises a FetchError or ImportError."""
        self._tree.activate(self._section.build)
        try:
            path = self._tree.extension(self._section, self._module)
        except OSError as error:
            if is_full(error):
                native = self._tree.native_bytes()
                raise no_space(self._section, self._module.file, error, native) from error
            raise ImportError(
                f"{self._section.pin}: {self.path} cannot be written, nor can a temporary folder "
                f"({error.strerror or error}): set CLOUDIMPORT_CACHE or TMPDIR to a folder with room",
                name=self.name,
                path=self.path,
            ) from error
        self.path = spec.origin = path  # elsewhere, if the site tree cannot be written
        return super().create_module(spec)


def _bytecode_fits(magic: str) -> bool:
    return magic == _MAGIC and not sys.flags.optimize


_LOADERS: dict[str, Any] = {
    "p": ShelfSourceLoader,
    "m": ShelfSourceLoader,
    "e": ShelfExtensionLoader,
    "f": ShelfExtensionLoader,
    "b": ShelfBytecodeLoader,
    "q": ShelfBytecodeLoader,
}


def make_spec(name: str, tree: SiteTree, section: Section, module: Module) -> ModuleSpec:
    """Return the spec that pip-installed code would have, with our loader."""
    path = tree.prefix + section.paths[module.file]
    is_package = module.kind in "pfq"
    loader = _LOADERS[module.kind](name, path, tree, section, module)
    spec = ModuleSpec(name, loader, origin=path, is_package=is_package)
    spec.has_location = True
    if is_package:
        spec.submodule_search_locations = [path.rpartition("/")[0]]
    return spec
