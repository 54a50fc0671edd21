"""``shelf ls``."""

from __future__ import annotations

import argparse
import re
from contextlib import closing
from datetime import datetime, timezone

from cloudimport.ids import Target
from shelf_tools.console import Call, Commands, counted
from shelf_tools.inspect import Chosen, Listed, Shelf
from shelf_tools.reach import Environment

#: What PEP 503 takes for one and the same.
_SEPARATORS = re.compile("[-_.]+")
#: Seconds of a day.
_DAY = 86400.0
#: Digits of a digest that are shown; as many of an environment's name it (``shelf forget``).
_DIGITS = 12


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    ls = commands.add_parser("ls", parents=[shelf], help="list what is published")
    ls.add_argument("names", metavar="NAME", nargs="*", help="only these; * and ? stand for any letters")
    ls.add_argument("--target", metavar="T", action="append", default=[], help="only these; repeatable")
    ls.add_argument("--older-than", metavar="DAYS", type=float, help="only what was published longer ago")
    ls.add_argument("--newer-than", metavar="DAYS", type=float, help="only what was published within them")
    ls.add_argument("--envs", action="store_true", help="environments instead of packages")
    ls.add_argument("-l", "--long", action="store_true", help="with bytes stored and date of publication")
    ls.add_argument("--json", action="store_true", help="print JSON")
    ls.set_defaults(run=run)


def run(call: Call) -> int:
    """List what is published."""
    options = call.options
    older, newer = (
        None if days is None else days * _DAY for days in (options.older_than, options.newer_than)
    )
    targets = [str(Target.parse(text)) for text in options.target]
    names = [_SEPARATORS.sub("-", name.lower()) for name in options.names]
    chosen = Chosen(names, targets, older, newer)
    with closing(Shelf(call.url, call.environ)) as shelf:
        if options.envs:
            _environments(call, shelf.environments(chosen))
        else:
            _builds(call, shelf.listing(chosen))
    return 0


def _builds(call: Call, found: list[Listed]) -> None:
    if call.options.json:
        call.print_json([one.record() for one in found])
        return
    for one in found:
        line = f"{one.pin} {one.target}"
        if call.options.long:
            line += f" {counted(one.stored, 'byte')} {_date(one.published)}"
        call.say(line)


def _date(seconds: float | None) -> str:
    if seconds is None:
        return "at an unknown time"
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _environments(call: Call, found: list[Environment]) -> None:
    if call.options.json:
        call.print_json([_record(one) for one in found])
        return
    for one in found:
        pointer = one.pointer
        pins = counted(len(pointer.requirements), "pin")
        call.say(f"{one.digest[:_DIGITS]} {pins}: {', '.join(pointer.requirements)}")
        for target in sorted({*pointer.targets, *pointer.history}):
            old = pointer.history.get(target, ())
            current = pointer.targets.get(target)
            index = f"index {current.digest[:_DIGITS]}" if current else "no index: forgotten"
            replaced = ", ".join(ref.digest[:_DIGITS] for ref in old)
            call.say(f"  {target} {index}" + (f"; replaced: {replaced}" if old else ""))


def _record(one: Environment) -> dict[str, object]:
    pointer = one.pointer
    return {
        "digest": one.digest,
        "requirements": list(pointer.requirements),
        "targets": {
            target: {
                "index": pointer.targets[target].digest if target in pointer.targets else None,
                "replaced": [ref.digest for ref in pointer.history.get(target, ())],
            }
            for target in sorted({*pointer.targets, *pointer.history})
        },
    }
