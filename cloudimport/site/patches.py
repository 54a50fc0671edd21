"""Files of the site tree appear when Python asks for them: function-level, no audit hook.

The functions by which Python code opens, stats and lists are replaced by wrappers that first
make sure that a path below the tree's root is there; any other path costs one prefix test.
C code that opens by itself sees what is materialised, and a loud ENOENT for the rest.

Import budget: ``os``, ``sys``, ``errno``, ``types``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any

from cloudimport.errors import FetchError
from cloudimport.site.tree import SiteTree

#: Functions whose first argument is a path that must be there.
_BY_PATH = (
    ("builtins", "open"),
    ("io", "open"),
    ("io", "open_code"),
    ("os", "open"),
    ("os", "stat"),
    ("os", "lstat"),
    ("os", "access"),
    ("os", "chmod"),
    ("os", "chdir"),
    ("os", "link"),
    ("os", "remove"),
    ("os", "rename"),
    ("os", "replace"),
    ("os", "truncate"),
    ("os", "unlink"),
    ("os", "utime"),
)
#: Names under which modules that were loaded before us may have captured one of them.
_ALIASES = (
    "open _builtin_open bltn_open builtin_open io_open open_code stat lstat listdir scandir access os_open os_stat"
).split()
#: Classes of the standard library that capture them: 3.10; 3.12 and later.
_CAPTURING_CLASSES = (
    ("pathlib", "_NormalAccessor"),
    ("glob", "_Globber"),
    ("glob", "_GlobberBase"),
    ("glob", "_StringGlobber"),
)
#: These must keep the originals: they are the machinery below us.
_UNTOUCHED = frozenset({"posix", "_io", "builtins", "io", "os", "_frozen_importlib_external"})


class Patches:
    """Replaces and restores; one tree at a time."""

    def __init__(self, tree: SiteTree) -> None:
        self._tree = tree
        self._prefix = tree.prefix
        self._replaced: list[tuple[Any, str, Any]] = []
        self._inside = False

    def install(self) -> None:
        """Replace the functions, also where loaded modules captured them."""
        wrappers: dict[int, tuple[Any, Any]] = {}
        for module_name, name in _BY_PATH:
            module = sys.modules[module_name]  # builtins, io and os are in every interpreter
            original = getattr(module, name)
            known = wrappers.get(id(original))
            wrapper = known[1] if known else self._by_path(original, name)
            wrappers[id(original)] = (original, wrapper)
            self._replace(module, name, wrapper)
        for name, make in (("listdir", self._listdir), ("scandir", self._scandir)):
            original = getattr(os, name)
            wrappers[id(original)] = (original, make(original))
            self._replace(os, name, wrappers[id(original)][1])
        self._replace_captured(wrappers)

    def uninstall(self) -> None:
        """Put every original back where nobody else has replaced ours since."""
        for owner, name, original in reversed(self._replaced):
            if getattr(getattr(owner, name, None), "__self__", None) is self:
                setattr(owner, name, original)
        self._replaced.clear()

    def _replace(self, owner: Any, name: str, wrapper: Any) -> None:
        self._replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, wrapper)

    def _replace_captured(self, wrappers: dict[int, tuple[Any, Any]]) -> None:
        for module_name, module in list(sys.modules.items()):
            if module_name in _UNTOUCHED or module_name.startswith("cloudimport"):
                continue
            names = getattr(module, "__dict__", None)
            if type(names) is not dict:
                continue
            for alias in _ALIASES:
                found = wrappers.get(id(names.get(alias)))
                if found and found[0] is names[alias]:
                    self._replace(module, alias, found[1])
        for module_name, class_name in _CAPTURING_CLASSES:
            owner = getattr(sys.modules.get(module_name), class_name, None)
            for name, captured in list(vars(owner).items()) if owner else ():
                original = captured.__func__ if isinstance(captured, staticmethod) else captured
                found = wrappers.get(id(original))
                if found:
                    self._replaced.append((owner, name, captured))
                    setattr(owner, name, found[1])

    # Paths

    def _relative(self, path: Any) -> str | None:
        """Return a path below the root, relative to it and normalised; None for any other path."""
        if path.__class__ is not str:
            path = _text(path)
            if path is None:
                return None
        if not path.startswith(self._prefix):
            if not self._inside or path.startswith("/"):
                return "" if path == self._tree.root else None
            path = os.path.join(os.getcwd(), path)
        if "//" in path or "/." in path:
            path = os.path.normpath(path)
        if not path.startswith(self._prefix):
            return "" if path == self._tree.root else None
        relative: str = path[len(self._prefix) :]
        return relative.rstrip("/")

    def _ensure(self, path: Any) -> None:
        relative = self._relative(path)
        if relative:
            with _as_oserror(path):
                self._tree.ensure(relative)

    # Wrappers

    def _by_path(self, original: Callable[..., Any], name: str) -> Any:
        if name == "chdir":
            return self._dressed(self._chdir(original), original)
        if name in ("stat", "lstat"):
            return self._dressed(self._stat(original), original)
        prefix = self._prefix

        def wrapper(self: Patches, *args: Any, **kwargs: Any) -> Any:
            path = args[0] if args else kwargs.get("path", kwargs.get("file", kwargs.get("src")))
            if path.__class__ is not str or path.startswith(prefix) or self._inside:
                self._ensure(path)
            return original(*args, **kwargs)

        return self._dressed(wrapper, original)

    def _stat(self, original: Callable[..., Any]) -> Callable[..., Any]:
        prefix = self._prefix

        def wrapper(self: Patches, path: Any, *args: Any, **kwargs: Any) -> Any:
            if path.__class__ is not str or path.startswith(prefix) or self._inside:
                relative = self._relative(path)
                if relative:
                    status = self._tree.stat(relative)
                    if status is not None:
                        return status
                    self._ensure(path)
            return original(path, *args, **kwargs)

        return wrapper

    def _dressed(self, wrapper: Callable[..., Any], original: Callable[..., Any]) -> Any:
        """Make a wrapper look like what it replaces.

        A bound method, since it is bound already: like a built-in function, and unlike a plain
        one, it can be captured as a class attribute (as pathlib of Python 3.10 does).
        """
        for attribute in ("__name__", "__qualname__", "__doc__", "__module__", "__text_signature__"):
            value = getattr(original, attribute, None)
            if value is not None:
                setattr(wrapper, attribute, value)
        wrapper.__wrapped__ = original  # type: ignore[attr-defined]
        return MethodType(wrapper, self)

    def _chdir(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def chdir(self: Patches, path: Any) -> None:
            self._ensure(path)
            original(path)
            self._inside = (os.getcwd() + "/").startswith(self._prefix)

        return chdir

    def _listdir(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def listdir(self: Patches, path: Any = ".") -> Any:
            relative = self._relative(path)
            if relative is None:
                return original(path)
            self._fill_folder(relative, path)
            found = original(path)
            present = {os.fsdecode(n) for n in found}
            pending = self._tree.pending(relative, present.__contains__)
            return found + ([os.fsencode(n) for n in pending] if isinstance(path, bytes) else pending)

        return self._dressed(listdir, original)

    def _scandir(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def scandir(self: Patches, path: Any = ".") -> Any:
            relative = self._relative(path)
            if relative is None:
                return original(path)
            self._fill_folder(relative, path)
            return _Scan(original(path), path, lambda present: self._tree.pending(relative, present))

        return self._dressed(scandir, original)

    def _fill_folder(self, relative: str, path: Any) -> None:
        with _as_oserror(path):
            self._tree.ensure_folder(relative)


def _text(path: Any) -> str | None:
    if isinstance(path, int):
        return None
    try:
        return os.fsdecode(path)
    except TypeError:
        return None


class _as_oserror:
    """Callers of file functions expect OSError: a fetch that failed becomes EIO, with its text."""

    def __init__(self, path: Any) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FetchError):
            raise OSError(errno.EIO, str(error), self._path) from error


class PendingEntry:
    """What ``os.scandir`` yields for a file that is not materialised yet; like ``os.DirEntry``."""

    def __init__(self, folder: Any, name: Any) -> None:
        self.name = os.fsencode(name) if isinstance(folder, bytes) else name
        self.path = os.path.join(folder, self.name)

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """A pending entry is always a file."""
        return False

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """A pending entry is always a file."""
        return True

    def is_symlink(self) -> bool:
        """Shelves have no links."""
        return False

    def is_junction(self) -> bool:
        """Junctions are a thing of Windows."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Materialise the file and return its status."""
        return os.stat(self.path)

    def inode(self) -> int:
        """Materialise the file and return its inode."""
        return os.stat(self.path).st_ino


class _Scan:
    """An iterator with the interface of that of ``os.scandir``, pending entries last."""

    def __init__(self, real: Any, folder: Any, pending: Callable[[Callable[[str], bool]], list[str]]) -> None:
        self._real = real
        self._entries = self._iterate(os.fspath(folder), pending)

    def _iterate(self, folder: Any, pending: Callable[[Callable[[str], bool]], list[str]]) -> Iterator[Any]:
        present: set[str] = set()
        for entry in self._real:
            present.add(os.fsdecode(entry.name))
            yield entry
        for name in pending(present.__contains__):
            yield PendingEntry(folder, name)

    def __iter__(self) -> _Scan:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> _Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the real iterator."""
        self._entries.close()  # type: ignore[attr-defined]
        self._real.close()
