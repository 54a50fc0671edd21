"""Resolving requirements to pins for targets, by uv, and merging what differs by target.

uv is told the target: its Python, platform and C library, whatever the curator's machine is. It takes
wheels only, so that nothing is built and no package code runs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Dependency
from packaging.utils import canonicalize_name

from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import without_hashes
from cloudimport.ids import Target
from shelf_tools.indexes import Settings
from shelf_tools.markers import AlikeError, telling
from shelf_tools.pins import python_full_version
from shelf_tools.uv_command import UvError, run_uv

#: The C library that uv is told, by the target's. It knows no 2.26: wheels for 2.18 to 2.26 are not seen
#: then, which are few (a glibc serves wheels for all that are older).
_UV_GLIBC = {(2, 26): (2, 17)}
_HASH = re.compile(r"--hash=(\S+)")


class Query(NamedTuple):
    """What is resolved: files, as the user names them, and arguments of ``uv pip compile``."""

    sources: tuple[str, ...]
    arguments: tuple[str, ...]
    settings: Settings


class Found(NamedTuple):
    """One pin for one target: ``text`` is ``name[extras]==version``, ``via`` who needs it, as uv says it."""

    name: str
    text: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]


class Line(NamedTuple):
    """One line of a list: a pin that holds where ``marker`` does; "" is everywhere."""

    name: str
    text: str
    marker: str
    hashes: tuple[str, ...]
    via: tuple[str, ...]

    def __str__(self) -> str:
        marker = f" ; {self.marker}" if self.marker else ""
        hashes = "".join(f" \\\n    --hash={value}" for value in self.hashes)
        via = f"\n    # via {', '.join(self.via)}" if self.via else ""
        return f"{self.text}{marker}{hashes}{via}\n"


def resolve(
    query: Query, target: Target, preferred: Sequence[str], work: Path
) -> tuple[list[Found], list[str]]:
    """Return the pins that meet a query on ``target``, and uv's warnings.

    Of versions that do, those of ``preferred`` (``name==version``) are taken, else the newest. ``work``
    is a folder for files. Raises UvError, one line each, and ConfigurationError.
    """
    out = work / f"{target}.txt"
    out.write_text("".join(f"{line}\n" for line in preferred), encoding="utf-8")
    glibc = _UV_GLIBC.get(target.glibc, target.glibc)
    arguments = ["pip", "compile", *query.sources, *query.arguments, *query.settings.arguments]
    arguments += [f"--output-file={out}", f"--python={sys.executable}", "--only-binary=:all:", "--no-header"]
    arguments += ["--no-strip-extras", f"--python-version={python_full_version(target)}"]
    arguments += [f"--python-platform={target.machine}-manylinux_{glibc[0]}_{glibc[1]}"]
    _, warnings = run_uv(arguments, query.settings.environ)
    return read_found(out.read_text(encoding="utf-8")), warnings


def absolute(option: str) -> str:
    """Return a line that names an index, a folder by its absolute path."""
    name, _, value = option.partition(" ")
    if name in ("-f", "--find-links") and "://" not in value and "${" not in value:
        return f"{name} {os.path.abspath(value)}"
    return option


def read_found(text: str) -> list[Found]:
    """Return the pins of a file that uv wrote. Raises ConfigurationError for what is no pin."""
    found: list[Found] = []
    errors: list[str] = []
    for line in text.splitlines():
        words = line.strip()
        if not line.startswith((" ", "#")) and words:
            try:
                found.append(_pin(words.rstrip("\\").strip()))
            except ConfigurationError as error:
                errors.append(str(error))
        elif words.startswith("--hash=") and found:
            found[-1] = found[-1]._replace(hashes=(*found[-1].hashes, *_HASH.findall(words)))
        elif line.startswith(" ") and words.startswith("#") and found:
            via = words.lstrip("#").strip().removeprefix("via").strip()
            found[-1] = found[-1]._replace(via=(*found[-1].via, *([via] if via else [])))
    if errors:
        raise ConfigurationError("\n".join(errors))
    return found


def _pin(text: str) -> Found:
    try:
        read = Dependency(without_hashes(text))
    except InvalidRequirement:
        read = None
    if read is None or read.url or not str(read.specifier).startswith("=="):
        raise ConfigurationError(f"{text!r} is no released version of an index: only those can be published")
    return Found(canonicalize_name(read.name), text.partition(";")[0].strip(), (), ())


def resolve_all(
    query: Query, targets: Sequence[Target], preferred: Mapping[Target, Sequence[str]], work: Path
) -> tuple[dict[Target, list[Found]], list[str]]:
    """Resolve for each target; return the pins by target, and uv's warnings, each once.

    Raises ConfigurationError with what went wrong, one line each, with the targets that it is for.
    """
    found: dict[Target, list[Found]] = {}
    errors: dict[str, list[Target]] = {}
    warnings: dict[str, None] = {}
    for target in targets:
        try:
            found[target], said = resolve(query, target, preferred.get(target, ()), work)
            warnings.update(dict.fromkeys(said))
        except (UvError, ConfigurationError) as error:
            for line in str(error).splitlines():
                errors.setdefault(line, []).append(target)
    if errors:
        raise ConfigurationError(
            "\n".join(f"{', '.join(map(str, whom))}: {line}" for line, whom in errors.items())
        )
    return found, list(warnings)


def merge(found: Mapping[Target, Sequence[Found]]) -> list[Line]:
    """Return one list for all targets: lines that not all of them have carry a marker that tells them apart.

    Raises ConfigurationError with a line for each pin that differs where no marker can tell.
    """
    variants: dict[str, dict[str, dict[Target, Found]]] = {}
    for target in sorted(found):
        for pin in found[target]:
            variants.setdefault(pin.name, {}).setdefault(pin.text, {})[target] = pin
    lines: list[Line] = []
    errors: list[str] = []
    for name, texts in sorted(variants.items()):
        for text, whose in texts.items():
            try:
                marker = telling(whose.keys(), found)
            except AlikeError as error:
                other = next((t for t, there in texts.items() if error.other in there), "nothing of it")
                errors.append(_alike(text, other, error))
                break
            lines.append(Line(name, text, marker, _joined(whose, "hashes"), _joined(whose, "via")))
    if errors:
        raise ConfigurationError("\n".join(errors))
    return sorted(lines, key=lambda line: (line.name, line.marker))


def _joined(whose: Mapping[Target, Found], field: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for pin in whose.values() for value in getattr(pin, field)))


def _alike(text: str, other: str, error: AlikeError) -> str:
    older = min(error.one, error.other)
    return (
        f"{text} for {error.one}, {other} for {error.other}: they differ by their C library only, which no "
        f"marker tells: lock and publish for {older} alone, which serves both, or make two lists"
    )
