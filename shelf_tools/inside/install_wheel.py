"""Inside the sandbox: install one wheel, compile its sources, write the result as one tar stream.

``python -I -S -B install_wheel.py WHEEL_NAME WHEEL OUT TOOLS COMPILE``: the wheel's name, and where it is.
OUT is an empty folder, TOOLS the folder that holds the ``installer`` package, COMPILE the number of
compiler processes, 0 for none. The stream has ``tree/...``, ``code/....code`` and ``report.json``.
Exit status 3 with one line on standard error: the wheel is refused.
"""

from __future__ import annotations

import base64
import configparser
import csv
import errno
import hashlib
import io
import json
import marshal
import os
import shutil
import signal
import stat
import sys
import tarfile
import warnings
import zipfile
import zlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from installer.destinations import WheelDestination
    from installer.sources import WheelFile
    from installer.utils import Scheme
else:
    WheelDestination = object

#: Seconds of one compiler process; the largest generated sources take some 20.
COMPILE_SECONDS = 120
#: Sources given to one compiler process.
BATCH = 50
#: Notes of one kind that are reported; a hostile wheel could have millions.
MOST_NOTES = 20
#: Bytes of a name and of a path that a content can hold (docs/format.md, section 5).
LONGEST_NAME, LONGEST_PATH = 255, 1024
#: Hashes that RECORD may have (PEP 427: "sha256 or better").
STRONG = ("sha256", "sha384", "sha512")
#: What an archive can say that an entry is, and what is made of none of them.
ODD = {
    stat.S_IFLNK: "a link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
}
#: What an installer says of how it was asked; nobody asked for a build (docs/format.md, section 5).
NOT_OF_A_BUILD = ("REQUESTED", "direct_url.json")
#: A launcher, line by line what pip's does, so that warnings and tracebacks name the same lines.
SCRIPT = """\
#!python
import sys
from {module} import {first}
if __name__ == "__main__":
    sys.argv[0] = sys.argv[0].removesuffix(".exe")
    sys.exit({attr}())
"""


#: What the kernel says when a limit is reached: not the wheel is wrong then. The caller knows the limits.
LIMITED = (errno.EAGAIN, errno.EFBIG, errno.EMFILE, errno.ENOMEM, errno.ENOSPC)


class RefusedError(Exception):
    """The wheel cannot be installed; the text is one line."""


def digest_of(path: str) -> str:
    """Return RECORD's form of a file's SHA-256 (PEP 376, PEP 427)."""
    found = hashlib.sha256()
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            found.update(chunk)
    return "sha256=" + base64.urlsafe_b64encode(found.digest()).decode().rstrip("=")


