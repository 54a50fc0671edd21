"""Recipes: what a curator knows about packages and the trace does not see (docs/index.md, "Recipes")."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.ids import normalise_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The file that is looked for beside the requirements.
NAME = "shelf-recipes.toml"

#: Of each package (normalised name), patterns of files that are put in place when it is first imported.
Recipes = Mapping[str, tuple[str, ...]]


def read_recipes(path: Path) -> Recipes:
    """Return the recipes in a TOML file. Raises ConfigurationError that says what is wrong with it."""
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    return {normalise_name(name): _patterns(f"{path}: [{name}]", table) for name, table in tables.items()}


def _patterns(where: str, table: object) -> tuple[str, ...]:
    if not isinstance(table, dict) or table.keys() != {"eager"}:
        raise ConfigurationError(f"{where} has to have one key, eager, and no other")
    patterns = table["eager"]
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ConfigurationError(f"{where}: eager has to be a list of patterns, such as 'pyproj/**/proj.db'")
    return tuple(patterns)


def chosen(paths: Iterable[str], patterns: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (paths that one of the patterns is for, patterns that are for none); ``*`` matches ``/`` too."""
    rest, found = set(patterns), []
    for path in paths:
        matching = [pattern for pattern in patterns if fnmatchcase(path, pattern)]
        rest.difference_update(matching)
        if matching:
            found.append(path)
    return found, sorted(rest)
