"""What stands in place of the functions by which Python code opens, stats, lists and runs files.

Each makes sure that a path in the site tree is there and calls the original; any other path costs
one substring test. They are instances, not functions: like a built-in function, and unlike a
plain one, an instance can be captured as a class attribute without binding (pathlib of
Python 3.10 does). They pickle and copy by name, as built-in functions do, and
``inspect.signature`` sees the original's.

Import budget: ``os``.
"""

from __future__ import annotations

import os
import sys

from cloudimport.settings import is_native
from cloudimport.site.children import completed
from cloudimport.site.native import native_module
from cloudimport.site.paths import Paths
from cloudimport.site.scanning import Scan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    #: What ``_before`` returns: None (call the original), (its result,), or (args, kwargs) for it.
    _Before = tuple[Any] | tuple[tuple[Any, ...], dict[str, Any]] | None


class _Call:
    """The call of a wrapper, as ``cloudimport/_native.c`` has it, for where that was not built."""

    _call: Callable[..., Any]
    _parameter: str | None
    _mark: str
    _paths: Paths
    _descriptors: bool
    _before: Callable[[tuple[Any, ...], dict[str, Any]], _Before]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the first argument's file be there, and call the original."""
        if self._parameter is not None:
            path: Any = args[0] if args else kwargs.get(self._parameter)
            elsewhere = path.__class__ is str and "dir_fd" not in kwargs and self._mark not in path
            if elsewhere and (path[:1] == "/" or not self._paths.inside):
                return self._call(*args, **kwargs)
        other = self._before(args, kwargs)
        if other is None:
            return self._call(*args, **kwargs)
        if len(other) == 1:
            return other[0]
        return self._call(*other[0], **other[1])


if TYPE_CHECKING:
    _Base = _Call
else:
    # In C it is no frame in the tracebacks of what the original raises.
    _Base = getattr(native_module() if is_native(os.environ) else None, "Call", _Call)


class Wrapper(_Base):
    """A function of ``module`` with files that appear when they are asked for."""

    #: Name of the first parameter, which is a path; None: every call goes through ``_before``.
    parameter: str | None = "path"
    #: Whether it takes descriptors of folders.
    descriptors = False

    def __init__(self, original: Callable[..., Any], module: str, paths: Paths) -> None:
        self.__wrapped__ = self._call = original
        self._parameter, self._mark, self._paths = self.parameter, paths.mark, paths
        self._descriptors = self.descriptors
        self.__module__ = module
        for attribute in ("__name__", "__qualname__", "__doc__"):
            setattr(self, attribute, getattr(original, attribute))
        self.__qualname__: str = original.__qualname__

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    # So that it is found in ``os.supports_fd`` and the other sets of functions there.

    def __eq__(self, other: object) -> bool:
        return self is other or self.__wrapped__ is other

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __reduce__(self) -> str:
        return self.__qualname__

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        """Make the first argument's file be there; return arguments with its other place, if it has one."""
        path = args[0] if args else kwargs.get(self.parameter or "")
        other = self._paths.there(path, kwargs.get("dir_fd"))
        if other is None:
            return None
        if args:
            return (other, *args[1:]), kwargs
        return args, {**kwargs, self.parameter or "": other}


class Open(Wrapper):
    """``open``."""

    parameter = "file"


class Stat(Wrapper):
    """``os.stat`` and ``os.lstat``: while a package scans for files, the index answers."""

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        if len(args) > 1 or not kwargs.keys() <= {"path", "dir_fd", "follow_symlinks"}:
            return None
        path = args[0] if args else kwargs.get("path")
        relative = self._paths.relative(path, kwargs.get("dir_fd"))
        status = self._paths.tree.stat(relative) if relative else None
        return super()._before(args, kwargs) if status is None else (status,)


class Remove(Wrapper):
    """``os.unlink``, ``os.remove`` and ``os.rmdir``: what was removed stays away."""

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        found = super()._before(args, kwargs)
        path, folder = args[0] if args else kwargs.get("path"), kwargs.get("dir_fd")
        relative, tree = self._paths.relative(path, folder), self._paths.tree
        if relative and self.__qualname__ == "rmdir" and tree.pending(relative, tree.is_there(relative)):
            self._paths.below(path, folder)  # it is not empty
        elif relative:
            tree.keep(relative)
        return found


