"""``shelf verify``."""

from __future__ import annotations

import argparse

from cloudimport.ids import Pin
from shelf_tools.console import Call, Commands, counted
from shelf_tools.inspect import Shelf


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    verify = commands.add_parser("verify", parents=[shelf], help="read everything back and check it")
    verify.add_argument("pins", metavar="NAME==VERSION", nargs="*")
    verify.set_defaults(run=run)


def run(call: Call) -> int:
    """Read everything back and check it; 1 if there are problems."""
    checked, problems = 0, 0

    def count(name: str) -> None:
        nonlocal checked
        checked += 1

    for problem in Shelf(call.url, call.environ).verify(
        [Pin.parse(text) for text in call.options.pins], count
    ):
        problems += 1
        call.complain(f"shelf: {problem}")
    call.say(f"{counted(checked, 'build')} checked, {counted(problems, 'problem')}")
    return 1 if problems else 0
