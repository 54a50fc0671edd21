"""zstd for those who write: the standard library's from Python 3.14 on, else its backport."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd  # type: ignore[import-not-found,unused-ignore]
else:
    from backports import zstd


def compress(data: bytes, level: int) -> bytes:
    """Return one frame that carries its content size (docs/format.md, section 2)."""
    frame: bytes = zstd.compress(data, level=level)
    return frame
