"""Watching, from outside the sandbox, which files are opened below a folder: inotify(7)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

from inotify_simple import INotify, flags

#: Milliseconds that the reading thread waits for an event before it looks whether to stop.
_POLL = 50


class Watcher:
    """Records the first time that each file below ``roots`` is opened, in order.

    The kernel's queue is read all the while, by a thread. If it overflows, or watches run out,
    ``complete`` is False and ``opened`` holds what was seen by then.
    """

    def __init__(self, roots: dict[str, Path]) -> None:
        self.opened: list[tuple[str, str]] = []
        self.complete = True
        self._roots = roots
        self._seen: set[tuple[str, str]] = set()
        self._folders: dict[int, tuple[str, str]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="watcher", daemon=True)

    def __enter__(self) -> Watcher:
        """Start to watch. Raises OSError when the user has no inotify instance or watch left."""
        self._inotify = INotify()
        try:
            for label, root in self._roots.items():
                self._watch(label, root)
        except OSError:
            self._inotify.close()
            raise
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Read what is left in the queue and stop; ``opened`` is final after that."""
        self._stop.set()
        self._thread.join()
        self._inotify.close()

    def _watch(self, label: str, root: Path) -> None:
        for folder, _, _ in os.walk(root):
            number = self._inotify.add_watch(folder, flags.OPEN | flags.ONLYDIR)
            below = os.path.relpath(folder, root)
            self._folders[number] = (label, "" if below == "." else below + "/")

    def _work(self) -> None:
        while not self._stop.is_set():
            self._read(_POLL)
        while self._read(0):
            pass

    def _read(self, timeout: int) -> bool:
        """Take what the queue holds; returns whether there was anything."""
        any_event = False
        for event in self._inotify.read(timeout=timeout):
            any_event = True
            if event.mask & flags.Q_OVERFLOW:
                self.complete = False
            elif event.name and not event.mask & flags.ISDIR and event.wd in self._folders:
                label, folder = self._folders[event.wd]
                self._add((label, folder + event.name))
        return any_event

    def _add(self, found: tuple[str, str]) -> None:
        if found not in self._seen:
            self._seen.add(found)
            self.opened.append(found)
