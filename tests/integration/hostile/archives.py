"""Rows: what an archive can say. Nothing of a package runs when its wheel is installed."""

from __future__ import annotations

import io
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable

from tests.integration.hostile.row import CONTAINED, REFUSED, Place, Row, wheel
from tests.support.wheels import build_wheel


def entries(
    items: Iterable[tuple[str, int, bytes]], files: dict[str, str | bytes] | None = None
) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel with further archive entries: name, mode with file type, bytes."""

    def make(place: Place, name: str) -> list[str]:
        path = build_wheel(place.folder, name, "1.0", {f"{name.replace('-', '_')}.py": "", **(files or {})})
        with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a name comes twice is meant
            for entry, mode, data in items:
                item = zipfile.ZipInfo(entry)
                item.external_attr = mode << 16
                archive.writestr(item, data)
        return [f"{name}==1.0"]

    return make


def changed(change: Callable[[bytes], bytes], **files: str) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel whose bytes are changed by hand."""

    def make(place: Place, name: str) -> list[str]:
        path = build_wheel(place.folder, name, "1.0", {"module.py": "x = 1\n" * 100, **files})
        path.write_bytes(change(path.read_bytes()))
        return [f"{name}==1.0"]

    return make


def larger(
    name: str, size: int, *, compression: int = zipfile.ZIP_DEFLATED
) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel with a file ``name`` of ``size`` zeros."""

    def make(place: Place, row: str) -> list[str]:
        spelt = row.replace("-", "_")
        path = build_wheel(place.folder, row, "1.0", {f"{spelt}.py": ""})
        with zipfile.ZipFile(path, "a") as archive:
            item = zipfile.ZipInfo(name.replace("NAME", spelt))
            item.compress_type = compression
            with archive.open(item, "w", force_zip64=True) as out:
                for _ in range(size >> 20):
                    out.write(bytes(1 << 20))
        return [f"{row}==1.0"]

    return make


def many(number: int) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel with ``number`` empty files."""

    def make(place: Place, name: str) -> list[str]:
        path = build_wheel(place.folder, name, "1.0", {"a.py": ""})
        with zipfile.ZipFile(path, "a") as archive:
            for n in range(number):
                archive.writestr(zipfile.ZipInfo(f"many/{n % 997}/{n}.txt"), b"")
        return [f"{name}==1.0"]

    return make


def overlapping(place: Place, name: str) -> list[str]:
    """Make a wheel in which 2,000 entries of the directory are the same 10 MB of zeros."""
    path = build_wheel(place.folder, name, "1.0", {"a.py": ""})
    squeezer = zlib.compressobj(9, wbits=-15)
    data = squeezer.compress(bytes(10 << 20)) + squeezer.flush()
    check = zlib.crc32(bytes(10 << 20))
    out = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w") as copy:
        for item in archive.infolist():
            copy.writestr(item, archive.read(item))
        copy.fp.seek(copy.start_dir)  # type: ignore[union-attr, attr-defined]
        at = copy.start_dir  # type: ignore[attr-defined]
        kernel = zipfile.ZipInfo("kernel")
        kernel.compress_type, kernel.CRC, kernel.header_offset = zipfile.ZIP_DEFLATED, check, at
        kernel.compress_size, kernel.file_size = len(data), 10 << 20
        copy.fp.write(kernel.FileHeader() + data)  # type: ignore[union-attr]
        copy.start_dir = copy.fp.tell()  # type: ignore[union-attr, attr-defined]
        for n in range(2000):
            other = zipfile.ZipInfo("kernel" if n == 0 else f"overlap/{n:04}.bin")
            other.compress_type, other.CRC, other.header_offset = zipfile.ZIP_DEFLATED, check, at
            other.compress_size, other.file_size = len(data), 10 << 20
            copy.filelist.append(other)
            copy.NameToInfo[other.filename] = other
        copy._didModify = True  # type: ignore[attr-defined]
    path.write_bytes(out.getvalue())
    return [f"{name}==1.0"]


