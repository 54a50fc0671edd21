"""A zip whose bytes depend on its files alone."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection, Mapping

#: The first date that a zip can have.
_DATE = (1980, 1, 1, 0, 0, 0)
_FILE, _PROGRAM = 0o100644, 0o100755
#: "Made by" Unix: the upper half of the attributes is a mode (PKWARE APPNOTE, 4.4.2 and 4.4.15).
_UNIX = 3


def pack(files: Mapping[str, bytes], executable: Collection[str] = ()) -> bytes:
    """Return a zip of ``files`` (path to bytes): sorted, of one date, mode 755 for those of ``executable``.

    What deflates better or worse with another zlib is all that can make a difference.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.create_system = _UNIX
            entry.external_attr = (_PROGRAM if name in executable else _FILE) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(entry, files[name], compresslevel=9)
    return out.getvalue()
