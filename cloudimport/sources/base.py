"""Where bytes come from: one tiny protocol; every concern is a wrapper of the same protocol.

Import budget: nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Protocol
else:
    Protocol = object


class Source(Protocol):
    """A read-only view of a shelf's objects, by key relative to the shelf's root.

    Obligations of an implementation:

    - ``read`` and ``readv`` may be called from several threads at once, and again after any error.
    - They give exactly the bytes asked for; a short body is an ``UnreachableError``, never a
      short result.
    - They raise ``AbsentError`` for a missing object, ``DeniedError`` for refused access and
      ``UnreachableError`` for everything that may pass; each with ``key`` set and a text that
      names the URL.
    - They make exactly one request per call on the wire (no HEAD, no LIST), retries excepted,
      which are a wrapper's business (``Retrying``).
    - After ``close`` it may be used again; ``close`` only drops connections. A forked child
      calls ``forget`` first, so that parent and child never share a connection.
    """

    url: str

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes of object ``key`` from byte ``start`` (all of it by default)."""

    def readv(self, key: str, start: int, length: int, buffers: Iterable[memoryview]) -> None:
        """Fill ``buffers``, which are ``length`` bytes together, with those of object ``key`` from ``start``.

        The next buffer is asked for when one is full: whoever makes them works on what has come meanwhile.
        After an error those that were asked for before the last one are full.
        """

    def close(self) -> None:
        """Drop connections and helper processes. Harmless to call twice."""

    def forget(self) -> None:
        """In a forked child: drop what is shared with the parent without speaking on it."""
