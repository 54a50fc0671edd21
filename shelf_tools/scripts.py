"""The scripts that run inside a sandbox, in a folder that any uid can read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import ModuleType

from shelf_tools.workfolder import work_folder

#: Where the folder is seen inside.
SCRIPTS = PurePosixPath("/inside")

_HERE = Path(__file__).parent / "inside"


@contextmanager
def scripts(*packages: ModuleType) -> Iterator[Path]:
    """Yield a temporary folder with the scripts and copies of ``packages``, which they import.

    Copies, since the curator's own installation may be readable by its owner alone, and so that
    nothing else of it is seen inside.
    """
    with work_folder("inside") as folder:
        folder.chmod(0o755)
        for source in _HERE.glob("*.py"):
            _copy(str(source), str(folder / source.name))
        for package in packages:
            origin = Path(str(package.__file__)).parent
            skip = shutil.ignore_patterns("__pycache__", "*.exe")
            shutil.copytree(origin, folder / package.__name__, ignore=skip, copy_function=_copy)
            for place, _, _ in os.walk(folder / package.__name__):
                os.chmod(place, 0o755)
        yield folder


def _copy(source: str, target: str) -> str:
    """Copy a file's contents; everybody may read it."""
    shutil.copyfile(source, target)
    os.chmod(target, 0o644)
    return target
