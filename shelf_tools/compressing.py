"""zstd for those who write: the standard library's from Python 3.14 on, else its backport."""

from __future__ import annotations

import sys

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
