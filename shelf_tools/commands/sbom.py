"""``shelf sbom``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.settings import LOCK_NAME
from shelf_tools.console import Call, Commands
from shelf_tools.environments import read_lock
from shelf_tools.swap import write_file


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "sbom",
        parents=[shelf],
        help="write what an environment is made of, as CycloneDX JSON",
        description="Write the bill of materials of a lockfile's environment (CycloneDX 1.6, JSON): packages "
        "with package URLs, hashes of their wheels, declared licences, and who needs whom. The same lockfile "
        "gives the same bytes.",
    )
    make.add_argument(
        "--lock", metavar="FILE", type=Path, default=Path(LOCK_NAME), help=f"default: {LOCK_NAME}"
    )
    make.add_argument(
        "--target", metavar="T", default="", help="default: the lock's only one, or the running interpreter's"
    )
    make.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Write a bill of materials."""
    from shelf_tools.sbom import pick_target, write_sbom  # 0.3 s, of which no other command has any use

    options = call.options
    lock = read_lock(options.lock)
    url = options.shelf or lock.shelf or call.url
    text = write_sbom(lock, pick_target(lock, options.target), url, call.environ)
    if options.output:
        write_file(options.output, text)
    else:
        call.say(text.rstrip("\n"))
    return 0
