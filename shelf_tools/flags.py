"""Flags that several commands have, and how their values are read."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from cloudimport.errors import ConfigurationError
from shelf_tools import limits

#: Seconds that nobody waits: eleven days.
_LONGEST = 1e6


def add_python(command: argparse.ArgumentParser) -> None:
    """Add the flag for interpreters that targets are made with."""
    command.add_argument(
        "--python",
        metavar="FILE",
        action="append",
        default=[],
        type=Path,
        help="an interpreter that compiles and traces for the targets of its version; repeatable; default: "
        "what uv and pyenv have",
    )


def add_limits(command: argparse.ArgumentParser) -> None:
    """Add a flag for each limit of each stage."""
    for stage in limits.STAGES:
        group = command.add_argument_group(f"limits while a package is {stage.doing}")
        for limit in stage.table:
            default = limits.show(limit, getattr(stage.limits, limit.field))
            group.add_argument(
                limits.flag(stage, limit),
                metavar={"bytes": "SIZE", "seconds": "TIME", "number": "N"}[limit.unit],
                type=partial(_amount, limit.unit),
                help=f"{limit.help}; default: {default}",
            )


def size(text: str) -> int:
    """Return the bytes of such as ``512M``, for argparse."""
    return _amount("bytes", text)


def count(text: str) -> int:
    """Return a number above 0, for argparse."""
    return _amount("number", text)


def _amount(unit: str, text: str) -> int:
    try:
        return limits.amount(unit, text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Return a number of seconds, such as ``0.5``, for argparse."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < _LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def given_limits(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """Return the limits that were given as flags, by stage and name."""
    found: dict[str, dict[str, int]] = {}
    for stage in limits.STAGES:
        for limit in stage.table:
            value = getattr(options, limits.flag(stage, limit).removeprefix("--").replace("-", "_"))
            if value is not None:
                found.setdefault(stage.name, {})[limit.name] = value
    return found
