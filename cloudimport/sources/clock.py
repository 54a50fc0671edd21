"""A clock that stands still while the process is suspended: by Lambda between invocations, by a signal.

Deadlines are for the network. Linux's monotonic clock goes on while a process is stopped or its control
group is frozen, and may stand still while a whole virtual machine is; the wall clock goes on in either case.
Whoever waits with a timeout says afterwards how long that could take at the most: what is beyond was no
waiting. One for the process, as the suspension is. Import budget: ``time``, ``_thread``.
"""

from __future__ import annotations

import time
from _thread import allocate_lock

#: Seconds by which a wait may be late on a busy machine.
_LATE = 1.0


class Clock:
    """Seconds of running time, from an arbitrary begin. Thread-safe."""

    def __init__(self) -> None:
        self._lost = self._until = 0.0
        self.forget()

    def forget(self) -> None:
        """In a forked child: take a fresh lock, since another thread may have held the old one."""
        self._lock = allocate_lock()

    def now(self) -> float:
        """Return the running time in seconds."""
        return time.monotonic() - self._lost

    def waited(self, began: float, most: float) -> float:
        """Hear of a wait that began at ``began`` (seconds, monotonic) and could take ``most`` seconds.

        Returns for how many seconds the process was suspended meanwhile, 0 if it was not: then it took longer
        than it could. Threads that tell of the same suspension count once.
        """
        ended = time.monotonic()
        if ended - began <= most + _LATE:
            return 0.0
        with self._lock:
            self._lost += max(0.0, ended - max(began, self._until))
            self._until = max(self._until, ended)
        return ended - began


clock = Clock()
