"""``shelf publish --add-missing``: what a list of pins lacks is resolved and added to it.

The file is added to at its end, and nothing that stands in it changes: a handler reads the same file
(docs/decisions/0023).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.format import requirements as files
from cloudimport.ids import Target
from shelf_tools.check import Report
from shelf_tools.indexes import uv_settings
from shelf_tools.inputs import is_requirements_file
from shelf_tools.markers import exactly
from shelf_tools.pins import Listed, read_list, wanted
from shelf_tools.resolve import Found, Line, Query, absolute, merge, resolve_all
from shelf_tools.swap import write_bytes
from shelf_tools.workfolder import work_folder

_HEADING = "# Added by 'shelf publish --add-missing':"


def complete(
    path: Path,
    listed: Listed,
    targets: Sequence[Target],
    environ: Mapping[str, str],
    note: Callable[[str], None],
) -> Listed:
    """Return a list with all that its pins need on the targets, and add what it lacked to the file.

    Each pin stays as it is. ``note`` is told what was added. Raises ConfigurationError, one line for each
    thing that cannot be met, and OSError; the file is unchanged then.
    """
    if not is_requirements_file(path):
        raise ConfigurationError(
            f"{path}: --add-missing adds to requirements files; complete this one by the tool that made it"
        )
    lacking: dict[Target, list[Found]] = {}
    with work_folder("complete") as work:
        for target in targets:
            there = {one.pin.name for one in wanted(listed, target)}
            query = _query(listed, target, environ, work)
            found, _ = resolve_all(query, [target], {}, work)
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


def advice(found: Report, path: Path) -> list[str]:
    """Return a note for a list that lacks something that can be added to it."""
    if is_requirements_file(path) and any(one.installed is None for one in found.missing):
        return [f"--add-missing resolves what is missing and adds it to {path}"]
    return []


def _query(listed: Listed, target: Target, environ: Mapping[str, str], work: Path) -> Query:
    """Return a query for the list's own pins, which leaves uv no choice but in what they lack."""
    source = work / "listed.in"
    pins = (one._replace(marker="").line for one in wanted(listed, target))
    source.write_text("\n".join([*map(absolute, listed.options), *pins]) + "\n", encoding="utf-8")
    arguments = [f"--constraints={name}" for name in listed.constraint_files]
    arguments += ["--generate-hashes"] if all(one.hashes for one in listed.requirements) else []
    return Query((str(source),), tuple(arguments), uv_settings(environ))


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
