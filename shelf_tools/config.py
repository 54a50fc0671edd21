"""``shelf.toml``: what a curator has decided once, beside the requirements (docs/security.md, "Limits")."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import ConfigurationError
from cloudimport.ids import normalise_name
from shelf_tools.limits import from_table

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: The file that is looked for beside the requirements.
NAME = "shelf.toml"


class Config(NamedTuple):
    """What the file says. ``limits``: values by stage and name; ``allow_sdist``: normalised names."""

    limits: Mapping[str, Mapping[str, int]] = {}
    allow_sdist: frozenset[str] = frozenset()


def read_config(path: Path) -> Config:
    """Return what a configuration file says. Raises ConfigurationError, one line with file and key."""
    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from None
    known = {"limits", "allow-sdist"}
    if not tables.keys() <= known:
        unknown = sorted(tables.keys() - known)[0]
        raise ConfigurationError(f"{path}: {unknown!r} is not known: there are allow-sdist and [limits]")
    names = tables.get("allow-sdist", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(f"{path}: allow-sdist has to be a list of names, such as ['lxml']")
    try:
        allowed = frozenset(map(normalise_name, names))
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: allow-sdist: {error}") from None
    return Config(from_table(f"{path}: limits", tables.get("limits", {})), allowed)


def beside(requirements: Path) -> Config:
    """Return what the file beside the requirements says; of none, nothing. Raises ConfigurationError."""
    path = requirements.parent / NAME
    return read_config(path) if path.is_file() else Config()
