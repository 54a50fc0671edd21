"""``shelf promote``."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.settings import LOCK_NAME
from shelf_tools.console import Call, Commands, counted
from shelf_tools.environments import move_lock, replace_lock
from shelf_tools.promote import Promotion
from shelf_tools.signing import open_key


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    promote = commands.add_parser(
        "promote",
        help="copy environments from one shelf to another, as they are",
        description="Copy environments from one shelf to another, each object checked by its digest on the "
        "way. What is there is not copied again: a run that was interrupted goes on. Versions that either "
        "shelf says are yanked are refused, before anything is written.",
    )
    promote.add_argument("source", metavar="SRC", help="the shelf that has them")
    promote.add_argument("destination", metavar="DST", help="the shelf that gets them; made if need be")
    promote.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help=f"what this lockfile pins, boot images included; repeatable; default: {LOCK_NAME}",
    )
    promote.add_argument("--all", action="store_true", help="every environment, as it is now")
    promote.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="write the lockfile anew, with DST as its shelf"
    )
    promote.add_argument(
        "--allow-yanked",
        action="store_true",
        help="yanked versions as well, with their marks and reasons, which DST then has",
    )
    promote.add_argument(
        "--sign",
        metavar="KEYFILE",
        type=Path,
        action="append",
        default=[],
        help="sign the environments on DST and the lockfile of -o anew, if this key has signed the lockfile "
        "(--all: the environments) as it is; repeatable",
    )
    promote.set_defaults(run=run)


def run(call: Call) -> int:
    """Copy environments from one shelf to another."""
    options = call.options
    locks = options.lock or ([] if options.all else [Path(LOCK_NAME)])
    if options.all and options.lock:
        raise ConfigurationError("--all is more than --lock: give one of them")
    if options.output and len(locks) != 1:
        raise ConfigurationError("-o is for one lockfile")
    signers = [open_key(path) for path in options.sign]
    moved = move_lock(locks[0], options.output, options.destination, signers) if options.output else None
    bars = call.bars()
    call.end_on_sigterm()
    source, destination = options.source, options.destination
    with closing(Promotion(source, destination, call.environ, signers)) as promotion, bars.progress:
        wanted = promotion.of_all() if options.all else promotion.of_locks(locks)
        done = promotion.run(
            wanted,
            lambda total: bars.stage("promote", total, "build"),
            bars.step,
            bars.note,
            options.allow_yanked,
        )
    for note in done.notes:
        call.complain(f"note: {note}")
    call.say(
        f"{counted(done.indexes, 'index', 'indexes')} and {counted(done.builds, 'build')} on "
        f"{options.destination}; {counted(done.objects, 'object')} copied ({counted(done.size, 'byte')})"
    )
    if moved:
        replace_lock(options.output, moved)
    return 0
