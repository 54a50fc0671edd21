"""``shelf mirror``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.settings import LOCK_NAME
from shelf_tools.console import Call, Commands, counted
from shelf_tools.mirror import mirror


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    copy = commands.add_parser(
        "mirror",
        parents=[shelf],
        help="copy what lockfiles need to a folder that sandboxes of this host read",
        description="Copy what lockfiles need to a folder. Sandboxes with CLOUDIMPORT_SHARED set to it take "
        "from there what they would fetch; they check every byte, and need not be able to write there.",
    )
    copy.add_argument("folder", metavar="DIR", type=Path, help="the folder to make or to complete")
    copy.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        action="append",
        help=f"repeatable; default: {LOCK_NAME} in the current folder",
    )
    copy.set_defaults(run=run)


def run(call: Call) -> int:
    """Copy what lockfiles need to a folder."""
    options = call.options
    bars = call.bars()
    call.end_on_sigterm()
    with bars.progress:
        done = mirror(
            options.lock or [Path(LOCK_NAME)],
            options.folder,
            call.url,
            call.environ,
            lambda total: bars.stage("mirror", total, "object"),
            bars.step,
        )
    call.say(
        f"{options.folder}: {counted(done.objects, 'object')}, {done.copied} of them copied "
        f"({counted(done.size, 'byte')})",
    )
    return 0
