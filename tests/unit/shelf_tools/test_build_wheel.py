"""Unpacking a source distribution where ``tarfile`` has no filters (before Python 3.10.12 and 3.11.4)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from shelf_tools.inside import build_wheel


def archive(*members: tuple[str, bytes, str]) -> io.BytesIO:
    """Return an archive of members: name, type, and what a link leads to."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info, io.BytesIO(b""))
    data.seek(0)
    return data


@pytest.fixture(autouse=True)
def _old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.parametrize(
    "member",
    [
        ("../../evil.py", tarfile.REGTYPE, ""),
        ("a/../../evil.py", tarfile.REGTYPE, ""),
        ("/evil.py", tarfile.REGTYPE, ""),
        ("a/link", tarfile.SYMTYPE, "../../evil"),
        ("a/link", tarfile.SYMTYPE, "/etc/passwd"),
        ("a/link", tarfile.LNKTYPE, "../evil"),
        ("a/fifo", tarfile.FIFOTYPE, ""),
        ("a/device", tarfile.CHRTYPE, ""),
    ],
)
def test_what_leads_out_is_refused(tmp_path: Path, member: tuple[str, bytes, str]) -> None:
    """By its name; nothing is written for it."""
    with pytest.raises(build_wheel.RefusedError, match=r"leads out of the folder|no file, folder or link"):
        build_wheel.unpack("a-1.tar.gz", archive(member), str(tmp_path / "into"))
    assert not list(tmp_path.rglob("evil*"))


def test_what_stays_inside_is_unpacked(tmp_path: Path) -> None:
    """Files, folders and links."""
    members = [
        ("a", tarfile.DIRTYPE, ""),
        ("a/b.py", tarfile.REGTYPE, ""),
        ("a/c.py", tarfile.SYMTYPE, "../a/b.py"),
        ("a/d.py", tarfile.LNKTYPE, "a/b.py"),
    ]
    found = Path(build_wheel.unpack("a-1.tar.gz", archive(*members), str(tmp_path / "into")))
    assert sorted(path.name for path in found.iterdir()) == ["b.py", "c.py", "d.py"]
