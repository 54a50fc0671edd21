"""The codec for the layer: of the wheel that ``codec.txt`` pins by hash, the one file that is loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from shelf_tools.fetch import fetch
from shelf_tools.pins import read_pins

_LIST = Path(__file__).with_name("codec.txt")
_MODULE = "backports/zstd/_zstd"


def get(
    target: Target, folder: Path, environ: Mapping[str, str]
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Return the extension module, and the licences that come with it, by file name.

    ``folder`` is where pip, run in ``environ``, puts the wheel. Raises a CloudImportError.
    """
    wheels = fetch(read_pins(_LIST), target, folder, env=environ)
    (wheel,) = wheels.values()
    with zipfile.ZipFile(wheel.path) as opened:
        name = f"{_MODULE}{target.extension_suffixes[0]}"
        if name not in opened.namelist():
            raise ConfigurationError(f"{wheel.filename} has no {name}: the codec has changed its files")
        licences = {
            f"backports.zstd-{path.rpartition('/')[2]}": opened.read(path)
            for path in opened.namelist()
            if ".dist-info/licenses/" in path and not path.endswith("/")
        }
        return {name.rpartition("/")[2]: opened.read(name)}, licences