def source_only(place: Place, name: str) -> list[str]:
    """Make a source distribution whose setup.py leaves a mark."""
    import tarfile

    with tarfile.open(place.folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, text in {
            "setup.py": place.code("open('/tmp/@MARK@', 'w').close()\nopen('@HOME@/@MARK@', 'w').close()\n"),
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        }.items():
            item = tarfile.TarInfo(f"{name}-1.0/{path}")
            item.size = len(text)
            archive.addfile(item, io.BytesIO(text.encode()))
    return [f"{name}==1.0"]


def lying(place: Place, name: str) -> list[str]:
    """Make a wheel whose module was exchanged after RECORD was written."""
    path = build_wheel(place.folder, name, "1.0", {"lying.py": "x = 1\n"})
    members = {}
    with zipfile.ZipFile(path) as archive:
        members = {item.filename: archive.read(item) for item in archive.infolist()}
    members["lying.py"] = b"import os\n"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return [f"{name}==1.0"]


def utf8_flag_without_utf8(data: bytes) -> bytes:
    """Set the flag "the name is UTF-8" on an entry whose name then is not."""
    data = data.replace(b"AAAA.txt", b"\xff\xfe\xe9A.txt")
    for magic, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(b"\xff\xfe\xe9A.txt", 0 if flag == 6 else data.find(b"\xff\xfe\xe9A.txt") + 1)
        start = data.rfind(magic, 0, at)
        flags = struct.unpack_from("<H", data, start + flag)[0] | 0x800
        data = data[: start + flag] + struct.pack("<H", flags) + data[start + flag + 2 :]
    return data


def _other_header(data: bytes) -> bytes:
    return data.replace(b"module.py", b"mOdule.py", 1)


def _unknown_compression(data: bytes) -> bytes:
    for magic, at in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        start = data.find(magic)
        data = data[: start + at] + struct.pack("<H", 99) + data[start + at + 2 :]
    return data


def _encrypted(data: bytes) -> bytes:
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.find(magic)
        flags = struct.unpack_from("<H", data, start + at)[0] | 1
        data = data[: start + at] + struct.pack("<H", flags) + data[start + at + 2 :]
    return data


def two_directories(data: bytes) -> bytes:
    """Put another whole archive behind a wheel, so that it has two ends."""
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("other.py", "")
    return data + other.getvalue()


SMALL = {"install-output": "32MiB", "install-largest-file": "64MiB"}
RECORD = "NAME.py,,\nNAME-1.0.dist-info/METADATA,,\nNAME-1.0.dist-info/WHEEL,,\nNAME-1.0.dist-info/RECORD,,\n"
LONG = "n" * 256
RAW = "wheel, archive bytes by hand"

ROWS = (
    Row(
        "dotdot",
        "a name with `..` in the archive",
        REFUSED,
        ("dotdot==1 …refused: …leaves the folder",),
        wheel({"NAME.py": "", "../../../../tmp/dotdot": ""}, unrecorded=["../../../../tmp/dotdot"]),
    ),
    Row(
        "absolute",
        "an absolute name in the archive",
        REFUSED,
        ("absolute==1 …refused: …absolute…",),
        wheel({"NAME.py": "", "/tmp/absolute": ""}, unrecorded=["/tmp/absolute"]),
    ),
    Row(
        "dotdot-data",
        "`..` below a `.data/scripts` folder",
        REFUSED,
        ("dotdot-data==1 …refused: …../../../evil…",),
        wheel({"NAME.py": "", "NAME-1.0.data/scripts/../../../evil": ""}),
    ),
    Row(
        "backslash",
        "a name with backslashes",
        REFUSED,
        ("backslash==1 …refused: …leaves the folder",),
        wheel({"NAME.py": "", "x\\..\\..\\evil.py": ""}),
    ),
    Row(
        "record-dotdot",
        "`..` and an absolute name in RECORD",
        REFUSED,
        ("record-dotdot==1 …refused: the name '../../../etc/passwd' in RECORD leaves the folder",),
        wheel({"NAME.py": ""}, record="../../../etc/passwd,,\n/etc/shadow,,\n"),
    ),
    Row(
        "record-lies",
        "a module that was exchanged: RECORD has another hash",
        REFUSED,
        ("record-lies==1 …refused: RECORD has another hash or size for 'lying.py' than the file has",),
        lying,
    ),
    Row(
        "record-missing",
        "RECORD names files that are not there, and has no hashes, or weak ones",
        CONTAINED,
        (
            "note: record-missing==1: RECORD names 'not/here.py', which is not in the wheel",
            "note: record-missing==1: RECORD: …hash / size of a.py is not included in RECORD",
            "note: record-missing==1: RECORD has no hash of 'b.py' that could be checked",
        ),
        wheel(
            {"a.py": "", "b.py": ""},
            record="a.py,,\nb.py,md5=1B2M2Y8AsgTpgAmY7PhCfg,0\nnot/here.py,,\nrecord_missing-1.0.dist-info/RECORD,,\n"
            "record_missing-1.0.dist-info/METADATA,,\nrecord_missing-1.0.dist-info/WHEEL,,\n",
        ),
        then="RECORD is written anew, with what was installed",
    ),
    Row(
        "record-field",
        "a RECORD with one field of a megabyte",
        REFUSED,
        ("record-field==1 …refused: …field larger than field limit",),
        wheel({"NAME.py": ""}, record=f'"{"x" * (1 << 20)}",,\n'),
    ),
    Row(
        "record-huge",
        "a RECORD of 300,000 rows",
        CONTAINED,
        ("note: record-huge==1: RECORD names …", "note: record-huge==1: and … more notes"),
        wheel({"NAME.py": ""}, record="".join(f"gone/{n}.py,,\n" for n in range(300_000))),
        then="20 notes of it are shown",
    ),
    Row(
        "symlink",
        "an entry that is a symbolic link to /etc/shadow",
        CONTAINED,
        ("note: symlink==1: 'link' is a link in the wheel: it becomes a file with the same bytes",),
        entries([("link", stat.S_IFLNK | 0o777, b"/etc/shadow")]),
        RAW,
        then="a file with the text /etc/shadow",
    ),
    Row(
        "symlink-through",
        "a link to /tmp, and a file below it",
        REFUSED,
        ("symlink-through==1 …refused: 'way/mark' is a file and a folder in one",),
        entries([("way", stat.S_IFLNK | 0o777, b"/tmp"), ("way/mark", stat.S_IFREG | 0o644, b"x")]),
        RAW,
    ),
    Row(
        "setuid",
        "setuid and setgid programs",
        CONTAINED,
        ("note: setuid==1: 'bin/su' is setuid or setgid in the wheel: that is left out",),
        entries([("bin/su", stat.S_IFREG | 0o6755, b"#!/bin/sh\nid\n")]),
        RAW,
        then="mode 0755",
    ),
    Row(
        "devices",
        "device nodes, a named pipe and a socket in the archive",
        CONTAINED,
        (
            "note: devices==1: 'mem' is a device in the wheel",
            "note: devices==1: 'pipe' is a named pipe in the wheel",
            "note: devices==1: 'talk' is a socket in the wheel",
        ),
        entries(
            [
                ("mem", stat.S_IFCHR | 0o666, b""),
                ("disk", stat.S_IFBLK | 0o666, b""),
                ("pipe", stat.S_IFIFO | 0o666, b""),
                ("talk", stat.S_IFSOCK | 0o666, b""),
            ]
        ),
        RAW,
        then="empty files",
    ),
    Row(
        "case",
        "names that differ by case only",
        CONTAINED,
        ("note: case==1: …differs from …only by case",),
        wheel({"case/a.py": "", "case/A.py": "", "Case/a.py": ""}),
        then="all are kept",
    ),
    Row(
        "composed",
        "names that differ by the form of their characters, names with characters that are not seen",
        CONTAINED,
        (
            "note: composed==1: …only by the form of its characters",
            "note: composed==1: 'c/\\u202egnp.exe': has characters that are not seen",
            "note: composed==1: 'c/\\x9b31mred.txt': has characters that are not seen",
        ),
        wheel(
            {
                "c/e\u0301.txt": "",
                "c/\u00e9.txt": "",
                "c/\u202egnp.exe": "",
                "c/\x9b31mred.txt": "",
                "c/zero\u200bwidth.py": "",
            }
        ),
        then="shown escaped",
    ),
    Row(
        "separator",
        "a name with a line separator, to forge a line of the curator's",
        REFUSED,
        ("separator==1 …refused: RECORD is not valid: …",),
        wheel({"c/a\u2028shelf: error: no.txt": ""}),
    ),
    Row(
        "long-name",
        "a name of 256 bytes",
        REFUSED,
        ("long-name==1 …refused: …has more than 255 bytes",),
        wheel({"NAME.py": "", f"x/{LONG}": ""}),
    ),
    Row(
        "long-path",
        "a path of 3,000 folders",
        REFUSED,
        ("long-path==1 …refused: …has more than 1024 bytes",),
        wheel({"NAME.py": "", "d/" * 3000 + "x": ""}),
    ),
    Row(
        "deep",
        "a file in 500 folders, one in the other",
        CONTAINED,
        (),
        wheel({"NAME.py": "", "d/" * 500 + "x": ""}),
        then="published, and the work folder is gone",
    ),
    Row(
        "control",
        "a line feed in a name",
        REFUSED,
        ("control==1 …'tree/c/x\\ny.py' is not allowed",),
        wheel({"c/x\ny.py": ""}, unrecorded=["c/x\ny.py"]),
    ),
    Row(
        "not-utf8",
        "a name of bytes that are no text, in the code page of the archive",
        CONTAINED,
        ("note: not-utf8==1: '…A.txt': has characters that are not seen",),
        changed(lambda data: data.replace(b"AAAA.txt", b"\xff\xfe\xe9A.txt"), **{"AAAA.txt": ""}),
        RAW,
        then="the name that pip makes of it",
    ),
    Row(
        "not-utf8-flag",
        "a name that is said to be UTF-8 and is not",
        REFUSED,
        ("not-utf8-flag==1: pip failed: UnicodeDecodeError: …",),
        changed(utf8_flag_without_utf8, **{"AAAA.txt": ""}),
        RAW,
    ),
    Row(
        "nul-name",
        "a name with a NUL in it",
        CONTAINED,
        (),
        changed(lambda data: data.replace(b"AAAA.txt", b"A\0AA.txt"), **{"AAAA.txt": ""}),
        RAW,
        then="the name ends there, as under pip",
    ),
    Row(
        "twice",
        "the same name twice in the archive, with other bytes",
        CONTAINED,
        (
            "note: twice==1: RECORD: …twice.py is not mentioned in RECORD",
            "note: twice==1: 'twice.py' is in the wheel more than once: the last one counts",
        ),
        entries([("twice.py", stat.S_IFREG | 0o644, b"other = 1\n")]),
        RAW,
        then="the last one, as under pip",
    ),
    Row(
        "file-and-folder",
        "a name that is a file and a folder",
        REFUSED,
        ("…a file and a folder in one",),
        wheel({"x/y": "", "x/y/z": ""}),
    ),
    Row(
        "header",
        "a local header with another name than the directory",
        REFUSED,
        ("header==1 …refused: File name in directory …and header …differ",),
        changed(_other_header),
        RAW,
    ),
    Row(
        "compression",
        "a compression method that there is not",
        REFUSED,
        ("compression==1 …refused: That compression method is not supported",),
        changed(_unknown_compression),
        RAW,
    ),
    Row(
        "encrypted",
        "an encrypted archive",
        REFUSED,
        ("encrypted==1 …refused: the wheel is encrypted",),
        changed(_encrypted),
        RAW,
    ),
    Row(
        "cut",
        "half an archive",
        REFUSED,
        ("cut==1: pip failed: ERROR: Wheel 'cut' …is invalid",),
        changed(lambda data: data[: len(data) // 2]),
        RAW,
    ),
    Row(
        "two-archives",
        "two archives in one file, for readers that differ in which they take",
        REFUSED,
        ("two-archives==1: …invalid wheel, .dist-info directory not found",),
        changed(two_directories),
        RAW,
    ),
    Row(
        "zip-bomb",
        "a zip bomb: 200 MiB of zeros in 200 kB",
        REFUSED,
        ("zip-bomb==1: wrote more than 32 MiB of output while it was installed (--install-output)",),
        larger("zeros", 200 << 20),
        limits=SMALL,
    ),
    Row(
        "lzma-bomb",
        "the same with LZMA: in 30 kB",
        REFUSED,
        ("lzma-bomb==1: wrote more than 32 MiB of output while it was installed (--install-output)",),
        larger("zeros", 200 << 20, compression=zipfile.ZIP_LZMA),
        limits=SMALL,
    ),
    Row(
        "overlap-bomb",
        "2,000 entries that are the same 10 kB: 20 GB",
        REFUSED,
        ("overlap-bomb==1 …refused: File name in directory …and header …differ",),
        overlapping,
        RAW,
        limits=SMALL,
    ),
    Row(
        "info-bomb",
        "a licence of 512 MiB of zeros in the dist-info folder, which pip reads into memory",
        REFUSED,
        ("info-bomb==1: used more than 192 MiB of memory while it was fetched (--fetch-memory)",),
        larger("NAME-1.0.dist-info/LICENSE", 512 << 20),
        limits={"fetch-memory": "192MiB"},
    ),
    Row(
        "many-files",
        "200,001 empty files, at the real limit",
        REFUSED,
        ("many-files==1: made more than 200000 files and folders while it was installed (--install-files)",),
        many(200_001),
    ),
    Row(
        "many-files-few",
        "more files than a limit allows",
        REFUSED,
        ("many-files-few==1: made more than 300 files and folders while it was installed (--install-files)",),
        many(400),
        limits={"install-files": "300"},
    ),
    Row(
        "source-only",
        "a source distribution: its setup.py would run when metadata is asked for",
        REFUSED,
        ("there is no wheel of this version, only a source distribution",),
        source_only,
        "sdist",
    ),
)
