"""zstd for those who write: the standard library's from Python 3.14 on, else its backport."""

from __future__ import annotations

import sys

from cloudimport.errors import FormatError
from cloudimport.format import codec
from cloudimport.format.records import RECORD_SIZE

if sys.version_info >= (3, 14):
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
else:
    from backports import zstd

#: Whoever decompresses holds a window of so many bytes (binary logarithm) in memory: half of a native
#: file's block, which makes it 0.4 % larger (docs/decisions/0018).
_WINDOW_LOG = 21


def compress(data: bytes, level: int) -> bytes:
    """Return one frame that carries its content size (docs/format.md, section 2)."""
    options: dict[int, int] = {zstd.CompressionParameter.compression_level: level}
    if len(data) > 1 << _WINDOW_LOG:
        options[zstd.CompressionParameter.window_log] = _WINDOW_LOG
    frame: bytes = zstd.compress(data, options=options)
    return frame


def decompress_record(data: bytes, what: str) -> bytes:
    """Return the plain bytes of a record object whose size nobody has said. Raises FormatError.

    The frame says it (docs/format.md, section 2); more than a record may have is refused.
    """
    try:
        size: int | None = zstd.get_frame_info(data).decompressed_size
    except zstd.ZstdError as error:
        raise FormatError(f"{what} is not a zstd frame: {error}") from None
    if size is None or size > RECORD_SIZE:
        raise FormatError(f"{what} does not say its size, or is larger than any record")
    return codec.decompress(data, size)