class Tree(WheelDestination):
    """The destination that ``installer.install`` writes to: the layout of ``pip install --target``."""

    def __init__(self, root: str, distribution: str) -> None:
        self.root = root
        self.written: set[str] = set()
        self.scripts: set[str] = set()
        self.notes: list[str] = []
        # pip's home scheme puts headers here (sysconfig, "posix_home").
        headers = "include/python/" + distribution
        self.prefixes = {"purelib": "", "platlib": "", "data": "", "scripts": "bin", "headers": headers}

    def place(self, scheme: str, path: object) -> str:
        """Return the path below the root, checked."""
        name = str(path)
        parts = name.split("/")
        if "\\" in name or any(p in ("", ".", "..") for p in parts):
            raise RefusedError(f"the name {name[:200]!r} in the wheel leaves the folder")
        prefix = self.prefixes[scheme]
        place = prefix + "/" + name if prefix else name
        if len(place.encode("utf-8", "replace")) > LONGEST_PATH:
            raise RefusedError(f"the name {name[:200]!r}... in the wheel has more than {LONGEST_PATH} bytes")
        if max(len(part.encode("utf-8", "replace")) for part in parts) > LONGEST_NAME:
            raise RefusedError(f"a part of {name[:200]!r}... in the wheel has more than {LONGEST_NAME} bytes")
        return place

    def put(self, path: str, stream: BinaryIO, executable: bool) -> None:
        """Write one file; a later one of the same name wins, as under pip."""
        target = os.path.join(self.root, path)
        if path in self.written:
            self.notes.append(f"{path!r} is in the wheel more than once: the last one counts")
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as out:
                shutil.copyfileobj(stream, out, 1 << 20)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise RefusedError(f"{path[:200]!r} is a file and a folder in one") from None
        os.chmod(target, 0o755 if executable else 0o644)
        self.written.add(path)

    def write_script(self, name: str, module: str, attr: str, section: str) -> Any:
        """Write the script of an entry point. Its text belongs to a build's identity: it never changes."""
        path = self.place("scripts", name)
        text = SCRIPT.format(module=module, first=attr.split(".", maxsplit=1)[0], attr=attr)
        self.put(path, io.BytesIO(text.encode()), True)
        self.scripts.add(path)

    def write_file(self, scheme: Scheme, path: Any, stream: BinaryIO, is_executable: bool) -> Any:
        """Write one file of the wheel."""
        place = self.place(scheme, path)
        if "__pycache__" in place.split("/"):
            return None
        folder, _, base = place.partition("/")
        if folder.endswith(".dist-info") and base in NOT_OF_A_BUILD:
            self.notes.append(f"{place!r} is left out: it is the installer's to write")
            return None
        if scheme == "scripts":
            if place in self.scripts:
                return None
            stream = self.with_placeholder(stream)
        self.put(place, stream, is_executable)
        return None

    @staticmethod
    def with_placeholder(stream: BinaryIO) -> BinaryIO:
        """Return a script's bytes; a first line ``#!python...`` becomes the placeholder (PEP 427)."""
        data = stream.read()
        if data.startswith(b"#!python"):
            data = b"#!python\n" + data.partition(b"\n")[2]
        return io.BytesIO(data)

    def finalize_installation(self, scheme: Scheme, record_file_path: str, records: Any) -> None:
        """Write RECORD over what was really installed, sorted by path."""
        place = self.place(scheme, record_file_path)
        self.written.discard(place)
        rows = []
        for path in sorted(self.written, key=str.encode):
            full = os.path.join(self.root, path)
            rows.append((path, digest_of(full), str(os.path.getsize(full))))
        rows.append((place, "", ""))
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        self.put(place, io.BytesIO(text.getvalue().encode()), False)


def install(name: str, stream: BinaryIO, root: str, notes: list[str]) -> None:
    """Install the wheel; fill the report's notes."""
    import installer
    import installer.exceptions
    import installer.records

    try:
        with zipfile.ZipFile(stream) as archive:
            archive.filename = name
            source = wheel_file(archive)
            if any(item.flag_bits & 1 for item in archive.infolist()):
                raise RefusedError("the wheel is encrypted")
            notes += [*entry_notes(archive), *record_notes(source, set(archive.namelist()))]
            tree = Tree(root, source.distribution)
            os.mkdir(root)
            installer.install(source, tree, {"INSTALLER": b"cloudimport\n"})
    except (zipfile.BadZipFile, zlib.error, EOFError, LookupError, ValueError, RuntimeError) as error:
        raise RefusedError(one_line(error)) from None
    except (AssertionError, configparser.Error) as error:  # what the installer package raises there
        raise RefusedError(f"entry_points.txt is not valid: {one_line(error)}") from None
    except installer.exceptions.InstallerError as error:
        raise RefusedError(one_line(error)) from None
    except (csv.Error, installer.records.InvalidRecordEntry) as error:
        raise RefusedError(f"RECORD is not valid: {one_line(error)}") from None
    except OSError as error:
        if error.errno in LIMITED:
            raise
        raise RefusedError("{}: {}".format(error.strerror or error, error.filename or "the wheel")) from None
    notes += tree.notes[:MOST_NOTES]


