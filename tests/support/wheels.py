"""Wheels from a dict of files: deterministic, valid unless asked to be otherwise."""

from __future__ import annotations

import base64
import hashlib
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

#: The first moment that a zip archive can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def build_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str | bytes],
    *,
    requires: Iterable[str] = (),
    entry_points: str = "",
    tag: str = "py3-none-any",
    metadata: str | None = None,
    executable: Iterable[str] = (),
    unrecorded: Iterable[str] = (),
    record: str | None = None,
    purelib: bool = True,
) -> Path:
    """Write a wheel into ``folder`` and return its path.

    ``files`` maps names in the archive to contents; nothing checks the names, so that a wheel can
    be hostile. ``metadata`` takes the place of METADATA. ``unrecorded`` names are left out of
    RECORD; ``record`` takes its place altogether.
    """
    spelt = name.replace("-", "_")
    info = f"{spelt}-{version}.dist-info"
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    members = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
    text = metadata if metadata is not None else head + "".join(f"Requires-Dist: {r}\n" for r in requires)
    members[f"{info}/METADATA"] = text.encode()
    root = "true" if purelib else "false"
    members[f"{info}/WHEEL"] = f"Wheel-Version: 1.0\nRoot-Is-Purelib: {root}\nTag: {tag}\n".encode()
    if entry_points:
        members[f"{info}/entry_points.txt"] = entry_points.encode()
    skipped = set(unrecorded)
    rows = [f"{path},{_digest(data)},{len(data)}" for path, data in members.items() if path not in skipped]
    listed = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    members[f"{info}/RECORD"] = (record if record is not None else listed).encode()
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{spelt}-{version}-{tag}.whl"
    _write(wheel, members, set(executable))
    return wheel


def wheel_files(pin: str, folder: Path) -> dict[str, str | bytes]:
    """Download a release's wheel into ``folder`` and return its files."""
    download = [sys.executable, "-m", "pip", "--no-input", "download", "--quiet", "--no-deps"]
    subprocess.run([*download, "--only-binary", ":all:", "--dest", str(folder / "wheels"), pin], check=True)
    (wheel,) = (folder / "wheels").glob(f"{pin.partition('=')[0]}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def _digest(data: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


def _write(wheel: Path, members: Mapping[str, bytes], executable: set[str]) -> None:
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in members.items():
            item = zipfile.ZipInfo(path, _EPOCH)
            mode = 0o755 if path in executable else 0o644
            item.external_attr = (stat.S_IFREG | mode) << 16
            item.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(item, data)
