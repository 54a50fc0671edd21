"""Which files of a build are importable modules: ``FileFinder``'s choice, made once, without a disk.

docs/format.md, section 10. The rules are those of ``importlib.machinery.FileFinder`` (CPython,
``Lib/importlib/_bootstrap_external.py``): in one folder a name is first looked for as a package,
a folder with an ``__init__`` file, then as a module file; each time extension suffixes come
first, then ``.py``, then ``.pyc``. Import budget: nothing.
"""

from __future__ import annotations

from cloudimport.ids import Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

#: Module file to package, per kind of file: source, extension, bytecode.
_PACKAGE_KIND = {"m": "p", "e": "f", "b": "q"}
_INIT = "__init__"


def suffixes(target: Target) -> tuple[tuple[str, str], ...]:
    """Return (suffix, kind of module file), in the order in which ``FileFinder`` tries them."""
    extensions = tuple((suffix, "e") for suffix in target.extension_suffixes)
    return (*extensions, (".py", "m"), (".pyc", "b"))


def modules(paths: Sequence[str], target: Target) -> list[tuple[str, str, int]]:
    """Return (stem, kind, number of the file in ``paths``) of each importable module, by stem.

    A stem is the path without suffix: ``a`` for ``a.py`` and for ``a/__init__.py``. As under pip,
    ``a/__init__`` is importable as well, as a module of its own. Kinds are those of docs/format.md:
    ``p`` source package, ``m`` source module, ``e`` extension module, ``f`` extension package,
    ``b`` bytecode module, ``q`` bytecode package.
    """
    known = suffixes(target)
    best: dict[str, tuple[int, str, int]] = {}
    for number, path in enumerate(paths):
        folder, _, base = path.rpartition("/")
        for rank, kind, stem in _claims(folder, base, known):
            claim = (rank, kind, number)
            if stem not in best or claim < best[stem]:
                best[stem] = claim
    return [(stem, kind, number) for stem, (_, kind, number) in sorted(best.items())]


def _claims(folder: str, base: str, known: Sequence[tuple[str, str]]) -> list[tuple[int, str, str]]:
    """Return (rank, kind, stem) of each module that the file may be: the smallest rank wins."""
    out = []
    name, dot, rest = base.partition(".")
    for rank, (suffix, kind) in enumerate(known):
        # A name with a dot in it cannot be asked for: `import a.b` asks for `b` in `a`.
        if not dot or not name or "." + rest != suffix:
            continue
        out.append((rank + len(known), kind, f"{folder}/{name}" if folder else name))
        if name == _INIT and folder and "." not in folder.rpartition("/")[2]:
            out.append((rank, _PACKAGE_KIND[kind], folder))
    return out
