"""``shelf ls``."""

from __future__ import annotations

import argparse

from shelf_tools.console import Call, Commands
from shelf_tools.inspect import Shelf


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    commands.add_parser("ls", parents=[shelf], help="list what is published").set_defaults(run=run)


def run(call: Call) -> int:
    """List what is published."""
    for pin, target in Shelf(call.url, call.environ).builds():
        call.say(f"{pin} {target}")
    return 0
