"""``shelf report``."""

from __future__ import annotations

import argparse
from pathlib import Path

from shelf_tools.console import Call, Commands, counted
from shelf_tools.picture import page
from shelf_tools.report import Run
from shelf_tools.swap import write_file


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    report = commands.add_parser(
        "report",
        help="draw what a trace saw: requests, waits and imports on one time axis",
        description="Write a page (HTML, one file) that shows how a start went: what was fetched when, which "
        "import waited for which request, and which bytes nobody needed.",
    )
    report.add_argument(
        "trace", metavar="TRACE", type=Path, help="what 'shelf trace' or CLOUDIMPORT_TRACE wrote"
    )
    report.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("report.html"))
    report.set_defaults(run=run)


def run(call: Call) -> int:
    """Draw what a trace saw."""
    options = call.options
    run = Run.read(options.trace)
    write_file(options.output, page(run))
    call.say(
        f"{options.output}: {counted(len(run.requests), 'request')}, {counted(len(run.waits), 'wait')}, "
        f"{counted(len(run.imports), 'import')}",
    )
    return 0
