"""``shelf publish --add-missing``: what a list of pins lacks is resolved and added to it.

The file is added to at its end, and nothing that stands in it changes: a handler reads the same file
(docs/decisions/0023). Only what wheels say is gone by: to learn what a source distribution needs, uv would
run its code, outside of any sandbox.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.format import requirements as files
from cloudimport.ids import Pin, Target
from shelf_tools.check import Report
from shelf_tools.indexes import uv_settings
from shelf_tools.inputs import is_requirements_file
from shelf_tools.markers import exactly
from shelf_tools.pins import Listed, read_list, wanted
from shelf_tools.resolve import Found, Line, Query, absolute, merge, resolve, resolve_all
from shelf_tools.swap import write_bytes
from shelf_tools.uv_command import UvError
from shelf_tools.workfolder import work_folder

_HEADING = "# Added by 'shelf publish --add-missing':"


def complete(
    path: Path,
    listed: Listed,
    targets: Sequence[Target],
    environ: Mapping[str, str],
    note: Callable[[str], None],
    may_build: Collection[str] = (),
) -> Listed:
    """Return a list with all that its pins need on the targets, and add what it lacked to the file.

    Each pin stays as it is. What pins need that are built from source, of those whose names are in
    ``may_build``, is not known and not added. ``note`` is told what was added, and what was not.
    Raises ConfigurationError, one line for each thing that cannot be met, and OSError; the file is
    unchanged then.
    """
    if not is_requirements_file(path):
        raise ConfigurationError(
            f"{path}: --add-missing adds to requirements files; complete this one by the tool that made it"
        )
    lacking: dict[Target, list[Found]] = {}
    noted: set[Pin] = set()
    with work_folder("complete") as work:
        for target in targets:
            there = {one.pin.name for one in wanted(listed, target)}
            built = _built(listed, target, environ, may_build, work)
            for pin in sorted(built - noted):
                note(f"{pin}: it is built from source: --add-missing cannot know what it needs")
            noted |= built
            query = _query(listed, target, environ, built, work)
            try:
                found, _ = resolve_all(query, [target], {}, work)
            except ConfigurationError as error:
                raise ConfigurationError(_with_advice(str(error), set(may_build) - there)) from None
            lacking[target] = [pin for pin in found[target] if pin.name not in there]
    lines = _lines(listed, lacking)
    if not lines:
        return listed
    whole = added(path.read_bytes(), [_HEADING, *("".join(map(str, lines)).splitlines())])
    write_bytes(path.resolve(), whole, stat.S_IMODE(path.stat().st_mode))
    for line in lines:
        marker = f" ; {line.marker}" if line.marker else ""
        note(f"{path}: added {line.text}{marker}, needed by {', '.join(line.via)}")
    return read_list(path)


def advice(found: Report, path: Path, completed: bool) -> list[str]:
    """Return a note for a list that lacks something that can be added to it; ``completed``: it was tried."""
    if not is_requirements_file(path) or all(one.installed is not None for one in found.missing):
        return []
    if completed:
        return [
            f"what packages need that are built from source has to be added to {path} by hand: name==version"
        ]
    return [f"--add-missing resolves what is missing and adds it to {path}"]


def _built(
    listed: Listed, target: Target, environ: Mapping[str, str], may_build: Collection[str], work: Path
) -> set[Pin]:
    """Return the pins, of those that may be built, that have no wheel for the target."""
    found = set()
    for one in wanted(listed, target):
        if one.pin.name in may_build:
            source = _write(listed, [str(one.pin)], work)
            try:
                resolve(Query((source,), ("--no-deps",), uv_settings(environ)), target, (), work)
            except UvError:
                found.add(one.pin)
    return found


def _with_advice(text: str, names: Collection[str]) -> str:
    """Return uv's errors, and what to do about packages that may be built and are not in the list."""
    blamed = [name for name in sorted(names) if f"`{name}`" in text]
    advised = (
        f"--add-missing chooses among wheels only: pin {name}==VERSION in the list, "
        "for --allow-sdist to build"
        for name in blamed
    )
    return "\n".join([text, *advised])


def _write(listed: Listed, pins: Sequence[str], work: Path) -> str:
    """Write a file of requirements for uv, with the list's own indexes; return its name."""
    source = work / "listed.in"
    source.write_text("\n".join([*map(absolute, listed.options), *pins]) + "\n", encoding="utf-8")
    return str(source)


def _query(
    listed: Listed, target: Target, environ: Mapping[str, str], built: Collection[Pin], work: Path
) -> Query:
    """Return a query for the list's own pins, which leaves uv no choice but in what they lack.

    ``built`` are left out, also where others need them: their versions are checked when all is installed.
    """
    kept = [one for one in wanted(listed, target) if one.pin not in built]
    source = _write(listed, [one._replace(marker="").line for one in kept], work)
    arguments = [f"--constraints={name}" for name in listed.constraint_files]
    if built:
        # An override takes the place of all that is asked of a package (uv, "Dependency overrides").
        nowhere = work / "overrides.txt"
        nowhere.write_text("".join(f"{pin.name} ; python_version < '0'\n" for pin in sorted(built)))
        arguments.append(f"--override={nowhere}")
    arguments += ["--generate-hashes"] if all(one.hashes for one in listed.requirements) else []
    return Query((source,), tuple(arguments), uv_settings(environ))


def _lines(listed: Listed, lacking: Mapping[Target, Sequence[Found]]) -> list[Line]:
    """Return what to add. A name that the list has for other targets is added for just the new ones."""
    names = {one.pin.name for one in listed.requirements}
    found = []
    for line in merge(lacking):
        whose = [target for target, pins in lacking.items() if any(pin.text == line.text for pin in pins)]
        via = tuple(name for name in line.via if not name.startswith("-"))
        marker = exactly(whose) if line.name in names else line.marker
        found.append(line._replace(marker=marker, via=via))
    return found


def added(data: bytes, lines: Sequence[str]) -> bytes:
    """Return a requirements file's bytes with lines at its end, in its encoding and with its line ends."""
    text = files.decode(data)
    end = "\r\n" if "\r\n" in text else "\n"
    before = end if text and not text.endswith("\n") else ""
    before += end if text.strip() else ""  # an empty line also ends one that would go on
    more = before + "".join(f"{line}{end}" for line in lines)
    return data + more.encode(files.encoding_of(data))
