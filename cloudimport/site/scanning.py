"""What ``os.scandir`` gives for a folder of the site tree. Import budget: ``os``."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    #: Given a test for names that are there, the (name, is folder) of what is not.
    Pending = Callable[[Callable[[str], bool]], list[tuple[str, bool]]]


class PendingEntry:
    """What ``os.scandir`` yields for a file that is not materialised yet; like ``os.DirEntry``."""

    def __init__(self, folder: Any, name: str, is_folder: bool) -> None:
        self._fd = folder if isinstance(folder, int) else None
        self._is_folder = is_folder
        self.name: Any = os.fsencode(name) if isinstance(folder, bytes) else name
        self.path: Any = self.name if self._fd is not None else os.path.join(folder, self.name)

    def __fspath__(self) -> Any:
        return self.path

    def __repr__(self) -> str:
        return f"<DirEntry {self.name!r}>"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a folder."""
        return self._is_folder

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a file."""
        return not self._is_folder

    def is_symlink(self) -> bool:
        """Shelves have no links."""
        return False

    def is_junction(self) -> bool:
        """Junctions are a thing of Windows."""
        return False

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return its status; materialises the file."""
        return os.stat(self.path, dir_fd=self._fd)

    def inode(self) -> int:
        """Return its inode; materialises the file."""
        return self.stat().st_ino


class Scan:
    """An iterator with the interface of that of ``os.scandir``, pending entries last."""

    def __init__(self, real: Any, folder: Any, pending: Pending) -> None:
        self._real = real
        self._entries = self._iterate(real or (), folder, pending)

    def _iterate(self, real: Iterable[Any], folder: Any, pending: Pending) -> Iterator[Any]:
        present: set[str] = set()
        for entry in real:
            present.add(os.fsdecode(entry.name))
            yield entry
        for name, is_folder in pending(present.__contains__):
            yield PendingEntry(folder, name, is_folder)

    def __iter__(self) -> Scan:
        return self

    def __next__(self) -> Any:
        return next(self._entries)

    def __enter__(self) -> Scan:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the iteration and close the real iterator."""
        self._entries = iter(())
        if self._real is not None:
            self._real.close()
