"""Source distributions from a dict of files, and build backends that need nothing but Python."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

#: A backend that zips one module; ``{before}`` runs first, ``{requires}`` is what it asks for.
_BACKEND = """\
import os, zipfile

NAME = "{wheel_name}-{version}"
PARTS = {{
    "{module}.py": {source!r},
    NAME + ".dist-info/METADATA": "Metadata-Version: 2.1\\nName: {wheel_name}\\nVersion: {version}\\n",
    NAME + ".dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
}}
PARTS[NAME + ".dist-info/RECORD"] = "".join(path + ",,\\n" for path in PARTS)

def get_requires_for_build_wheel(config_settings=None):
    return {requires}

def build_wheel(folder, config_settings=None, metadata_directory=None):
{before}
    with zipfile.ZipFile(os.path.join(folder, NAME + "-py3-none-any.whl"), "w") as archive:
        for path, text in PARTS.items():
            archive.writestr(path, text)
    return NAME + "-py3-none-any.whl"
"""


def build_sdist(folder: Path, name: str, version: str, files: Mapping[str, str | bytes]) -> Path:
    """Write a source distribution into ``folder`` and return its path; nothing checks the names."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name.replace('-', '_')}-{version}.tar.gz"
    info = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    with tarfile.open(path, "w:gz") as archive:
        for member, text in {"PKG-INFO": info, **files}.items():
            data = text if isinstance(text, bytes) else text.encode()
            item = tarfile.TarInfo(f"{name}-{version}/{member}")
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))
    return path


def own_backend(
    name: str,
    version: str = "1.0",
    *,
    before: str = "pass",
    requires: str = "[]",
    system_requires: str = "[]",
    source: str = "x = 1\n",
    wheel_name: str = "",
) -> dict[str, str]:
    """Return the files of a project with a build backend of its own.

    ``before`` is code that ``build_wheel`` runs first, ``requires`` an expression for what the backend asks
    for, ``system_requires`` TOML for ``build-system.requires``. ``wheel_name`` is what the wheel is called.
    """
    indented = "".join(f"    {line}\n" for line in before.splitlines())
    backend = _BACKEND.format(
        wheel_name=wheel_name or name,
        version=version,
        module=name,
        source=source,
        requires=requires,
        before=indented,
    )
    table = f"[build-system]\nrequires = {system_requires}\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
    return {"pyproject.toml": table, "backend.py": backend}
