"""``shelf ls``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from contextlib import closing

from cloudimport.format.requirements import parse_lines
from cloudimport.ids import Pin, Target
from shelf_tools.console import Call, Commands, counted, date
from shelf_tools.inspect import Chosen, Listed, Shelf
from shelf_tools.reach import Environment
from shelf_tools.status import Mark

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
            _environments(call, shelf.environments(chosen), shelf.marks())
        else:
            _builds(call, shelf.listing(chosen))
        for problem in shelf.problems:
            call.complain(f"shelf: {problem}")
    return 0


def _builds(call: Call, found: list[Listed]) -> None:
    if call.options.json:
        call.print_json([one.record() for one in found])
        return
    for one in found:
        line = f"{one.pin} {one.target}"
        if call.options.long:
            line += f" {counted(one.stored, 'byte')} {date(one.published)}"
        if one.yanked:
            line += f" yanked: {one.yanked.reason}"
        call.say(line)


def _environments(call: Call, found: list[Environment], yanked: Mapping[Pin, Mark]) -> None:
    if call.options.json:
        call.print_json([_record(one, yanked) for one in found])
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
        for pin, mark in _yanked(one, yanked).items():
            call.say(f"  {pin} is yanked: {mark.reason}")


def _yanked(one: Environment, yanked: Mapping[Pin, Mark]) -> dict[Pin, Mark]:
    """Return the yanked pins of an environment."""
    listed = sorted({requirement.pin for requirement in parse_lines(one.pointer.requirements)})
    return {pin: yanked[pin] for pin in listed if pin in yanked}


def _record(one: Environment, yanked: Mapping[Pin, Mark]) -> dict[str, object]:
    pointer = one.pointer
    return {
        "digest": one.digest,
        "requirements": list(pointer.requirements),
        "yanked": {str(pin): mark.record() for pin, mark in _yanked(one, yanked).items()},
        "targets": {
            target: {
                "index": pointer.targets[target].digest if target in pointer.targets else None,
                "replaced": [ref.digest for ref in pointer.history.get(target, ())],
            }
            for target in sorted({*pointer.targets, *pointer.history})
        },
    }
