"""Which paths lie in the site tree, and making what they name be there.

A path can reach the tree in many ways: as ``__file__`` has it, relative to a folder in it or
outside, through a link to the cache, from a descriptor. All that do not start in a folder of the
tree contain the tree's own name, which is a digest: one substring test tells the rest from them.

Import budget: ``os``, ``errno``. The functions of ``os`` are taken before they are replaced.
"""

from __future__ import annotations

import errno
import os
from os import readlink as _readlink
from os import stat as _stat

from cloudimport.errors import FetchError
from cloudimport.site.tree import SiteTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

#: What can follow a path inside a shell command or an option (``--config=/path:…``).
_ENDS = " \t\n\"'`;:,|&<>()"


class Paths:
    """Answers for one tree until ``stop``; then every path is foreign."""

    def __init__(self, tree: SiteTree) -> None:
        self.tree = tree
        #: What every path into the tree contains.
        self.mark = tree.root.split("/")[-2]
        #: Whether the current folder is in the tree, so that a relative path may be, too.
        self.inside = False
        self._active = True
        self.look_where()

    def look_where(self) -> None:
        """Look again whether the current folder is in the tree."""
        try:
            self.inside = self._active and (os.getcwd() + "/").startswith(self.tree.prefix)
        except OSError:  # the current folder was removed
            self.inside = False

    def stop(self) -> None:
        """Leave every path alone: captured wrappers outlive ``uninstall``."""
        self._active = self.inside = False
        self.mark = "\0"  # no path holds one

    def relative(self, path: Any, dir_fd: Any = None) -> str | None:
        """Return a path below the root, relative to it and normalised; None for any other path."""
        text = _text(path)
        if text is None or not self._active:
            return None
        if dir_fd is not None and not text.startswith("/"):
            folder = self.of_descriptor(dir_fd)
            text = folder and f"{folder}/{text}"
        elif self.inside and not text.startswith("/"):
            text = f"{os.getcwd()}/{text}"
        return self._below(text) if text else None

    def of_descriptor(self, fd: Any) -> str | None:
        """Return the path that a folder's descriptor was opened by, if it is in the tree."""
        try:
            path = _readlink(f"/proc/self/fd/{fd}")
        except (OSError, TypeError, ValueError):
            return None
        return path if (path + "/").startswith(self.tree.prefix) else None

    def _below(self, path: str) -> str | None:
        root, prefix = self.tree.root, self.tree.prefix
        if self.mark not in path:
            return None
        if not path.startswith(prefix) or "//" in path or "/." in path:
            path = os.path.abspath(path)
            if not (path + "/").startswith(prefix):
                head, mark, tail = path.partition(self.mark)
                name = root.rpartition("/")[2]
                if not (tail + "/").startswith(f"/{name}/") or not _is_same(f"{head}{mark}/{name}", root):
                    return None
                path = root + tail[1 + len(name) :]
        return path[len(prefix) :].rstrip("/")

    def there(self, path: Any, dir_fd: Any = None) -> str | None:
        """Make the file or folder at ``path`` be there, if the environment has one.

        Returns another path to use instead, where the tree cannot be written. Raises OSError.
        """
        relative = self.relative(path, dir_fd)
        if not relative:
            return None
        with as_oserror(path):
            other = self.tree.ensure(relative)
        return other if other and other != self.tree.prefix + relative else None

    def below(self, path: Any, dir_fd: Any = None) -> None:
        """Make all that lies below a folder be there, but for the root. Raises OSError."""
        relative = self.relative(path, dir_fd)
        if relative:
            with as_oserror(path):
                self.tree.fill_below(relative)

    def beside(self, path: Any, link: Any) -> Any:
        """Return what a symbolic link at ``link`` with the text ``path`` leads to."""
        text, where = _text(path), _text(link)
        if text is None or where is None or text.startswith("/"):
            return path
        return os.path.join(os.path.dirname(where), text)

    def command(self, program: Any, arguments: Iterable[Any], folder: Any = None) -> None:
        """Make be there what a command names, that is about to be run in ``folder``. Raises OSError.

        A Python of ours gets the rest by itself; to another program a folder is what lies in it.
        """
        name = os.path.basename(_text(program) or "")
        ensure = self.tree.ensure if name.startswith("python") else self.tree.ensure_for_program
        for argument in (program, *arguments):
            self._mentioned(argument, ensure)
        relative = self.relative(folder)
        if relative is not None:
            with as_oserror(folder):
                ensure(relative)

    def _mentioned(self, text: Any, ensure: Callable[[str], str | None]) -> None:
        """Make what part of a command names be there: ``/path``, ``--option=/path``, ``cat /path | …``."""
        command = _text(text)
        if command is None:
            return
        with as_oserror(text):
            if self.inside and (relative := self.relative(command)):
                ensure(relative)
            for piece in command.split(self.tree.root)[1:] if self.mark in command else ():
                end = min((at for at in map(piece.find, _ENDS) if at >= 0), default=len(piece))
                if piece[:1] in ("/", *_ENDS, "") and ensure(_below(piece)) is None:
                    ensure(_below(piece[:end]))

    def folder(self, path: Any) -> str | None:
        """Prepare a folder for being listed; returns it relative to the root, or None if it is foreign."""
        if path is None:
            path = "."
        elif path.__class__ is int:
            path = self.of_descriptor(path)
        relative = self.relative(path)
        if relative is not None:
            with as_oserror(path):
                self.tree.ensure_folder(relative)
        return relative


def _below(piece: str) -> str:
    """Return what follows the root in a command as a path relative to it."""
    relative = os.path.normpath(piece.lstrip("/"))
    return "" if relative == "." else relative


def _is_same(path: str, root: str) -> bool:
    try:
        one, other = _stat(path), _stat(root)
    except OSError:
        return False
    return (one.st_ino, one.st_dev) == (other.st_ino, other.st_dev)


def _text(path: Any) -> str | None:
    if path.__class__ is str:
        text: str = path
        return text
    if path is None or isinstance(path, int):
        return None
    try:
        return os.fsdecode(path)
    except TypeError:
        return None


class as_oserror:  # noqa: N801 - reads as a statement
    """Callers of file functions expect OSError: a fetch that failed becomes EIO, with its text."""

    def __init__(self, path: Any) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, FetchError):
            raise OSError(errno.EIO, str(error), self._path) from error
