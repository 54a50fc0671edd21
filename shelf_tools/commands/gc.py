"""``shelf gc``."""

from __future__ import annotations

import argparse
import time
from contextlib import closing

from shelf_tools import garbage
from shelf_tools.console import Call, Commands, counted
from shelf_tools.inspect import Shelf

#: Seconds of a day.
_DAY = 86400.0


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    gc = commands.add_parser(
        "gc",
        parents=[shelf],
        help="show, or delete, what no environment needs",
        description="Show what no environment needs, and what would be gained; with --delete, delete it. "
        "Publishes may run meanwhile: what they are at stays.",
    )
    gc.add_argument("--delete", action="store_true", help="delete it; without this nothing is changed")
    gc.add_argument(
        "--older-than",
        metavar="DAYS",
        type=_days,
        default=7.0,
        help="leave what was written later, such as the part of a publish that failed (default: 7)",
    )
    gc.set_defaults(run=run)


def _days(text: str) -> float:
    number = float(text)
    if not 0 <= number < 1e6:
        raise argparse.ArgumentTypeError("days, 0 or more")
    return number


def run(call: Call) -> int:
    """Show or delete what no environment needs."""
    options = call.options
    seconds = options.older_than * _DAY
    call.end_on_sigterm()
    with closing(Shelf(call.url, call.environ)) as shelf:
        if options.delete and not shelf.store.atomic:
            url = shelf.store.url
            call.complain(f"shelf: {url} has no conditional writes: let no two collections run at once")
        if options.delete:
            bars = call.bars()
            with bars.progress:
                plan = garbage.collect(
                    shelf.store,
                    shelf.source,
                    seconds,
                    time.time(),
                    bars.note,
                    lambda total: bars.stage("delete", total, "object"),
                    bars.step,
                )
        else:
            plan = garbage.look(shelf.store, shelf.source, seconds, time.time())
    for name, (objects, size) in garbage.grouped(plan).items():
        call.say(f"{name}: {counted(objects, 'object')}, {counted(size, 'byte')}")
    _explain(call, plan)
    went = "deleted" if options.delete else "would go; 'shelf gc --delete' deletes it"
    call.say(f"{counted(plan.objects, 'object')}, {counted(plan.size, 'byte')} {went}")
    return 0


def _explain(call: Call, plan: garbage.Plan) -> None:
    """Say what is not needed and stays nevertheless."""
    for note in plan.notes:
        call.complain(f"shelf: {note}")
    for entries, why in (
        (plan.young, "not needed, but written within --older-than"),
        (plan.held, "held by a publish that runs, or was killed less than a day ago"),
        (plan.ageless, "not needed; this store does not say since when: --older-than 0 takes it"),
        (plan.strange, "of no shelf, left alone"),
    ):
        if entries:
            size = sum(entry.size for entry in entries)
            call.say(f"{counted(len(entries), 'object')}, {counted(size, 'byte')}: {why}")
