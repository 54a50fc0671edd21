"""Files: listing, status, opening in all ways, copying. Nobody has touched them before in this cache."""

import codecs
import ctypes
import fileinput
import glob
import io
import mmap
import os
import pathlib
import posix
import shutil
import sqlite3
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from importlib import import_module

from behaviours.record import attempt, digest, spread, way


def folders(subject):
    """Return the folders that the distribution has files in, and those above them, without the root."""
    found = set()
    for file in subject.files:
        folder = os.path.dirname(file)
        while folder and folder not in found:
            found.add(folder)
            folder = os.path.dirname(folder)
    return sorted(found)


def listing(subject, record):
    """``os.listdir``, ``os.scandir``, ``glob``, ``pathlib`` folder by folder; ``os.walk`` and their like."""
    ways = (_listdir, _scandir, _glob, _iterdir, _listdir_bytes, _listdir_fd)
    for folder in folders(subject):
        for at in range(2):  # the second way finds what the first has left behind
            function = ways[(way(folder, len(ways)) + at) % len(ways)]
            record.check(f"{function.__name__} {folder}", function, subject.path(folder))
    for folder in _own_folders(subject):
        path = subject.path(folder)
        for function in (_walk, _fwalk, _rglob, _recursive_glob):
            record.check(f"{function.__name__} {folder}", function, path)
    record.check("root", _root, subject)


def _root(subject):
    """Return which of the distribution's own names the root lists; others' are none of its business."""
    own = {file.partition("/")[0] for file in subject.files}
    return sorted(own.intersection(os.listdir(subject.root)))


def _own_folders(subject):
    """Return the top-level folders, but for namespaces the folders of the import names in them."""
    tops = {root.replace(".", "/") for root in subject.roots}
    have = set(folders(subject))
    tops |= {f for f in have if "/" not in f and f.replace("/", ".") not in subject.namespaces}
    return sorted(tops & have)


def _listdir(path):
    return sorted(os.listdir(path))


def _listdir_bytes(path):
    return sorted(os.fsdecode(name) for name in os.listdir(os.fsencode(path)))


