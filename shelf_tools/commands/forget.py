"""``shelf forget``."""

from __future__ import annotations

import argparse

from cloudimport.ids import Target
from shelf_tools.console import Call, Commands, counted
from shelf_tools.forget import forget, read_wanted
from shelf_tools.store import open_store


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    drop = commands.add_parser(
        "forget",
        parents=[shelf],
        help="take an environment off the shelf, so that 'shelf gc' can delete what only it needs",
        description="Take an environment off the shelf. Nothing is deleted until 'shelf gc --delete'; then "
        "whoever has a lockfile of it cannot start with an empty cache. Indexes that were replaced stay for "
        "those whose lockfiles pin them, unless --history is given.",
    )
    drop.add_argument(
        "environment",
        metavar="ENV",
        help="a requirements file; a lockfile (then just what it pins); or the first digits of a "
        "requirements digest or an index digest, as 'shelf ls --envs' shows them",
    )
    drop.add_argument("--target", metavar="T", action="append", default=[], help="only of these; repeatable")
    drop.add_argument("--history", action="store_true", help="the replaced indexes too")
    drop.set_defaults(run=run)


def run(call: Call) -> int:
    """Take an environment off the shelf."""
    options = call.options
    targets = [str(Target.parse(text)) for text in options.target]
    wanted, locked = read_wanted(options.environment, targets, options.history)
    url = options.shelf or (locked.shelf if locked else "") or call.url
    store = open_store(url, call.environ)
    gone = forget(store, wanted)
    call.say(
        f"{store.url}: environment {gone.digest[:12]} ({counted(len(gone.requirements), 'pin')}): "
        f"{counted(gone.indexes, 'index', 'indexes')} forgotten, {gone.current} left"
    )
    if gone.replaced:
        call.say(
            f"{counted(gone.replaced, 'index was', 'indexes were')} replaced before and may be pinned by "
            "lockfiles: kept; --history forgets them too"
        )
    call.say("'shelf gc' shows what nothing needs any more")
    return 0
