"""Which modules of a build are imported for its trace, by the rules of imports. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from cloudimport.format.content import Content
from cloudimport.format.modules import modules
from cloudimport.ids import Target


def top_level(content: Content, target: Target) -> list[str]:
    """Return the names to import for a trace: top-level modules, or the packages of namespace folders."""
    rows = modules([file.path for file in content.files], target)
    stems = {stem for stem, _, _ in rows}
    packages = {stem for stem, kind, _ in rows if kind in "pfq"}
    names = [stem for stem in stems if "/" not in stem]
    for package in packages:
        above = [package[:at] for at, character in enumerate(package) if character == "/"]
        # Below a namespace folder: a package none of whose parents is a package.
        if above and packages.isdisjoint(above):
            names.append(package)
    dotted = sorted(name.replace("/", ".") for name in names)
    return [name for name in dotted if all(part.isidentifier() for part in name.split("."))]


#: Parts of a module's name below which nothing is that programs import.
_NOT_INNER = frozenset(("tests", "test", "testing", "conftest", "setup", "benchmarks", "examples", "docs"))


def inner_modules(content: Content, target: Target, tops: Sequence[str]) -> list[str]:
    """Return the modules that a program may import below those of ``top_level``, the outer ones first."""
    rows = modules([file.path for file in content.files], target)
    names = [stem.replace("/", ".") for stem, _, _ in rows]
    found = [
        (len(parts), name)
        for name, parts in ((name, name.split(".")) for name in names)
        if all(part.isidentifier() and part[0] != "_" for part in parts)
        and _NOT_INNER.isdisjoint(parts)
        and any(name.startswith(f"{top}.") for top in tops)
    ]
    return [name for _, name in sorted(found)]
