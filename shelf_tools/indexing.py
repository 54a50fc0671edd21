"""Compiling an environment's contents and layouts into its index (docs/format.md, section 10). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from cloudimport.errors import ConfigurationError
from cloudimport.format.closure import closures
from cloudimport.format.content import Content, Native
from cloudimport.format.layout import Layout
from cloudimport.format.modules import modules
from cloudimport.format.records import FORMAT, Extents, canonical
from cloudimport.ids import Target

_LETTERS = {"source": "s", "bytecode": "b", "native": "n", "metadata": "m", "script": "x", "data": "d"}


class Built(NamedTuple):
    """A build of the shelf: its content and layout with their digests."""

    content: Content
    content_digest: str
    layout: Layout
    layout_digest: str


class _Owned(NamedTuple):
    """A build with the numbers of the files that it owns in the environment."""

    built: Built
    files: list[int]


def build_index(
    builds: Iterable[Built], requirements: Sequence[str], target: Target, warn: Callable[[str], None]
) -> bytes:
    """Return the plain bytes of the index of an environment.

    ``warn`` is called with one line for each path that two builds install differently. Raises
    ConfigurationError when a path is a file in one build and a folder in another.
    """
    owned = _own(sorted(builds, key=lambda built: built.content.name), warn)
    module_rows = _modules(owned, target)
    needs = _closures(owned)
    sections, header_rows, at = [], [], 0
    for number, one in enumerate(owned):
        section = canonical(_section(number, owned, module_rows, needs))
        content, layout = one.built.content, one.built.layout
        header_rows.append(
            {
                "name": content.name,
                "version": content.version,
                "content": one.built.content_digest,
                "layout": one.built.layout_digest,
                "magic": layout.magic,
                "section": [at, len(section)],
            }
        )
        sections.append(section)
        at += len(section)
    files, folders = _roots(owned)
    header = {
        "format": FORMAT,
        "kind": "environment-index",
        "target": str(target),
        "requirements": list(requirements),
        "builds": header_rows,
        "names": _names(module_rows, folders),
        "folders": folders,
        "files": files,
    }
    return canonical(header) + b"\n" + b"".join(sections)


def check_together(contents: Iterable[Content]) -> None:
    """Check that no path is a file in one content and a folder in another. Raises ConfigurationError."""
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for content in sorted(contents, key=lambda content: content.name):
        for file in content.files:
            files.setdefault(file.path, content.name)
            head = file.path.rpartition("/")[0]
            while head and head not in folders:
                folders[head] = content.name
                head = head.rpartition("/")[0]
    for path, name in files.items():
        if path in folders:
            raise ConfigurationError(
                f"{path} is a file in {name} and a folder in {folders[path]}: they cannot go together"
            )


def _own(builds: Sequence[Built], warn: Callable[[str], None]) -> list[_Owned]:
    """Give each path to the first build that has it."""
    check_together(built.content for built in builds)
    owner: dict[str, tuple[str, str]] = {}
    owned = []
    for built in builds:
        name, mine = built.content.name, []
        for number, file in enumerate(built.content.files):
            first = owner.setdefault(file.path, (name, file.digest))
            if first[0] == name:
                mine.append(number)
            elif first[1] != file.digest:
                warn(f"{file.path} is in {first[0]} and, with other bytes, in {name}: {first[0]}'s is used")
        owned.append(_Owned(built, mine))
    return owned


def _modules(owned: Sequence[_Owned], target: Target) -> list[list[tuple[str, str, int]]]:
    """Return (stem, kind, file) rows per build, resolved over the merged tree."""
    places = [(build, at) for build, one in enumerate(owned) for at in range(len(one.files))]
    paths = [owned[build].built.content.files[owned[build].files[at]].path for build, at in places]
    rows: list[list[tuple[str, str, int]]] = [[] for _ in owned]
    for stem, kind, number in modules(paths, target):
        build, at = places[number]
        rows[build].append((stem, kind, at))
    return rows


def _closures(owned: Sequence[_Owned]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    natives: list[tuple[int, int, str, Native]] = []
    for build, one in enumerate(owned):
        content = one.built.content
        for at, number in enumerate(one.files):
            path = content.files[number].path
            if path in content.native:
                natives.append((build, at, path, content.native[path]))
    return closures(natives)


def _section(
    build: int,
    owned: Sequence[_Owned],
    all_rows: Sequence[Sequence[tuple[str, str, int]]],
    needs: dict[tuple[int, int], list[tuple[int, int]]],
) -> dict[str, Any]:
    content, layout, rows = owned[build].built.content, owned[build].built.layout, all_rows[build]
    numbers = owned[build].files
    files = [content.files[number] for number in numbers]
    place = {number: at for at, number in enumerate(numbers)}
    return {
        "paths": "\n".join(file.path for file in files),
        "kinds": "".join(_LETTERS[file.kind] for file in files),
        "executable": [at for at, file in enumerate(files) if file.executable],
        "sizes": [file.size for file in files],
        "native_digests": {str(at): file.digest for at, file in enumerate(files) if file.kind == "native"},
        "packs": layout.packs,
        "blocks": [value for block in layout.blocks for value in block[:5]],
        "block_digests": "".join(block.digest for block in layout.blocks),
        "exclusive": _exclusive(content, layout),
        "extents": [layout.files[number] for number in numbers],
        "modules": "\n".join(stem for stem, _, _ in rows),
        "module_kinds": "".join(kind for _, kind, _ in rows),
        "module_files": [at for _, _, at in rows],
        "code": [layout.code.get(files[at].path, ()) if kind in "pm" else () for _, kind, at in rows],
        "eager": [place[number] for number in layout.eager if number in place],
        "prefetch": _prefetch(build, owned),
        **_imports(build, owned, all_rows),
        "closure": {
            str(at): [value for pair in needs[build, at] for value in pair]
            for at in range(len(files))
            if needs.get((build, at))
        },
    }


def _exclusive(content: Content, layout: Layout) -> list[int]:
    """Return the blocks all of whose bytes belong to one native file."""
    users: dict[int, set[str]] = {}
    for file, extents in zip(content.files, layout.files, strict=True):
        for block in extents[::3]:
            users.setdefault(block, set()).add(file.path if file.kind == "native" else "")
    for extents in layout.code.values():
        for block in extents[::3]:
            users.setdefault(block, set()).add("")
    return sorted(block for block, paths in users.items() if len(paths) == 1 and "" not in paths)


def _prefetch(build: int, owned: Sequence[_Owned]) -> list[list[Any]]:
    """Return what importing the build needs: its first blocks, what its trace read of others, its other ones.

    Most packages import others in their first lines. What is eager lies before those (shelf_tools/order.py).
    """
    layout = owned[build].built.layout
    eager = [block for file in layout.eager for block in layout.files[file][::3]]
    first = min(max(eager) + 2 if eager else 1, layout.lead)
    out: list[list[Any]] = [[build, [0, first]]] if layout.lead else []
    by_name = {one.built.content.name: number for number, one in enumerate(owned)}
    for name, paths in layout.follow.items():
        other = by_name.get(name)
        if other is not None and other != build:
            blocks = _blocks_of(owned[other].built, paths)
            if blocks:
                out.append([other, _runs(blocks)])
    if layout.lead > first:
        out.append([build, [first, layout.lead - first]])
    return out


def _imports(
    build: int, owned: Sequence[_Owned], all_rows: Sequence[Sequence[tuple[str, str, int]]]
) -> dict[str, str]:
    """Return the column with what each module imports, if that is known: a line of module rows.

    Those of other builds come as ``build:row``.
    """
    imports = owned[build].built.layout.imports
    if not imports:
        return {}
    by_name = {one.built.content.name: number for number, one in enumerate(owned)}
    places: dict[int, dict[str, int]] = {}
    for other in {by_name[name] for by in imports.values() for name in by if name in by_name} | {build}:
        files, numbers = owned[other].built.content.files, owned[other].files
        # A package stands twice, as itself and as its ``__init__``: the first is meant.
        rows = reversed(list(enumerate(all_rows[other])))
        places[other] = {files[numbers[at]].path: row for row, (_, _, at) in rows}
    lines = []
    for row, (_, _, at) in enumerate(all_rows[build]):
        path = owned[build].built.content.files[owned[build].files[at]].path
        found: dict[str, None] = {}
        for name, paths in imports.get(path, {}).items() if places[build][path] == row else ():
            number = by_name.get(name)
            mine = "" if number == build else f"{number}:"
            known = places[number] if number is not None else {}
            found |= dict.fromkeys(f"{mine}{known[other]}" for other in paths if other in known)
        lines.append(" ".join(found))
    return {"imports": "\n".join(lines)}


def _blocks_of(built: Built, paths: Iterable[str]) -> list[int]:
    """Return the blocks that hold the code (or else the bytes) of files, sorted."""
    files = {file.path: number for number, file in enumerate(built.content.files)}
    found: set[int] = set()
    for path in paths:
        extents: Extents = built.layout.code.get(path, ())
        if not extents and path in files:
            extents = built.layout.files[files[path]]
        found.update(extents[::3])
    return sorted(found)


def _runs(blocks: Iterable[int]) -> list[int]:
    """Return (first, count, ...) of sorted numbers."""
    out: list[int] = []
    for block in blocks:
        if out and out[-2] + out[-1] == block:
            out[-1] += 1
        else:
            out += [block, 1]
    return out


def _roots(owned: Sequence[_Owned]) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Return first path components that are files, and those that are folders, with their builds."""
    files: dict[str, list[int]] = {}
    folders: dict[str, list[int]] = {}
    for build, one in enumerate(owned):
        for number in one.files:
            top, inside, _ = one.built.content.files[number].path.partition("/")
            builds = (folders if inside else files).setdefault(top, [])
            if build not in builds:
                builds.append(build)
    return files, folders


def _names(
    module_rows: Sequence[Sequence[tuple[str, str, int]]], folders: dict[str, list[int]]
) -> dict[str, list[int]]:
    """Return top-level import names: modules, packages, and folders that may be namespace portions."""
    names = {name: list(builds) for name, builds in folders.items() if "." not in name}
    for build, rows in enumerate(module_rows):
        for stem, _, _ in rows:
            if "/" not in stem and build not in names.setdefault(stem, []):
                names[stem].append(build)
    return {name: sorted(builds) for name, builds in names.items()}
