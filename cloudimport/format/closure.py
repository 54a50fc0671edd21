"""Which native files a native file needs: ``DT_NEEDED`` followed inside one environment. Pure.

docs/format.md, section 10; the rules are those of ld.so(8). The paths of all builds share one
root. Two approximations: a content does not tell ``DT_RPATH`` from ``DT_RUNPATH``, so the run
path of each object that leads to a library is asked after the library's own (ld.so inherits
``DT_RPATH`` only); and ``$LIB``, ``$PLATFORM``, absolute folders and ``LD_LIBRARY_PATH`` point out
of the environment, where nothing of ours lies. Import budget: nothing.
"""

from __future__ import annotations

from cloudimport.format.content import Native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: (number of the build, number of the file in the build).
Key = tuple[int, int]


class _Library:
    """One native file: where it lies and what it asks for."""

    __slots__ = ("folder", "key", "native")

    def __init__(self, key: Key, path: str, native: Native) -> None:
        self.key = key
        self.folder = path.rpartition("/")[0]
        self.native = native


def closures(natives: Sequence[tuple[int, int, str, Native]]) -> dict[Key, list[Key]]:
    """Return, for each native file (build, file) that needs others, those: dependencies first.

    ``natives`` are (build, file, path, dynamic section); where two have one path, the first
    counts. A file is never in its own list; a cycle is cut where it closes. What is not found
    in the environment (the C library, the system's libraries) is left out.
    """
    tree: dict[str, _Library] = {}
    for build, file, path, native in natives:
        tree.setdefault(path, _Library((build, file), path, native))
    out = {}
    for path, library in tree.items():
        found = _closure(library, path, tree)
        if found:
            out[library.key] = found
    return out


def _closure(root: _Library, path: str, tree: dict[str, _Library]) -> list[Key]:
    """Load breadth first, as ld.so does (what is loaded answers to its SONAME); then sort."""
    loaded = {name: root for name in (root.native.soname, path.rpartition("/")[2]) if name}
    above: dict[Key, _Library | None] = {root.key: None}
    edges: dict[Key, list[_Library]] = {}
    queue = [root]
    for library in queue:
        edges[library.key] = needs = []
        for name in library.native.needed:
            other = loaded.get(name) or _search(name, library, above, tree)
            if other is None:
                continue
            if other.key not in above:
                above[other.key] = library
                queue.append(other)
                loaded.setdefault(other.native.soname or name, other)
            loaded.setdefault(name, other)
            needs.append(other)
    return _dependencies_first(root, edges)


def _dependencies_first(root: _Library, edges: dict[Key, list[_Library]]) -> list[Key]:
    """Return the keys that ``root`` reaches, each after what it needs (depth first, no recursion)."""
    out: list[Key] = []
    seen = {root.key}
    stack: list[tuple[Key, Iterator[_Library]]] = [(root.key, iter(edges[root.key]))]
    while stack:
        key, rest = stack[-1]
        following = next((other for other in rest if other.key not in seen), None)
        if following is not None:
            seen.add(following.key)
            stack.append((following.key, iter(edges[following.key])))
            continue
        stack.pop()
        if stack:
            out.append(key)
    return out


def _search(
    name: str, library: _Library, above: dict[Key, _Library | None], tree: dict[str, _Library]
) -> _Library | None:
    """Return the library that ``name`` finds through the run paths of ``library`` and its loaders."""
    if "/" in name:
        path = _expand(name, library.folder)
        return tree.get(path) if path else None
    asking: _Library | None = library
    while asking is not None:
        for element in asking.native.runpath:
            folder = _expand(element, asking.folder)
            found = None if folder is None else tree.get(f"{folder}/{name}" if folder else name)
            if found is not None:
                return found
        asking = above[asking.key]
    return None


def _expand(element: str, origin: str) -> str | None:
    """Return the folder of the tree that a run path element names, or None if it lies outside."""
    for word in ("${ORIGIN}", "$ORIGIN"):
        if element == word or element.startswith(word + "/"):
            return _normal(f"{origin}{element[len(word) :]}")
    return None


def _normal(path: str) -> str | None:
    """Return ``path`` without empty, ``.`` and ``..`` components, or None if it leaves the root."""
    out: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not out:
                return None
            out.pop()
        elif part not in ("", "."):
            out.append(part)
    return "/".join(out)