class Checked:
    """A stream that is hashed while it is read."""

    def __init__(self, stream: BinaryIO, algorithm: str) -> None:
        self._stream, self._hash = stream, hashlib.new(algorithm)
        self.size = 0
        self.ended = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, all of them without a size."""
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        self.ended = size < 0 or not data
        return data

    def fits(self, digest: str, size: str) -> bool:
        """Whether what was read, to its end, has RECORD's digest (no padding) and size."""
        got = base64.urlsafe_b64encode(self._hash.digest()).decode().rstrip("=")
        return got == digest.rstrip("=") and (not size or int(size) == self.size)


def wheel_file(archive: zipfile.ZipFile) -> WheelFile:
    """Return the wheel; its data folder is the one that it has, however the name is spelt (as pip does).

    What is read of it is checked against RECORD: "installation will fail if any file in the archive is not
    [...] correctly hashed" (PEP 427; pip does not look; of 939 wheels at hand none had a wrong hash).
    """
    from installer.sources import WheelFile

    source = WheelFile(archive)
    tops = {name.split("/", 1)[0] for name in archive.namelist() if "/" in name}
    found = sorted(name for name in tops if name.endswith(".data"))
    if len(found) > 1:
        raise RefusedError("the wheel has several data folders: {}".format(", ".join(found)[:200]))

    class Spelt(WheelFile):
        data_dir = found[0] if found else source.data_dir

        def get_contents(self) -> Any:
            for row, stream, executable in super().get_contents():
                algorithm, _, digest = row[1].partition("=")
                if algorithm not in STRONG:
                    yield row, stream, executable
                    continue
                checked = Checked(stream, algorithm)
                yield row, checked, executable
                if checked.ended and not checked.fits(digest, row[2]):
                    raise RefusedError(
                        f"RECORD has another hash or size for {row[0][:200]!r} than the file has"
                    )

    return Spelt(archive)


def entry_notes(archive: zipfile.ZipFile) -> list[str]:
    """Return which entries say that they are something else than files. They become files, as under pip."""
    notes = []
    for item in archive.infolist():
        mode = item.external_attr >> 16
        kind = ODD.get(stat.S_IFMT(mode))
        if kind:
            notes.append(f"{item.filename!r} is {kind} in the wheel: it becomes a file with the same bytes")
        if mode & 0o6000:
            notes.append(f"{item.filename!r} is setuid or setgid in the wheel: that is left out")
    return notes[:MOST_NOTES]


def record_notes(source: WheelFile, names: set[str]) -> list[str]:
    """Return what is wrong with the wheel's RECORD. pip installs such wheels, and so do we.

    Raises RefusedError for one that names files outside of the wheel: pip copies such rows, and an
    uninstall removes what they name.
    """
    from installer.records import parse_record_file

    notes = []
    try:
        source.validate_record(validate_contents=False)
    except source.validation_error as error:
        notes = ["RECORD: " + one_line(issue) for issue in getattr(error, "issues", [error])[:MOST_NOTES]]
    more = []
    for path, hashed, _ in parse_record_file(source.read_dist_info("RECORD").splitlines()):
        if path.startswith("/") or ".." in path.split("/"):
            raise RefusedError(f"the name {path[:200]!r} in RECORD leaves the folder")
        if path not in names:
            more.append(f"RECORD names {path[:200]!r}, which is not in the wheel")
        elif hashed and hashed.partition("=")[0] not in STRONG:  # of none at all it has been told
            more.append(f"RECORD has no hash of {path[:200]!r} that could be checked")
    return notes + more[:MOST_NOTES]


def one_line(error: object) -> str:
    """Return an error's text as one printable line."""
    text = "".join(c if c.isprintable() else " " for c in (str(error) or type(error).__name__))
    return text[:300]


