"""Reading a sandbox's output, which is hostile."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from shelf_tools.collect import Bounds, OutputError, TruncatedOutputError, collect

BOUNDS = Bounds(bytes=1 << 20, files=100, file_bytes=1 << 19)


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return an entry for ``stream``."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def stream(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> io.BytesIO:
    """Return a tar stream of the entries."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    out.seek(0)
    return out


def names(folder: Path) -> list[str]:
    """Return everything below ``folder``."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_files_arrive_with_contents_and_one_mode_bit(tmp_path: Path) -> None:
    """Contents arrive; of the modes only executable or not does, whatever the umask."""
    old = os.umask(0o077)
    try:
        collect(
            stream(member("a/b/x.py", b"1" * 1000, mode=0o600), member("bin/y", b"2", mode=0o7711 & 0o777)),
            tmp_path,
            BOUNDS,
        )
    finally:
        os.umask(old)
    assert (tmp_path / "a/b/x.py").read_bytes() == b"1" * 1000
    assert (tmp_path / "a/b/x.py").stat().st_mode & 0o7777 == 0o644
    assert (tmp_path / "bin/y").stat().st_mode & 0o7777 == 0o755


def test_long_names_arrive(tmp_path: Path) -> None:
    """Names longer than a tar header's field arrive whole, in GNU's and in ustar's form."""
    long = "/".join(["d" * 60] * 12) + "/é.py"
    ustar = "u" * 90 + "/" + "v" * 90
    collect(stream(member(long, b"x")), tmp_path, BOUNDS)
    collect(stream(member(ustar, b"x"), form=tarfile.USTAR_FORMAT), tmp_path, BOUNDS)
    assert (tmp_path / long).is_file()
    assert (tmp_path / ustar).is_file()


def test_empty_folders_and_bytecode_are_dropped(tmp_path: Path) -> None:
    """Empty folders and whatever lies in ``__pycache__`` are no part of a tree."""
    folder = member("empty", type=tarfile.DIRTYPE)
    collect(
        stream(folder, member("p/__pycache__/x.pyc", b"x" * 600), member("p/x.py", b"y")), tmp_path, BOUNDS
    )
    assert names(tmp_path) == ["p", "p/x.py"]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tarfile.SYMTYPE, "'evil' is a link: refused"),
        (tarfile.LNKTYPE, "'evil' is a hard link: refused"),
        (tarfile.CHRTYPE, "'evil' is a device: refused"),
        (tarfile.BLKTYPE, "'evil' is a device: refused"),
        (tarfile.FIFOTYPE, "'evil' is a named pipe: refused"),
        (tarfile.GNUTYPE_SPARSE, "'evil' is neither a file nor a folder: refused"),
        (b"x", "'evil' is neither a file nor a folder: refused"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, kind: bytes, text: str) -> None:
    """Links, devices, pipes and extended headers are refused with one line that names the path."""
    with pytest.raises(OutputError) as caught:
        collect(stream(member("evil", type=kind, linkname="/etc/shadow")), tmp_path, BOUNDS)
    assert str(caught.value) == text
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//x", "a/./x", "a\\x", "a\nx", "x" * 300])
def test_bad_names_are_refused(tmp_path: Path, name: str) -> None:
    """Names that leave the folder, or that the format does not allow, are refused."""
    with pytest.raises(OutputError, match="is not allowed"):
        collect(stream(member(name, b"x")), tmp_path / "", BOUNDS)
    assert names(tmp_path) == []


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """A name in another encoding is refused."""
    with pytest.raises(OutputError, match="not UTF-8"):
        collect(stream(member("\udcff.py", b"x")), tmp_path, BOUNDS)


@pytest.mark.parametrize("bits", [0o4755, 0o2755])
def test_setuid_bits_are_refused(tmp_path: Path, bits: int) -> None:
    """Setuid and setgid files are refused by name."""
    with pytest.raises(OutputError, match="'bin/su' has a setuid or setgid bit"):
        collect(stream(member("bin/su", b"x", mode=bits)), tmp_path, BOUNDS)


