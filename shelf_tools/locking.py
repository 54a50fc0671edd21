"""``shelf lock``: requirements with ranges, extras and markers to a list of pins with hashes, for targets."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from shelf_tools.indexes import AS_CONFIGURED, Asked, uv_settings
from shelf_tools.pins import for_target, read_list, read_options
from shelf_tools.resolve import Line, Query, merge, resolve_all
from shelf_tools.swap import write_file
from shelf_tools.workfolder import work_folder

_USER = re.compile(r"(?<=://)([^/\s@]+)@")


class Notes(Protocol):
    """Who hears what a person should know."""

    def note(self, text: str) -> None:
        """One line for a person."""


@dataclass(frozen=True)
class Job:
    """What to lock, and how. ``inputs`` and ``constraints`` are as the user names them.

    ``extras`` are of a ``pyproject.toml``. ``upgrade`` forgets the versions of an ``output`` that is
    there, ``upgraded`` those of some packages. ``exclude_newer`` is a date or a moment (RFC 3339).
    """

    inputs: tuple[str, ...]
    output: Path
    targets: tuple[Target, ...]
    environ: Mapping[str, str]
    constraints: tuple[str, ...] = ()
    indexes: Asked = AS_CONFIGURED
    exclude_newer: str = ""
    extras: tuple[str, ...] = ()
    upgrade: bool = False
    upgraded: tuple[str, ...] = ()


def lock(job: Job, notes: Notes) -> list[Line]:
    """Resolve and write the list, whole or not at all; return its lines.

    Versions that the output has already are kept where they fit. Raises ConfigurationError, one line each,
    and OSError.
    """
    _check(job)
    options = _options(job)
    query = Query(job.inputs, _arguments(job), uv_settings(job.environ, job.indexes))
    with work_folder("lock") as work:
        found, warnings = resolve_all(query, job.targets, _preferred(job, notes), work)
    for warning in warnings:
        notes.note(warning)
    lines = merge(found)
    write_file(job.output, _text(job, options, lines, notes))
    return lines


def _check(job: Job) -> None:
    absent = [name for name in (*job.inputs, *job.constraints) if not os.path.isfile(name)]
    if absent:
        raise ConfigurationError(
            "\n".join(f"{name}: cannot be read: there is no such file" for name in absent)
        )
    if any(
        os.path.realpath(name) == os.path.realpath(job.output) for name in (*job.inputs, *job.constraints)
    ):
        raise ConfigurationError(f"{job.output} is what is to be locked: write to another file with -o")
    if not job.output.absolute().parent.is_dir() or job.output.is_dir():
        raise ConfigurationError(
            f"{job.output} cannot be written: it is a folder, or its folder is not there"
        )


def _arguments(job: Job) -> tuple[str, ...]:
    found = ["--generate-hashes", *(f"--constraints={name}" for name in job.constraints)]
    found += [f"--extra={name}" for name in job.extras]
    found += [f"--exclude-newer={job.exclude_newer}"] if job.exclude_newer else []
    found += ["--upgrade"] if job.upgrade else []
    return (*found, *(f"--upgrade-package={name}" for name in job.upgraded))


def _preferred(job: Job, notes: Notes) -> dict[Target, list[str]]:
    """Return by target the pins of the output as it is, if it is there."""
    if job.upgrade or not job.output.exists():
        return {}
    try:
        listed = read_list(job.output).requirements
        return {target: [str(one.pin) for one in for_target(listed, target)] for target in job.targets}
    except ConfigurationError as error:
        notes.note(f"its versions are not kept: {str(error).splitlines()[0]}")
        return {}


def _options(job: Job) -> list[str]:
    """Return which indexes the inputs and arguments name, as lines of pip's requirements file format."""
    named = [line for name in job.inputs if not name.endswith(".toml") for line in read_options(name)]
    asked = job.indexes
    index = ("-i ", "--index-url ")
    lines = [line for line in named if not line.startswith("-c ")]
    if asked.index_url:
        lines = [f"--index-url {asked.index_url}", *(line for line in lines if not line.startswith(index))]
    lines += [f"--extra-index-url {url}" for url in asked.extra_index_urls]
    lines += [f"--find-links {place}" for place in asked.find_links]
    lines += ["--no-index"] if asked.no_index else []
    return list(dict.fromkeys(lines))


def _text(job: Job, options: Sequence[str], lines: Sequence[Line], notes: Notes) -> str:
    command = ["shelf", "lock", *job.inputs, "-o", os.fspath(job.output)]
    command += [word for target in job.targets for word in ("--target", str(target))]
    command += [word for name in job.constraints for word in ("-c", name)]
    command += [word for name in job.extras for word in ("--extra", name)]
    command += ["--exclude-newer", job.exclude_newer] if job.exclude_newer else []
    head = [
        f"# Locked for {', '.join(map(str, job.targets))}.",
        f"# To change it, change {', '.join(job.inputs)}, and run:",
        f"#     {shlex.join(command)}",
        *(_written(line, job.output, notes) for line in options),
    ]
    return "\n".join(head) + "\n\n" + "".join(map(str, lines))


def _written(option: str, output: Path, notes: Notes) -> str:
    """Return an option as it stands in the output: paths relative to it, and no passwords."""
    name, _, value = option.partition(" ")
    if name in ("-f", "--find-links") and "://" not in value and "${" not in value:
        value = os.path.relpath(value, output.absolute().parent)
    user = _USER.search(value)
    if user and "${" not in user[1]:
        value = _USER.sub("", value)
        notes.note(
            f"user and password of {value} are not written to {output}: have them in netrc or a keyring"
        )
    return f"{name} {value}".strip()