class Move(Wrapper):
    """``os.rename`` and ``os.replace``: what was put over a file of the tree stays there."""

    parameter = "src"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Move, and leave the target as it is from now on."""
        source = args[0] if args else kwargs.get("src")
        target = args[1] if len(args) > 1 else kwargs.get("dst")
        self._paths.there(source, kwargs.get("src_dir_fd"))
        left = self._paths.relative(source, kwargs.get("src_dir_fd"))
        relative = self._paths.relative(target, kwargs.get("dst_dir_fd"))
        self._paths.below(source, kwargs.get("src_dir_fd"))
        if relative:
            self._paths.tree.ensure_parent(relative)
        result = self._call(*args, **kwargs)
        for path in filter(None, (left, relative)):
            self._paths.tree.keep(path)
        return result


class Link(Wrapper):
    """``os.link`` and ``os.symlink``: what is there already is in the way.

    A link to a folder is a way around the wrappers: all that lies below it comes.
    """

    parameter = None

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        source = args[0] if args else kwargs.get("src")
        self._paths.there(args[1] if len(args) > 1 else kwargs.get("dst"), kwargs.get("dst_dir_fd"))
        if self.__qualname__ == "symlink":
            source = self._paths.beside(source, args[1] if len(args) > 1 else kwargs.get("dst"))
        self._paths.there(source, kwargs.get("src_dir_fd"))
        self._paths.below(source, kwargs.get("src_dir_fd"))
        return None


class Chdir(Wrapper):
    """``os.chdir`` and ``os.fchdir``: from inside the tree, relative paths are in it."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Change the folder, and look where that is."""
        try:
            return super().__call__(*args, **kwargs)
        finally:
            self._paths.look_where()


class Listing(Wrapper):
    """What lists a folder: what is there, then what is pending."""

    descriptors = True
    #: Called with the path, the folder relative to the root, and the original's result: None for a folder
    #: of which nothing is there yet. Returns the result.
    _listed: Callable[[Any, str, Any], Any]

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        if len(args) + len(kwargs) > 1 or not kwargs.keys() <= {"path"}:
            return None
        path = args[0] if args else kwargs.get("path")
        relative = self._paths.folder(path)
        if relative is None:
            return None
        try:
            present = self._call(path)
        except FileNotFoundError:
            if not self._paths.tree.has_folder(relative):
                self._paths.there(path)  # a file that is pending is no folder
                return None
            present = None  # nothing of it is there yet
        except OSError:
            return None  # the same once more, to whom it concerns
        return (self._listed(path, relative, present),)


class Listdir(Listing):
    """``os.listdir``."""

    def _listed(self, path: Any, relative: str, present: Any) -> Any:
        found = present or []
        pending = self._paths.tree.pending(relative, set(map(os.fsdecode, found)).__contains__)
        names = [name for name, _ in pending]
        as_bytes = path.__class__ is not int and path is not None and isinstance(os.fspath(path), bytes)
        return found + ([os.fsencode(name) for name in names] if as_bytes else names)


class Scandir(Listing):
    """``os.scandir``."""

    def _listed(self, path: Any, relative: str, present: Any) -> Any:
        folder = path if path.__class__ is int else os.fspath("." if path is None else path)
        return Scan(present, folder, lambda names: self._paths.tree.pending(relative, names))


class Run(Wrapper):
    """``os.execv``, ``os.posix_spawn`` and their like: the program, and files that its arguments name."""

    parameter = None

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        arguments = args[1] if len(args) > 1 else kwargs.get("argv")
        if args and isinstance(arguments, (list, tuple)):
            self._paths.command(args[0], arguments)
        if self.__qualname__ == "execv":
            other = completed(os.environ)
            if other is not None:  # its own is what the program gets
                os.environ["PYTHONPATH"] = os.fsdecode(other[b"PYTHONPATH"])
            return None
        environ = args[2] if len(args) > 2 else kwargs.get("env")
        if environ is None and sys.version_info >= (3, 13) and self.__qualname__.startswith("posix_spawn"):
            environ = os.environ  # which None stands for since then
        other = completed(environ)  # type: ignore[arg-type]
        if other is None:
            return None
        if len(args) > 2:
            return (*args[:2], other, *args[3:]), kwargs
        return args, {**kwargs, "env": other}


class Command(Wrapper):
    """``os.system``: files that the command names."""

    parameter = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make what the command names be there, and run it with a complete environment."""
        self._paths.command("sh", [args[0] if args else kwargs.get("command")])
        other = completed(os.environ)
        if other is None:
            return self._call(*args, **kwargs)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.fsdecode(other[b"PYTHONPATH"])
        try:
            return self._call(*args, **kwargs)
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


class ForkExec(Wrapper):
    """``_posixsubprocess.fork_exec``, below ``subprocess.Popen``."""

    parameter = None

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        # Its first parameters are the same in all versions: arguments, paths to try, …, the folder to be in,
        # the environment (b"NAME=value", or None for its parent's).
        if len(args) < 6:
            return None
        self._paths.command(args[1][0] if args[1] else None, [*args[0], *args[1]], args[4])
        pairs = None if args[5] is None else [os.fsencode(entry).partition(b"=") for entry in args[5]]
        other = completed(os.environb if pairs is None else {name: value for name, _, value in pairs})
        if other is None:
            return None
        return (*args[:5], [b"%b=%b" % pair for pair in other.items()], *args[6:]), kwargs


class Connect(Wrapper):
    """``sqlite3.connect``, whose C code opens a path or a ``file:`` URI."""

    parameter = "database"

    def _before(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Before:
        database = args[0] if args else kwargs.get("database")
        if isinstance(database, str) and database.startswith("file:"):
            from urllib.parse import unquote, urlsplit

            self._paths.there(unquote(urlsplit(database).path))
        return super()._before(args, kwargs)
