"""The time that imports take, and garbage collection held back meanwhile, where either is asked for.

An import makes objects that stay; collections in its course visit them again and again and find nothing
(docs/decisions/0017).
The end of an import has no hook, but importlib marks a spec as ``_initializing`` before it runs the module
and unmarks it afterwards, whatever happens: the spec of the outermost module hears that, and is an ordinary
one again from then on. Import budget: ``gc``.
"""

from __future__ import annotations

import gc
from _thread import RLock, get_ident
from importlib.machinery import ModuleSpec

from cloudimport.sources.clock import clock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: New objects after which there is a collection all the same: a bound on what lies about meanwhile.
_OBJECTS = 200_000


class Bursts:
    """Hears of imports from the first that begins until the last one ends. Thread-safe.

    ``seconds``: how long they took, those that are under way aside.
    """

    def __init__(self, holds: bool = True) -> None:
        """``holds``: whether collection is held back."""
        self._holds = holds
        self.seconds = self._since = 0.0
        # Reentrant: a signal handler may import while this thread holds it.
        self._lock = RLock()
        #: Threads that import, and how many imports each is in the midst of.
        self._inside: dict[int, int] = {}
        self._before: tuple[int, int, int] | None = None
        self._ours = (0, 0, 0)

    def watch(self, spec: ModuleSpec) -> None:
        """Hear of it when ``spec``'s module is run, unless an import is under way already."""
        if not self._inside:
            spec.__class__ = _Outermost
            spec.__dict__["_bursts"] = self

    def begin(self) -> None:
        """Hear that an import begins."""
        with self._lock:
            me = get_ident()
            if not self._inside:
                self._since = clock.now()
                if self._holds:
                    self._hold()
            self._inside[me] = self._inside.get(me, 0) + 1

    def end(self) -> None:
        """Hear that it has ended. What a module has set itself meanwhile stays."""
        with self._lock:
            me = get_ident()
            left = self._inside.get(me, 0) - 1
            if left <= 0 and self._inside.keys() <= {me}:
                self.seconds += clock.now() - self._since
                self._release()
            if left > 0:
                self._inside[me] = left
            else:
                self._inside.pop(me, None)

    @property
    def is_inside(self) -> bool:
        """Whether an import is under way."""
        return bool(self._inside)

    def _hold(self) -> None:
        threshold = gc.get_threshold()
        if 0 < threshold[0] < _OBJECTS:
            self._before, self._ours = threshold, (_OBJECTS, *threshold[1:])
            gc.set_threshold(*self._ours)

    def _release(self) -> None:
        before, self._before = self._before, None
        if before is not None and gc.get_threshold() == self._ours:
            _promote()
            gc.set_threshold(*before)

    def forget(self) -> None:
        """In a forked child: take a fresh lock, and forget what other threads were in the midst of."""
        self._lock = RLock()
        me = get_ident()
        self._inside = {me: self._inside[me]} if me in self._inside else {}
        if not self._inside:
            self._release()


def _promote() -> None:
    """Move what is young to the oldest generation, unvisited: else the next object would have all visited."""
    if gc.get_freeze_count() == 0:  # what a program has frozen stays so
        gc.freeze()
        gc.unfreeze()


class _Outermost(ModuleSpec):
    """A spec that tells when its module begins to be run, and when that has ended."""

    _bursts: Bursts

    @property
    def _initializing(self) -> Any:
        return self.__dict__.get("_initializing", False)

    @_initializing.setter
    def _initializing(self, value: Any) -> None:
        self.__dict__["_initializing"] = value
        if value:
            try:
                self._bursts.begin()
            except BaseException:  # a signal handler's: importlib will not say that this has ended
                self._bursts.end()
                raise
        else:
            bursts = self.__dict__.pop("_bursts")
            self.__class__ = ModuleSpec  # type: ignore[assignment]
            bursts.end()


_Outermost.__name__ = _Outermost.__qualname__ = "ModuleSpec"  # for who prints it meanwhile
