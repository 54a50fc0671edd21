"""The functions of a folder: ``NAME/f.py`` with ``f(event)``, as in OpenLambda's registry, or
``NAME/lambda_function.py`` with ``lambda_handler(event, context)`` or ``handler(event, context)``.

Beside the code there may be ``cloudimport.lock`` or ``requirements.txt``; ``NAME.env``, beside the folder,
has variables of the function, as lines ``KEY=VALUE``. Nothing of a function is run to find that out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.settings import LOCK_NAME, REQUIREMENTS_NAME

#: As AWS names functions: it can be no path.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Files of a function that are looked at with each request: a stat of each, some microseconds.
_STAMPED = 1000
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What defines a handler in a module of AWS' kind.
_DEFINES = re.compile(r"^(?:(?:async[ \t]+)?def[ \t]+|)(lambda_handler|handler)\b[ \t]*[(=:]", re.MULTILINE)


class UnknownFunctionError(CloudImportError):
    """There is no function of that name."""


@dataclass(frozen=True)
class Function:
    """A function as it stands at the moment.

    ``handler`` is ``module.function``, ``module.function(event)`` where that takes no context; ``lock`` and
    ``requirements`` are its files if it has them; ``variables`` its own. ``stamp`` changes with any of its
    files, of which the first 1,000 are looked at.
    """

    name: str
    folder: Path
    handler: str
    lock: Path | None
    requirements: Path | None
    variables: Mapping[str, str]
    stamp: tuple[object, ...]


class Registry:
    """The functions below a folder, read anew whenever they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        if not self.folder.is_dir():
            raise ConfigurationError(f"{folder} is no folder: it is to have one for each function")

    def names(self) -> list[str]:
        """Return the names of all functions, sorted. Raises OSError."""
        found = (entry.name for entry in os.scandir(self.folder) if entry.is_dir())
        return sorted(name for name in found if _NAME.fullmatch(name) and self._module(name))

    def find(self, name: str) -> Function:
        """Return a function. Raises UnknownFunctionError, and ConfigurationError for its variables."""
        module = self._module(name) if _NAME.fullmatch(name) else ""
        if not module:
            raise UnknownFunctionError(f"there is no function {name[:80]!r} in {self.folder}")
        folder = self.folder / name
        files = [folder / part for part in (f"{module}.py", LOCK_NAME, REQUIREMENTS_NAME)]
        env = self.folder / f"{name}.env"
        lock, requirements = (path if path.is_file() else None for path in files[1:])
        stamp = (*map(_stamp, (folder, *files, env)), *islice(_stamps(folder), _STAMPED))
        handler = "f.f(event)" if module == "f" else f"{module}.{_attribute(files[0])}"
        return Function(name, folder, handler, lock, requirements, read_variables(env), stamp)

    def _module(self, name: str) -> str:
        modules = ("f", "lambda_function")
        return next((one for one in modules if (self.folder / name / f"{one}.py").is_file()), "")


def _stamp(path: str | Path) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return (0, -1)
    return (found.st_mtime_ns, found.st_size)


def _stamps(folder: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield the files below a folder, and what changes with each, always in the same order."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        yield from ((path, _stamp(path)) for path in (f"{base}/{name}" for name in sorted(names)))


def _attribute(module: Path) -> str:
    """Return which handler a module defines; AWS' own name where neither is seen."""
    found = set(_DEFINES.findall(module.read_text("utf-8", "replace")))
    return "handler" if found == {"handler"} else "lambda_handler"


def read_variables(path: Path) -> dict[str, str]:
    """Return the variables of a file of lines ``KEY=VALUE``; of none, none. Raises ConfigurationError."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not equals or not _VARIABLE.fullmatch(name) or "\0" in value:
            raise ConfigurationError(f"{path}, line {number}: expected KEY=VALUE")
        found[name] = value
    return found
