"""The Lambda layer, built once for a session and unpacked as Lambda does."""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from pathlib import Path

import pytest

from cloudimport.ids import Target
from lambda_layer.layer import Layer, build
from tests.support.runtimes import find_python
from tests.support.shelfcommand import publisher_environment

#: As Lambda has them, from what is at hand.
MATRIX = ("3.11", "3.12", "3.13")


def layer_target(version: str, arch: str = "") -> Target:
    """Return the target of a layer; ``arch`` as AWS names it, this machine's if it is not given."""
    return Target.parse(f"lambda-python{version}-{arch or os.uname().machine}")


@lru_cache(maxsize=16)
def built(version: str, folder: Path, arch: str = "") -> Layer:
    """Return the layer for a Python, made below ``folder``; where there is none the test is skipped."""
    if find_python(version) is None:
        pytest.skip(f"there is no CPython {version} on this machine")
    return build(layer_target(version, arch), folder, publisher_environment())


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip as AWS does, with its modes, and return the folder: what is seen at /opt."""
    with zipfile.ZipFile(archive) as opened:
        for entry in opened.infolist():
            path = Path(opened.extract(entry, folder))
            path.chmod(entry.external_attr >> 16 & 0o777)
    return folder
