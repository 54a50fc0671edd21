"""Trying again, as a source.

Import budget: ``time``; ``random`` on the first failure.
"""

from __future__ import annotations

import time

from cloudimport.errors import UnreachableError
from cloudimport.sources.base import Source
from cloudimport.sources.clock import clock as running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    _T = TypeVar("_T")

#: First and longest pause in seconds, before jitter: S3 asks for exponential backoff
#: (https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html).
_BASE = 0.1
_CAP = 5.0
#: Seconds that one read may take beside what the deadline bounds: a name's look-up, connecting.
_BESIDE = 30.0


def _random() -> float:
    import random

    return random.random()


class Retrying:
    """Repeats reads that end in a retryable ``UnreachableError``.

    At least ``attempts`` reads, and more until ``patience`` seconds have gone: a store that is restarted
    refuses connections at once. None begins later than ``deadline`` seconds after the first; time for which
    the process was suspended does not count. Between them exponential backoff with full jitter. A store that
    asks to slow down is asked until the deadline: when very many start at once, that is what lets all of
    them in. ``CorruptError`` is not its business: who checks the bytes knows how to ask for them again.
    """

    def __init__(
        self,
        source: Source,
        attempts: int = 5,
        deadline: float = 60.0,
        patience: float = 0.0,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = running.now,
        random: Callable[[], float] = _random,
    ) -> None:
        self.url = source.url
        self._source = source
        self._attempts = max(1, attempts)
        self._deadline = deadline
        self._patience = patience
        self._sleep, self._clock, self._random = sleep, clock, random

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return what the inner source returns; see ``Source.read``."""
        return self._insist(lambda: self._source.read(key, start, length))

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Do what the inner source does, going on where it broke off; see ``Source.readv``."""
        filling = _Filling(buffers)

        def go_on() -> None:
            done = filling.done
            if done < length:
                self._source.readv(key, start + done, length - done, filling.rest())

        self._insist(go_on)

    def _insist(self, read: Callable[[], _T]) -> _T:
        began = self._clock()
        attempt = 1
        while True:
            since = time.monotonic()
            try:
                return read()
            except UnreachableError as error:
                if not error.retryable:
                    raise
                running.waited(since, self._deadline + _BESIDE)
                pause = self._random() * min(_CAP, _BASE * 2 ** (attempt - 1))
                spent = self._clock() - began
                is_enough = attempt >= self._attempts and spent >= self._patience and not error.throttled
                if is_enough or spent + pause >= self._deadline:
                    raise _given_up(error, attempt, spent) from error
            since = time.monotonic()
            self._sleep(pause)
            running.waited(since, pause)
            attempt += 1

    def close(self) -> None:
        """Close the inner source."""
        self._source.close()

    def forget(self) -> None:
        """Forget in the inner source."""
        running.forget()
        self._source.forget()


class _Filling:
    """Buffers that are being filled. ``done``: bytes of those that are full."""

    def __init__(self, buffers: Iterable[memoryview]) -> None:
        self._buffers = iter(buffers)
        self._current: memoryview | None = None
        self.done = 0

    def rest(self) -> Iterator[memoryview]:
        """Yield the buffers that are not full, the one that is in hand first."""
        while True:
            if self._current is None:
                self._current = next(self._buffers, None)
            if self._current is None:
                return
            yield self._current
            self.done += len(self._current)
            self._current = None


def _given_up(error: UnreachableError, attempts: int, seconds: float) -> UnreachableError:
    times = "1 attempt" if attempts == 1 else f"{attempts} attempts"
    text = f"{error} (gave up after {times} in {seconds:.1f} s)"
    return UnreachableError(text, key=error.key, package=error.package)
