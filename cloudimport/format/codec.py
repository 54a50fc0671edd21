"""zstd, loaded privately: the public name ``backports.zstd`` is left to the handler.

Only the extension module of the codec package is loaded, under a name of ours that never
enters ``sys.modules``, so that a pinned ``backports.zstd`` or ``zstandard`` is what the handler
gets (docs/decisions/0002). Python 3.14 has the codec in its standard library.

Import budget: ``sys``; the codec (0.6 ms) on first use.
"""

from __future__ import annotations

import sys

from cloudimport.errors import ConfigurationError, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

RAW, ZSTD = 0, 1
#: Plain bytes that ``pieces`` makes at a time.
_PIECE = 256 << 10
_codec: Any = None
_path = ""


def _load_codec() -> Any:
    """Return the extension module that has ``ZstdDecompressor``."""
    global _path
    if sys.version_info >= (3, 14):
        import _zstd  # type: ignore[import-not-found]

        return _zstd
    from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec

    _path = _path or _extension_path(EXTENSION_SUFFIXES[0])
    name = "cloudimport._private._zstd"
    loader = ExtensionFileLoader(name, _path)
    module = loader.create_module(ModuleSpec(name, loader, origin=_path))
    loader.exec_module(module)
    return module


def locate(path: str = "") -> str:
    """Find the codec's file now, loading nothing: later ``sys.path`` holds a shelf that may pin another.

    Returns it, "" if none is needed; ``path`` is what a parent process has found.
    """
    global _path
    _path = _path or path
    if sys.version_info < (3, 14) and _codec is None:
        from importlib.machinery import EXTENSION_SUFFIXES

        _path = _path or _extension_path(EXTENSION_SUFFIXES[0])
    return _path


def _extension_path(suffix: str) -> str:
    """Return the file of the codec's extension module: ours, the package's beside us, or on ``sys.path``."""
    import os

    here = os.path.dirname(os.path.abspath(__file__))
    # The Lambda layer's lies here: a folder `backports` is one that handlers would find.
    own = os.path.join(here, f"_zstd{suffix}")
    if os.path.isfile(own):
        return own
    beside = os.path.dirname(os.path.dirname(here))
    for folder in (beside, *sys.path):
        path = os.path.join(folder, "backports", "zstd", f"_zstd{suffix}")
        if os.path.isfile(path):
            return path
    other = next((name for name in os.listdir(here) if name.startswith("_zstd.")), "")
    if other:
        raise ConfigurationError(
            f"this layer of cloudimport is for {other.split('.')[1]}, and the interpreter is "
            f"{suffix.split('.')[1]}: attach the layer of the function's Python and architecture"
        )
    raise ConfigurationError(
        "the package backports.zstd is not installed: run 'pip install cloudimport' again"
    )


def decompress(data: bytes | memoryview, size: int) -> bytes:
    """Return the ``size`` plain bytes of one zstd frame.

    Never makes more than ``size`` bytes. Raises FormatError if the frame is damaged, holds more
    or fewer bytes, or is followed by others.
    """
    decoder = _decoder(size)
    try:
        plain: bytes = decoder.decompress(data, size)
        # The frame's last bytes may hold no content (an end mark, a checksum): ask for one byte more.
        surplus = b"" if decoder.eof else decoder.decompress(b"", 1)
    except _codec.ZstdError as error:
        raise FormatError(f"not a zstd frame: {error}") from None
    if len(plain) != size or surplus or not decoder.eof or decoder.unused_data:
        raise _wrong_size(size)
    return plain


def _decoder(size: int) -> Any:
    global _codec
    if size < 0:
        raise FormatError(f"{size} is no size")
    if _codec is None:
        _codec = _load_codec()
    return _codec.ZstdDecompressor()


def _wrong_size(size: int) -> FormatError:
    return FormatError(f"a zstd frame does not hold exactly {size} bytes")


def pieces(codec: int, data: bytes | memoryview, size: int) -> Iterator[bytes | memoryview]:
    """Yield the plain bytes of a block a few at a time: large ones at once cost memory and page faults.

    Raises FormatError where ``decode`` does, be it after the last piece.
    """
    if codec != ZSTD:
        yield decode(codec, data, size)
        return
    decoder, left = _decoder(size), size
    try:
        piece = decoder.decompress(data, min(_PIECE, left + 1))
        while piece and len(piece) <= left:
            yield piece
            left -= len(piece)
            piece = b"" if decoder.eof else decoder.decompress(b"", min(_PIECE, left + 1))
    except _codec.ZstdError as error:
        raise FormatError(f"not a zstd frame: {error}") from None
    if left or piece or not decoder.eof or decoder.unused_data:
        raise _wrong_size(size)


def decode(codec: int, data: bytes | memoryview, size: int) -> bytes:
    """Return the plain bytes of a block. Raises FormatError."""
    if codec == ZSTD:
        return decompress(data, size)
    if codec != RAW or len(data) != size:
        raise FormatError(f"a block of codec {codec} with {len(data)} bytes stored does not hold {size}")
    return bytes(data)
