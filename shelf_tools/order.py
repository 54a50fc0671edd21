"""In which order a build's bytes lie, what leads, and what is materialised eagerly. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cloudimport.format.content import Content

#: A build's data files are all eager when there are no more than this many, of this many bytes together:
#: some 15 us a file and one block, against a loud ENOENT for C code that opens one by itself.
_EAGER_FILES = 100
_EAGER_BYTES = 1 << 20
#: Data that no running program opens by path through C: stubs, headers, Cython sources, markers.
_NEVER_EAGER = (".pyi", ".pxd", ".pyx", ".pxi", ".h", ".hpp", ".c", ".cpp", ".typed")
#: What follows the lead and what was reached: bytecode, what runs, what is read, sources last.
_KIND_ORDER = {"bytecode": 1, "native": 2, "metadata": 3, "script": 4, "data": 5, "source": 6}


class Item(NamedTuple):
    """Bytes to lay down: the code object (``is_code``) or the file itself of a content's file number."""

    file: int
    is_code: bool


class Order(NamedTuple):
    """``items`` in order, the first ``lead`` of them the lead; ``eager`` file numbers."""

    items: list[Item]
    lead: int
    eager: list[int]
    traced: bool


def arrange(
    content: Content,
    compiled: Iterable[str],
    opened: Sequence[tuple[str, bool]],
    c_opened: Iterable[str],
    reached: Iterable[tuple[str, bool]] = (),
) -> Order:
    """Return the order of a build's bytes.

    ``compiled`` are the sources that have bytecode; ``opened`` what importing the package read of
    its own, in order, as (path, whether its bytecode); ``c_opened`` what C code opened by itself;
    ``reached`` what importing the modules below it read besides, as ``opened``.
    Names that the content does not have are ignored: they come out of a sandbox. Bytecode that there is not
    stands for its source, which a reader then needs (a trace for another target has it).
    """
    number = {file.path: at for at, file in enumerate(content.files)}
    with_code = {number[path] for path in compiled if path in number}
    eager = sorted(set(_small_data(content)) | {number[p] for p in c_opened if p in number})

    def items_of(paths: Iterable[tuple[str, bool]]) -> list[Item]:
        in_order = [(number[path], is_code) for path, is_code in paths if path in number]
        return [Item(at, is_code and at in with_code) for at, is_code in in_order]

    traced = items_of(opened)
    # An import waits for all that is eager before its first module runs; the small ones lie beside that.
    first = sorted(eager, key=lambda at: (content.files[at].size, at))
    lead = dict.fromkeys((*(Item(at, False) for at in first), *traced))

    def place(at: int) -> tuple[int, str, int]:
        file = content.files[at]
        # A folder's own files together: they are of one kind more often than what lies below it.
        return _KIND_ORDER[file.kind], file.path.rpartition("/")[0], at

    rest = [Item(at, True) for at in sorted(with_code, key=place)]
    rest += [Item(at, False) for at in sorted(number.values(), key=place)]
    items = [*dict.fromkeys((*lead, *items_of(reached), *rest))]
    return Order(items, len(lead), eager, bool(traced))


def _small_data(content: Content) -> list[int]:
    data = [
        at
        for at, file in enumerate(content.files)
        if file.kind == "data" and not file.path.endswith(_NEVER_EAGER)
    ]
    size = sum(content.files[at].size for at in data)
    return data if len(data) <= _EAGER_FILES and size <= _EAGER_BYTES else []


def follow(opened: Iterable[tuple[str, str]], own: str) -> dict[str, tuple[str, ...]]:
    """Return what an import read of other packages: name to paths, both in order of first use.

    ``opened`` are (package name, path), files that the packages have.
    """
    found: dict[str, dict[str, None]] = {}
    for name, path in opened:
        if name != own:
            found.setdefault(name, {}).setdefault(path)
    return {name: tuple(paths) for name, paths in found.items()}
