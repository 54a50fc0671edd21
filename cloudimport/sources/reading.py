"""What all sources share: the window of a read, and the errors about it.

Import budget: nothing.
"""

from __future__ import annotations

from cloudimport.errors import DeniedError, UnreachableError
from cloudimport.format.keys import package_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def is_empty(start: int, length: int | None) -> bool:
    """Return whether a read asks for no bytes. Raises ValueError for a negative window."""
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"a read cannot start at {start} with length {length}")
    return length == 0


def lacks(start: int, length: int | None, size: int) -> bool:
    """Return whether an object of ``size`` bytes lacks some of a window.

    A window that begins at the end lacks its first byte, as in HTTP (RFC 9110, section 14.1.2).
    """
    return 0 < start >= size if length is None else start + length > size


def refused(text: str, key: str) -> DeniedError:
    """Return the error for an object that may not be read; it begins with the package that this is of."""
    package = package_of(key)
    return DeniedError(f"{package} may not be read: {text}" if package else text, key=key, package=package)


def final(error: UnreachableError) -> UnreachableError:
    """Return ``error``, marked as one that trying again does not mend."""
    error.retryable = False
    return error


def too_short(url: str, key: str, start: int, length: int | None, size: int | None) -> UnreachableError:
    """Return the error for an object that ends before the bytes that were asked for.

    ``size``: the object's size in bytes, or None if it is not known.
    """
    end = "the end" if length is None else f"{start + length}"
    has = "fewer" if size is None else f"only {size}"
    text = f"{url}: asked for bytes {start} to {end}, the object has {has} bytes"
    return final(UnreachableError(text, key=key))


def hand_out(data: bytes, buffers: Iterable[memoryview]) -> None:
    """Fill buffers, one after another, with the bytes of ``data``: for sources that get all of it at once."""
    at = 0
    for buffer in buffers:
        buffer[:] = data[at : at + len(buffer)]
        at += len(buffer)


def join(base: str, key: str) -> str:
    """Return ``base/key``; ``base`` may be empty or end with a slash."""
    return f"{base.rstrip('/')}/{key}" if base else key
