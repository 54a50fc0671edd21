"""When it is told what a cold start was like: imports are quiet, an invocation or the process has ended.

Loaded where that is wanted; what makes the line comes with the first of these (docs/decisions/0029). Import
budget: ``os``, ``time``; ``atexit``, which is built in.
"""

from __future__ import annotations

import os
import time
from _thread import start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudimport.fetch.engine import Fetcher
    from cloudimport.observing import Observer

#: How long after the first import it begins to be looked whether imports are through (seconds).
_PAUSE = 0.05


class Telling:
    """Has an ``Observer`` made, once, and told, in the process that made this and in no fork of it."""

    def __init__(self, make: Callable[[], Observer], fetcher: Fetcher, is_over: Callable[[], bool]) -> None:
        """``is_over`` says that nobody wants to know any more."""
        import atexit

        self._make, self._fetcher, self._is_over = make, fetcher, is_over
        self._owner = os.getpid()
        self._made: dict[str, Observer] = {}
        atexit.register(self.at_exit)

    def begin(self, *, in_lambda: bool) -> None:
        """Hear that the first import begins."""
        if os.getpid() != self._owner:
            return
        try:
            start_new_thread(self._watch, ())
        except RuntimeError:
            pass  # "can't start new thread": it is told later
        if in_lambda:
            from cloudimport.invocations import after_first

            after_first(self._tell)

    def at_exit(self) -> None:
        """Tell what was not told."""
        if os.getpid() == self._owner:
            self._observer().at_exit()

    def _observer(self) -> Observer:
        found = self._made.get("one")
        # Two threads may make one each, under no lock since that imports; both take the same.
        return self._made.setdefault("one", self._make()) if found is None else found

    def _watch(self) -> None:
        try:
            time.sleep(_PAUSE)  # before anything is loaded for it
            self._observer().watch(self._fetcher, self._is_over)
        except Exception:  # noqa: BLE001
            pass  # nobody waits for it, and a process that ends takes modules away

    def _tell(self) -> None:
        try:
            self._observer().tell()
        except Exception:  # noqa: BLE001
            pass  # no invocation fails of it
