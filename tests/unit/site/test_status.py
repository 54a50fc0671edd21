"""The status of a file that is not there yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudimport.site.files import status_of


@pytest.mark.parametrize("size", [0, 1, 5000])
def test_it_has_what_a_real_one_has(size: int, tmp_path: Path) -> None:
    """Every field is a number, also those that only ``du`` and its like look at."""
    real = tmp_path / "real"
    real.write_bytes(bytes(size))
    section: Any = SimpleNamespace(executable=(), sizes=[size], stamp=lambda file: 10**18 + 5)
    found = status_of(section, 0)
    for name in (name for name in dir(real.stat()) if name.startswith("st_")):
        assert type(getattr(found, name)) is type(getattr(real.stat(), name)), name
    assert (found.st_size, found.st_mtime_ns, found.st_blksize) == (size, 10**18 + 5, 4096)
    assert found.st_blocks * 512 == -(-size // 4096) * 4096
