"""``importlib.resources`` and ``pkgutil.get_data``."""

import importlib.resources as resources
import os
import pkgutil

from behaviours.record import digest, spread


def tree(subject, record):
    """``files()`` and everything below it, by the interface of traversables."""
    for root in subject.roots:
        found = record.check(root, lambda root=root: _describe(resources.files(root)))
        if found:
            record.check(root + " tree", lambda root=root: _below(resources.files(root)))


def _describe(traversable):
    return [type(traversable).__name__, str(traversable), traversable.name, traversable.is_dir()]


def _below(traversable, depth=0):
    """Return counts and a digest of all names below; deeper than any package is."""
    names = []

    def visit(at, prefix, depth):
        for entry in sorted(at.iterdir(), key=lambda e: e.name):
            folder = entry.is_dir()
            names.append(f"{prefix}{entry.name} {folder} {entry.is_file()}")
            if folder and depth < 30:
                visit(entry, prefix + entry.name + "/", depth + 1)

    visit(traversable, "", depth)
    return [len(names), digest("\n".join(names)), names[:5]]


def reading(subject, record):
    """Data files by ``joinpath``, ``read_bytes``, ``read_text``, ``open``, ``as_file`` of file and folder."""
    for root in subject.roots:
        own = _own(subject, root)
        for number, below in enumerate(spread(own, 60)):
            function = _WAYS[number % len(_WAYS)]
            record.check(f"{function.__name__} {root} {below}", function, root, below)
        for below in sorted({os.path.dirname(f) for f in own} - {""})[:3]:
            record.check(f"folder {root} {below}", _folder, root, below)
        record.refusal(f"none {root}", _none, root)


def _own(subject, root):
    folder = root.replace(".", "/") + "/"
    return [file[len(folder) :] for file in subject.data() if file.startswith(folder)]


def _bytes(root, below):
    return digest(resources.files(root).joinpath(*below.split("/")).read_bytes())


def _text(root, below):
    return digest((resources.files(root) / below).read_text(encoding="latin-1"))


def _opened(root, below):
    with resources.files(root).joinpath(below).open("rb") as file:
        return digest(file.read())


def _as_file(root, below):
    with resources.as_file(resources.files(root) / below) as path, open(path, "rb") as file:
        return [str(path), digest(file.read())]


def _folder(root, below):
    folder = resources.files(root) / below
    return [folder.is_dir(), sorted(entry.name for entry in folder.iterdir())]


def _none(root):
    missing = resources.files(root) / "no-such-file"
    return [missing.is_file(), missing.is_dir(), missing.read_text()]


_WAYS = (_bytes, _text, _opened, _as_file)


def get_data(subject, record):
    """``pkgutil.get_data``."""
    for root in subject.roots:
        for below in spread(_own(subject, root), 60):
            record.check(f"{root} {below}", lambda r=root, b=below: digest(pkgutil.get_data(r, b) or b""))
        record.refusal(f"none {root}", pkgutil.get_data, root, "no-such-file")
