"""``shelf diff``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.format.lock import Lock
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.compare import Difference, Locks, Side, compare, compare_locks
from shelf_tools.console import Call, Commands, counted
from shelf_tools.environments import read_lock
from shelf_tools.inspect import Shelf

#: Files of one kind that are listed for people; JSON has all.
_MOST = 20


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    diff = commands.add_parser(
        "diff",
        parents=[shelf],
        help="compare two versions of a package, or two lockfiles",
        description="Compare two versions of a package, or two lockfiles: packages, dependencies, files, "
        "sizes, and what deserves a second look: new native code, entry points, .pth files that Python would "
        "execute, and signs that code can reach the network.",
        epilog="The sign of a network is that bytecode names, or has as a string, a module for it (socket, "
        "ssl, http.client, urllib.request, requests, …), or that native code names a function for it. It is "
        "a sign and no proof: what is computed at run time is not seen, what is named need not be used.",
    )
    diff.add_argument("before", metavar="A", help="name==version or a lockfile")
    diff.add_argument("after", metavar="B", help="name==version or a lockfile")
    diff.add_argument("--target", metavar="T", action="append", default=[], help="only these; repeatable")
    diff.add_argument("--json", action="store_true", help="print all of it as JSON")
    diff.set_defaults(run=run)


def run(call: Call) -> int:
    """Compare two versions of a package, or two lockfiles."""
    options = call.options
    targets = [str(Target.parse(text)) for text in options.target]
    pins = ["==" in text for text in (options.before, options.after)]
    if pins[0] != pins[1]:
        raise ConfigurationError("a version of a package and a lockfile cannot be compared")
    with ExitStack() as stack:
        if pins[0]:
            found = _pins(stack.enter_context(closing(Shelf(call.url, call.environ))), call, targets)
            if options.json:
                call.print_json([one.record() for one in found])
            for one in found if not options.json else ():
                _print(call, one)
            return 0
        locks = _locks(call, stack, targets)
    if options.json:
        call.print_json([one.record() for one in locks])
    for one_lock in locks if not options.json else ():
        _print_lock(call, one_lock)
    return 0


def _pins(shelf: Shelf, call: Call, targets: list[str]) -> list[Difference]:
    """Compare two pins for the targets that both have. Raises ConfigurationError if there is none."""
    before, after = Pin.parse(call.options.before), Pin.parse(call.options.after)
    there = {pin: [str(target) for target in shelf.targets(pin)] for pin in (before, after)}
    shared = [target for target in there[before] if target in there[after]]
    chosen = [target for target in shared if not targets or target in targets]
    if not chosen:
        said = "; ".join(f"{pin} for {', '.join(of)}" for pin, of in there.items())
        raise ConfigurationError(f"they have no target in common, of those asked for: {said}")
    return [
        compare(
            Side(shelf.source, shelf.read(before, target)),
            Side(shelf.source, shelf.read(after, target)),
            target,
        )
        for target in chosen
    ]


def _locks(call: Call, stack: ExitStack, targets: list[str]) -> list[Locks]:
    sides: list[tuple[Lock, Source]] = []
    for path in (call.options.before, call.options.after):
        locked = read_lock(Path(path))
        url = call.options.shelf or locked.shelf or call.url
        source = open_source(url, SourceConfig(environ=call.environ))
        sides.append((locked, stack.enter_context(closing(source))))
    return list(compare_locks(sides[0], sides[1], targets, lambda _: None))


def _print_lock(call: Call, one: Locks) -> None:
    added = [each for each in one.differences if each.before is None]
    removed = [each for each in one.differences if each.after is None]
    changed = len(one.differences) - len(added) - len(removed)
    call.say(
        f"{one.target}: {counted(len(added), 'package')} added, {len(removed)} removed, {changed} changed, "
        f"{one.same} the same"
    )
    for each in one.differences:
        _print(call, each)


def _print(call: Call, one: Difference) -> None:
    """Print what is different, the most telling first."""
    call.say(f"{one.before or '(none)'} -> {one.after or '(none)'}  {one.target}")
    before, after = one.size
    call.say(f"  installed {before} -> {after} bytes, stored {one.stored[0]} -> {one.stored[1]} bytes")
    _lines(call, "new native code", one.native)
    _lines(call, "new entry points", one.entry_points)
    _lines(call, "new .pth that Python would execute (from a shelf it never is)", one.pth)
    _lines(
        call,
        "new signs of networks",
        [
            f"{path}: {', '.join(names)}" + (f" (new to the package: {', '.join(first)})" if first else "")
            for path, names, first in one.network
        ],
    )
    _lines(call, "not to be read", one.unread)
    _lines(call, "dependencies", [*_marked("-", one.requires_removed), *_marked("+", one.requires_added)])
    if one.before and one.after:
        _lines(
            call,
            "files",
            [
                *(f"- {path} ({size} bytes)" for path, size in one.removed),
                *(f"+ {path} ({size} bytes)" for path, size in one.added),
                *(f"~ {each.path} ({each.before} -> {each.after} bytes)" for each in one.changed),
            ],
        )
    else:
        call.say(f"  {counted(len(one.added) + len(one.removed), 'file')}")


def _marked(mark: str, lines: tuple[str, ...]) -> list[str]:
    return [f"{mark} {line}" for line in lines]


def _lines(call: Call, title: str, lines: list[str] | tuple[str, ...]) -> None:
    if not lines:
        return
    call.say(f"  {title}:")
    for line in lines[:_MOST]:
        call.say(f"    {line}")
    if len(lines) > _MOST:
        call.say(f"    and {len(lines) - _MOST} more: --json has all")
