"""``shelf unyank``."""

from __future__ import annotations

import argparse

from cloudimport.ids import Pin
from shelf_tools.console import Call, Commands
from shelf_tools.status import unyank
from shelf_tools.store import open_store


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser("unyank", parents=[shelf], help="take 'shelf yank' back")
    make.add_argument("pin", metavar="NAME==VERSION")
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Take the mark off a version."""
    pin = Pin.parse(call.options.pin)
    reason = unyank(open_store(call.url, call.environ), pin)
    call.say(f"{pin} is no longer yanked; its reason was: {reason}")
    return 0