def compile_one(root: str, code: str, path: str) -> str:
    """Compile one source and write its code object; return the reason if it does not compile."""
    with open(os.path.join(root, path), "rb") as stream:
        source = stream.read()
    try:
        compiled = compile(source, path, "exec", dont_inherit=True, optimize=0)
        data = marshal.dumps(compiled)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError, LookupError) as error:
        return one_line(f"{type(error).__name__}: {error}")
    target = os.path.join(code, path + ".code")
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target + "~", "wb") as out:
            out.write(data)
        os.replace(target + "~", target)
    except OSError as error:
        return one_line(error)
    return ""


def compile_batch(root: str, code: str, paths: list[str]) -> tuple[int, int]:
    """Compile a batch in a child; return its pid and the pipe with its report."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(write_end)
        return pid, read_end
    status = 1
    try:
        signal.alarm(COMPILE_SECONDS)
        warnings.simplefilter("ignore")
        said = [(n, compile_one(root, code, path)) for n, path in enumerate(paths)]
        # 50 reasons of 200 characters stay below the 64 KiB that a pipe holds unread.
        text = json.dumps([(n, reason[:200]) for n, reason in said if reason], ensure_ascii=False)
        with os.fdopen(write_end, "wb") as out:
            out.write(text.encode("utf-8", "replace"))
        status = 0
    finally:
        os._exit(status)


def compile_all(root: str, code: str, sources: list[str], workers: int) -> dict[str, str]:
    """Compile every source; return those that do not compile, with the reason."""
    waiting = [sources[at : at + BATCH] for at in range(0, len(sources), BATCH)]
    running: dict[int, tuple[list[str], int]] = {}
    bad: dict[str, str] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            paths = waiting.pop()
            pid, pipe = compile_batch(root, code, paths)
            running[pid] = paths, pipe
        pid, status = os.wait()
        if pid not in running:
            continue  # a child that this process had before
        paths, pipe = running.pop(pid)
        with os.fdopen(pipe, "rb") as stream:
            said = stream.read()
        if status == 0:
            bad.update({paths[n]: reason for n, reason in json.loads(said)})
        elif len(paths) == 1:
            bad[paths[0]] = f"the compiler died (wait status {status})"
        else:
            waiting += [[path] for path in paths]
    return bad


def members(folder: str) -> list[tuple[str, str]]:
    """Return the files below a folder as (path, relative path), sorted by the latter's bytes."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            found.append((path, os.path.relpath(path, folder)))
    return sorted(found, key=lambda pair: os.fsencode(pair[1]))


def send(out: BinaryIO, folders: list[tuple[str, str]], report: dict[str, Any]) -> None:
    """Write the tar stream (GNU format, nothing in it but names, sizes, contents and one mode bit)."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.GNU_FORMAT, bufsize=1 << 18) as archive:
        for label, folder in folders:
            for path, name in members(folder):
                info = tarfile.TarInfo(label + "/" + name)
                found = os.lstat(path)
                info.size = found.st_size
                info.mode = found.st_mode & 0o777
                with open(path, "rb") as stream:
                    archive.addfile(info, stream)
        data = json.dumps(report).encode()
        info = tarfile.TarInfo("report.json")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def main() -> int:
    """Install, compile, send."""
    name, wheel, out, tools, workers = sys.argv[1:6]
    sys.path.append(tools)
    os.umask(0o022)
    root, code = os.path.join(out, "tree"), os.path.join(out, "code")
    notes: list[str] = []
    bad: dict[str, str] = {}
    try:
        with open(wheel, "rb") as stream:
            install(name, stream, root, notes)
    except RefusedError as error:
        sys.stderr.write(f"{error}\n")
        return 3
    os.mkdir(code)
    if int(workers):
        sources = [name for _, name in members(root) if name.endswith(".py")]
        bad = compile_all(root, code, sources, int(workers))
    send(sys.stdout.buffer, [("tree", root), ("code", code)], {"notes": notes, "bad": bad})
    sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
