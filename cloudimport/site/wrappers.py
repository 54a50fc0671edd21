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
from collections.abc import Callable
from typing import Any

from cloudimport.site.paths import Paths
from cloudimport.site.scanning import Scan


class Wrapper:
    """A function of ``module`` with files that appear when they are asked for."""

    #: Name of the first parameter.
    parameter = "path"

    def __init__(self, original: Callable[..., Any], module: str, paths: Paths) -> None:
        self.__wrapped__ = self._call = original
        self._paths = paths
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the first argument's file be there, and call the original."""
        paths = self._paths
        path = args[0] if args else kwargs.get(self.parameter)
        if path.__class__ is not str or paths.mark in path or paths.inside or "dir_fd" in kwargs:
            other = paths.there(path, kwargs.get("dir_fd"))
            if other is not None:
                args, kwargs = self._with(other, args, kwargs)
        return self._call(*args, **kwargs)

    def _with(
        self, other: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with another first one."""
        if args:
            return (other, *args[1:]), kwargs
        return args, {**kwargs, self.parameter: other}


class Open(Wrapper):
    """``open``."""

    parameter = "file"


class Stat(Wrapper):
    """``os.stat`` and ``os.lstat``: while a package scans for files, the index answers."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a status from the index or the disk."""
        paths = self._paths
        path = args[0] if args else kwargs.get(self.parameter)
        if path.__class__ is not str or paths.mark in path or paths.inside or "dir_fd" in kwargs:
            relative = paths.relative(path, kwargs.get("dir_fd"))
            status = paths.tree.stat(relative) if relative else None
            if status is not None:
                return status
            return super().__call__(*args, **kwargs)
        return self._call(*args, **kwargs)


class Move(Wrapper):
    """``os.rename`` and ``os.replace``: what was put over a file of the tree stays there."""

    parameter = "src"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Move, and leave the target as it is from now on."""
        source = args[0] if args else kwargs.get("src")
        target = args[1] if len(args) > 1 else kwargs.get("dst")
        self._paths.there(source, kwargs.get("src_dir_fd"))
        relative = self._paths.relative(target, kwargs.get("dst_dir_fd"))
        if relative:
            self._paths.tree.ensure_parent(relative)
        result = self._call(*args, **kwargs)
        if relative:
            self._paths.tree.keep(relative)
        return result


class Link(Wrapper):
    """``os.link`` and ``os.symlink``: what is there already is in the way."""

    parameter = "src"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make both ends be there, and call the original."""
        self._paths.there(args[0] if args else kwargs.get("src"), kwargs.get("src_dir_fd"))
        self._paths.there(args[1] if len(args) > 1 else kwargs.get("dst"), kwargs.get("dst_dir_fd"))
        return self._call(*args, **kwargs)


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

    def _present(self, path: Any, relative: str) -> Any:
        """Return the original's answer; None for a folder of which nothing is there yet."""
        try:
            return self._call(path)
        except FileNotFoundError:
            if self._paths.tree.has_folder(relative):
                return None
            raise


class Listdir(Listing):
    """``os.listdir``."""

    def __call__(self, path: Any = None) -> Any:
        """Return the names."""
        relative = self._paths.folder(path)
        if relative is None:
            return self._call(path)
        found = self._present(path, relative) or []
        pending = self._paths.tree.pending(relative, set(map(os.fsdecode, found)).__contains__)
        names = [name for name, _ in pending]
        as_bytes = path.__class__ is not int and path is not None and isinstance(os.fspath(path), bytes)
        return found + ([os.fsencode(name) for name in names] if as_bytes else names)


class Scandir(Listing):
    """``os.scandir``."""

    def __call__(self, path: Any = None) -> Any:
        """Return an iterator of entries."""
        relative = self._paths.folder(path)
        if relative is None:
            return self._call(path)
        present = self._present(path, relative)
        folder = path if path.__class__ is int else os.fspath("." if path is None else path)
        return Scan(present, folder, lambda names: self._paths.tree.pending(relative, names))


class Run(Wrapper):
    """``os.execv``, ``os.posix_spawn`` and their like: the program, and files that its arguments name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make what the command line names be there, and call the original."""
        self._paths.command(args[0], args[1] if len(args) > 1 else kwargs.get("argv", ()))
        return self._call(*args, **kwargs)


class Command(Wrapper):
    """``os.system``: files that the command names."""

    parameter = "command"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make what the command names be there, and call the original."""
        self._paths.command("sh", [args[0] if args else kwargs.get("command")])
        return self._call(*args, **kwargs)


class ForkExec(Wrapper):
    """``_posixsubprocess.fork_exec``, below ``subprocess.Popen``."""

    def __call__(self, *args: Any) -> Any:
        """Make what the command line names be there, and call the original."""
        # Its first parameters are the same in all versions: arguments, paths to try, …, the folder to be in.
        self._paths.command(args[1][0] if args[1] else None, [*args[0], *args[1]], args[4])
        return self._call(*args)


class Connect(Wrapper):
    """``sqlite3.connect``, whose C code opens a path or a ``file:`` URI."""

    parameter = "database"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Make the database be there, and call the original."""
        database = args[0] if args else kwargs.get("database")
        if isinstance(database, str) and database.startswith("file:"):
            from urllib.parse import unquote, urlsplit

            self._paths.there(unquote(urlsplit(database).path))
        return super().__call__(*args, **kwargs)
