"""``shelf boot``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.settings import LOCK_NAME
from shelf_tools.boot import Trace, publish_boot
from shelf_tools.console import Call, Commands, counted
from shelf_tools.signing import open_key


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    boot = commands.add_parser(
        "boot",
        parents=[shelf],
        help="copy together what a trace names, to be read at once at a cold start",
        description="Write a boot image of what a trace names, and say in the lockfile where it is. It costs "
        "space for what it copies; when it no longer fits, a start is slower, and never different.",
    )
    boot.add_argument(
        "trace", metavar="TRACE", type=Path, help="what 'shelf trace' or CLOUDIMPORT_TRACE wrote"
    )
    boot.add_argument(
        "--lock", metavar="FILE", type=Path, default=Path(LOCK_NAME), help=f"default: {LOCK_NAME}"
    )
    boot.add_argument(
        "--sign",
        metavar="KEYFILE",
        type=Path,
        action="append",
        default=[],
        help="sign the lockfile; repeatable",
    )
    boot.set_defaults(run=run)


def run(call: Call) -> int:
    """Write a boot image."""
    options = call.options
    signers = [open_key(path) for path in options.sign]
    made = publish_boot(Trace.read(options.trace), options.lock, call.url, call.environ, signers)
    call.say(
        f"{options.lock}: {counted(made.parts, 'part')}, {counted(made.ranges, 'request')}, "
        f"{counted(made.size, 'byte')}",
    )
    return 0