def test_one_path_twice_is_refused(tmp_path: Path) -> None:
    """A name that comes twice is refused, and so is a file that is also a folder."""
    with pytest.raises(OutputError, match="comes twice"):
        collect(stream(member("a", b"1"), member("a", b"2")), tmp_path, BOUNDS)
    (tmp_path / "1").mkdir()
    with pytest.raises(OutputError, match="a file and a folder"):
        collect(stream(member("b", b"1"), member("b/c", b"2")), tmp_path / "1", BOUNDS)
    (tmp_path / "2").mkdir()
    with pytest.raises(OutputError, match="a file and a folder"):
        collect(stream(member("b/c", b"1"), member("b", b"2")), tmp_path / "2", BOUNDS)


def test_limits_hold_while_the_stream_is_read(tmp_path: Path) -> None:
    """Too many bytes, too large a file and too many files are refused before they are written."""
    big = [member(f"f{n}", b"x" * 400_000) for n in range(3)]
    with pytest.raises(OutputError, match="larger than 1048576 bytes"):
        collect(stream(*big), tmp_path, BOUNDS)
    assert names(tmp_path) == ["f0", "f1"]
    with pytest.raises(OutputError, match="larger than"):
        collect(stream(member("g", b"x" * 600_000)), tmp_path, BOUNDS)
    with pytest.raises(OutputError, match="more than 100 files"):
        collect(stream(*[member(f"h{n}") for n in range(300)]), tmp_path, BOUNDS)


def test_limit_on_files_is_exact(tmp_path: Path) -> None:
    """As many files as allowed arrive; one more does not, with long names or short ones."""
    long = "l" * 150
    assert collect(stream(*[member(f"{long}{n}") for n in range(100)]), tmp_path, BOUNDS) == 100
    with pytest.raises(OutputError, match="more than 100 files"):
        collect(stream(*[member(f"s{n}") for n in range(101)]), tmp_path, BOUNDS)


@pytest.mark.parametrize("cut", [0, 100, 512, 700, 1024])
def test_stream_that_ends_early_is_refused(tmp_path: Path, cut: int) -> None:
    """A stream cut anywhere before its end mark is told from a whole one."""
    data = stream(member("a", b"x" * 300)).getvalue()[:cut]
    with pytest.raises(TruncatedOutputError):
        collect(io.BytesIO(data), tmp_path, BOUNDS)


@pytest.mark.parametrize(
    "data", [b"\x7fELF" * 512, b"x" * 1024, stream(member("a")).getvalue().replace(b"ustar", b"Ustar", 1)]
)
def test_other_data_is_refused(tmp_path: Path, data: bytes) -> None:
    """What is no tar stream, or has a wrong checksum, is refused."""
    with pytest.raises(OutputError, match="not a tar stream"):
        collect(io.BytesIO(data), tmp_path, BOUNDS)


def test_data_after_the_end_is_refused(tmp_path: Path) -> None:
    """A stream that goes on for more than padding is refused."""
    with pytest.raises(OutputError, match="goes on"):
        collect(io.BytesIO(stream(member("a")).getvalue() + b"x" * (2 << 20)), tmp_path, BOUNDS)


def test_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """Even if a link stood where a file goes, it is not written through."""
    (tmp_path / "into").mkdir()
    (tmp_path / "into/a").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError):
        collect(stream(member("a", b"x")), tmp_path / "into", BOUNDS)
    assert not (tmp_path / "victim").exists()


def test_limit_on_files_holds_for_folders_too(tmp_path: Path) -> None:
    """A few files in many folders are refused: each folder takes a block on a disk."""
    members = [member(f"{number}/" + "d/" * 30 + "x") for number in range(5)]
    with pytest.raises(OutputError, match="more than 100 folders"):
        collect(stream(*members), tmp_path, BOUNDS)
