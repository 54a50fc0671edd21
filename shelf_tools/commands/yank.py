"""``shelf yank``."""

from __future__ import annotations

import argparse

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin
from shelf_tools.console import Call, Commands
from shelf_tools.status import read_status, yank
from shelf_tools.store import open_store


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "yank",
        parents=[shelf],
        help="say of a version that it should no longer be used, and why",
        description="Mark a version as yanked. Nothing is removed: environments that have it go on, and "
        "their next install() warns, or refuses, as CLOUDIMPORT_YANKED says (warn, refuse, ignore); "
        "publishing it is an error. Without NAME==VERSION: list what is yanked.",
    )
    make.add_argument("pin", metavar="NAME==VERSION", nargs="?")
    make.add_argument("--reason", metavar="TEXT", default="", help="one line, for everybody who uses it")
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Mark a version as yanked, or list those that are."""
    options = call.options
    store = open_store(call.url, call.environ)
    if not options.pin:
        if options.reason:
            raise ConfigurationError("--reason is of which version? Write 'shelf yank NAME==VERSION'")
        for pin, reason in sorted(read_status(store).yanked.items()):
            call.say(f"{pin}: {reason}")
        return 0
    if not options.reason:
        raise ConfigurationError("a version is yanked for a reason: say it with --reason")
    pin = Pin.parse(options.pin)
    before = yank(store, pin, options.reason)
    call.say(f"{pin} is yanked" + (f"; its reason was: {before}" if before else ""))
    return 0
