"""Reading a record object, whole and checked. Import budget: nothing of its own."""

from __future__ import annotations

from cloudimport.errors import CorruptError, FormatError
from cloudimport.format import codec
from cloudimport.format.keys import package_of
from cloudimport.format.records import Ref, sha256
from cloudimport.sources.base import Source


def read_record(source: Source, key: str, ref: Ref) -> bytes:
    """Return the plain bytes of a record object. Raises CorruptError after a second look."""
    for attempt in (0, 1):
        try:
            data = codec.decompress(source.read(key), ref.size)
            actual = sha256(data)
        except FormatError as error:
            data, actual = b"", str(error)
        if actual == ref.digest:
            return data
        if attempt:
            raise CorruptError(
                f"{source.url}/{key} is damaged: expected sha256 {ref.digest}, got {actual}",
                key=key,
                package=package_of(key),
                expected=ref.digest,
                actual=actual,
            )
    raise AssertionError("unreachable")
