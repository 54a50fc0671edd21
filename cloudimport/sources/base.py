"""Where bytes come from: one tiny protocol; every concern is a wrapper of the same protocol.

Import budget: nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:
    Protocol = object


class Source(Protocol):
    """A read-only view of a shelf's objects, by key relative to the shelf's root.

    Obligations of an implementation:

    - ``read`` may be called from several threads at once, and again after any error.
    - It returns exactly the bytes asked for; a short body is an ``UnreachableError``, never a
      short result.
    - It raises ``AbsentError`` for a missing object, ``DeniedError`` for refused access and
      ``UnreachableError`` for everything that may pass; each with ``key`` set and a text that
      names the URL.
    - It makes exactly one request per call on the wire (no HEAD, no LIST), retries excepted,
      which are a wrapper's business (``Retrying``).
    - After ``close`` it may be used again; ``close`` only drops connections. A forked child
      calls ``forget`` first, so that parent and child never share a connection.
    """

    url: str

    def read(self, key: str, start: int = 0, length: int | None = None) -> bytes:
        """Return ``length`` bytes of object ``key`` from byte ``start`` (all of it by default)."""

    def close(self) -> None:
        """Drop connections and helper processes. Harmless to call twice."""

    def forget(self) -> None:
        """In a forked child: drop what is shared with the parent without speaking on it."""
