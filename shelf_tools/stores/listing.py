"""What a listing of a store has."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """An object in a listing: size in bytes; seconds since 1970 by the store's own clock, at its last write.

    ``modified`` is None where the store does not say. Of S3 it has whole seconds.
    """

    key: str
    size: int
    modified: float | None


class Unfinished(NamedTuple):
    """What a writer began and has not finished, or never will: no object. ``handle`` is the store's own."""

    key: str
    handle: str
    size: int
    modified: float | None