def _listdir_fd(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def _scandir(path):
    with os.scandir(path) as entries:
        return sorted([e.name, e.is_dir(), e.is_file(), e.is_symlink(), e.path] for e in entries)


def _glob(path):
    return sorted(glob.glob(os.path.join(glob.escape(path), "*")))


def _iterdir(path):
    return sorted([str(p), p.is_dir(), p.suffix] for p in pathlib.Path(path).iterdir())


def _walk(path):
    found = sorted([at, sorted(names), sorted(files)] for at, names, files in os.walk(path))
    return [len(found), digest(repr(_relative(found, path)))]


def _fwalk(path):
    found = sorted([at, sorted(names), sorted(files)] for at, names, files, _ in os.fwalk(path))
    return [len(found), digest(repr(_relative(found, path)))]


def _relative(found, path):
    return [[os.path.relpath(at, path), names, files] for at, names, files in found]


def _rglob(path):
    found = sorted(str(p.relative_to(path)) for p in pathlib.Path(path).rglob("*"))
    return [len(found), digest("\n".join(found))]


def _recursive_glob(path):
    found = sorted(glob.glob("**/*.py", root_dir=path, recursive=True))
    return [len(found), digest("\n".join(found))]


def status(subject, record):
    """``os.stat``, ``os.path``, ``os.access``, ``pathlib``, of each file and folder, and of what is none."""
    ways = (_stat, _path_stat, _lstat, _questions)
    for folder in folders(subject):
        record.check("folder " + folder, _folder, subject.path(folder))
    for file in subject.files:
        function = ways[way(file, len(ways))]
        record.check(f"{function.__name__} {file}", function, subject.path(file))
    for file in spread(subject.files, 200):
        record.check(f"again {file}", _stat, subject.path(file))


def _folder(path):
    return [os.path.isdir(path), oct(os.stat(path).st_mode), os.path.exists(path + "/no-such-file")]


def _stat(path):
    found = os.stat(path)
    return [oct(found.st_mode), found.st_size, found.st_uid == os.geteuid()]


def _lstat(path):
    found = os.lstat(path)
    return [oct(found.st_mode), found.st_size, os.path.islink(path)]


def _path_stat(path):
    found = pathlib.Path(path)
    return [found.exists(), found.is_file(), found.stat().st_size, found.resolve().name]


def _questions(path):
    return [
        os.path.exists(path),
        os.path.isfile(path),
        os.path.isdir(path),
        os.path.getsize(path),
        [os.access(path, mode) for mode in (os.R_OK, os.X_OK, os.F_OK)],
        os.path.realpath(path).rpartition("/")[2],
    ]


def opening(subject, record):
    """Each data file, and a sample of the others, by one of the ways in which a program gets at a file."""
    data = subject.data()
    others = [file for file in subject.files if file not in set(data)]
    for file in data + spread(others, 60):
        function = _WAYS[way(file, len(_WAYS))]
        record.check(f"{function.__name__} {file}", function, subject.path(file))


def by_open(path):
    """``open`` in a ``with``."""
    with open(path, "rb") as file:
        return digest(file.read())


def by_text(path):
    """``io.open`` as text, in an encoding that takes everything."""
    with io.open(path, encoding="latin-1", newline="") as file:  # noqa: UP020
        return digest(file.read())


def by_pathlib(path):
    """``pathlib.Path.read_bytes``."""
    return digest(pathlib.Path(path).read_bytes())


def by_descriptor(path):
    """``os.open`` and ``os.read``."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return digest(b"".join(iter(lambda: os.read(fd, 1 << 20), b"")))
    finally:
        os.close(fd)


def by_mmap(path):
    """``mmap``, which takes no empty files."""
    if not os.path.getsize(path):
        return "empty"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        return digest(bytes(mapped))


def by_copy(path):
    """``shutil.copyfile``."""
    with tempfile.TemporaryDirectory() as folder:
        return by_open(shutil.copy2(path, os.path.join(folder, "copy")))


def by_codecs(path):
    """``codecs.open``."""
    with codecs.open(path, "rb") as file:
        return digest(file.read())


def by_bytes_path(path):
    """``open`` of a path as bytes."""
    return by_open(os.fsencode(path))


def by_folder(path):
    """A relative name, in the file's folder."""
    before = os.getcwd()
    os.chdir(os.path.dirname(path))
    try:
        return by_open(os.path.basename(path))
    finally:
        os.chdir(before)


def by_dots(path):
    """A path with ``..`` in it."""
    folder, name = os.path.split(path)
    return by_open(os.path.join(folder, "..", os.path.basename(folder), ".", name))


def by_folder_descriptor(path):
    """``dir_fd``."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        fd = os.open(os.path.basename(path), os.O_RDONLY, dir_fd=folder)
        with open(fd, "rb") as file:
            return digest(file.read())
    finally:
        os.close(folder)


def by_fileinput(path):
    """``fileinput``."""
    with fileinput.input([path], mode="rb") as lines:
        return digest(b"".join(lines))


def by_program(path):
    """Another program, which is told the path."""
    return digest(subprocess.run(["cat", path], stdout=subprocess.PIPE, check=True).stdout)


_WAYS = (
    (by_open, by_text, by_pathlib, by_descriptor, by_mmap, by_copy, by_codecs)
    + (by_bytes_path, by_folder, by_dots, by_folder_descriptor, by_fileinput)
    + (by_program,)
)


def beside_file(subject, record):
    """``os.path.join(os.path.dirname(module.__file__), name)``, as packages do it themselves."""
    for root in spread(subject.roots, 10):
        module = record.check(root, _module_file, root)
        if not module:
            continue
        folder = os.path.dirname(module)
        own = [f for f in subject.data() if subject.path(f).startswith(folder + "/")]
        for file in spread(own, 50):
            below = os.path.relpath(subject.path(file), folder)
            record.check(f"{root}: {below}", by_open, os.path.join(folder, below))


def by_c_code(subject, record):
    """Files that C code opens by itself, once the package has been imported: Python's own, the C library."""
    for root in subject.roots[:20]:
        record.check(root, _module_file, root)
    for file in spread(subject.data(), 60):
        function = (_file_io, _posix_open, _c_open)[way(file, 3)]
        record.check(f"{function.__name__} {file}", function, subject.path(file))


def _file_io(path):
    with io.FileIO(path) as file:
        return digest(file.readall())


def _posix_open(path):
    with open(posix.open(path, os.O_RDONLY), "rb") as file:
        return digest(file.read())


def _c_open(path):
    library = ctypes.CDLL(None, use_errno=True)
    fd = library.open(os.fsencode(path), os.O_RDONLY | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "the C library's open")
    with open(fd, "rb") as file:
        return digest(file.read())


def _module_file(name):
    return getattr(import_module(name), "__file__", None)


def copying(subject, record):
    """``shutil.copytree`` of whole folders: all files, their bytes and modes."""
    with tempfile.TemporaryDirectory() as folder:
        # The folder of all distributions' scripts has launchers, which each installer words in its own way.
        for number, top in enumerate(top for top in _own_folders(subject) if top != "bin"):
            copy = os.path.join(folder, str(number))
            record.check(top, _copied, subject.path(top), copy)
            shutil.rmtree(copy, ignore_errors=True)


def _copied(path, copy):
    shutil.copytree(path, copy)
    found = []
    for at, names, files in os.walk(copy):
        names.sort()
        for name in sorted(files):
            file = os.path.join(at, name)
            mode = stat.S_IMODE(os.stat(file).st_mode)
            if name in ("RECORD", "INSTALLER") and at == copy:
                continue  # the installer's own notes: see metadata.py
            found.append(f"{os.path.relpath(file, copy)} {mode:o} {by_open(file)}")
    return [len(found), digest("\n".join(found))]


def databases(subject, record):
    """``sqlite3.connect`` by path and by URI."""
    for file in subject.databases:
        path = subject.path(file)
        record.check(file, _tables, path, False)
        record.check("uri " + file, _tables, f"file:{path}?mode=ro", True)


def _tables(database, uri):
    connection = sqlite3.connect(database, uri=uri)
    try:
        names = connection.execute("select name from sqlite_master order by name").fetchall()
        return [name for (name,) in names]
    finally:
        connection.close()


def archives(subject, record):
    """``zipfile`` and ``tarfile`` by path."""
    for file in subject.archives:
        record.check(file, _members, subject.path(file))


def _members(path):
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return ["zip", archive.testzip(), digest("\n".join(archive.namelist()))]
    with tarfile.open(path) as archive:
        return ["tar", digest("\n".join(archive.getnames()))]


def libraries(subject, record):
    """``ctypes.CDLL`` of shared libraries and extension modules, by path."""
    for file in spread(subject.libraries, 40):
        record.check(file, _load, subject.path(file))


def _load(path):
    library = ctypes.CDLL(path)
    return [library._name == path, attempt(lambda: bool(library.no_such_symbol)).partition(":")[0]]
