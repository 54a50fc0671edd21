"""The runtime as a folder that is seen at /opt of a Lambda-like sandbox."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.children import REPOSITORY
from tests.support.installed import files_of
from tests.support.shelves import write_tree


def runtime_layer(folder: Path) -> Path:
    """Put the runtime of this repository, and its codec for the running interpreter, below a new folder."""
    write_tree(folder / "python", files_of("backports.zstd"))
    ignored = shutil.ignore_patterns("__pycache__", "*.c")
    shutil.copytree(REPOSITORY / "cloudimport", folder / "python" / "cloudimport", ignore=ignored)
    return folder
