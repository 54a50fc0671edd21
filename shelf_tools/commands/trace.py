"""``shelf trace``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.settings import LOCK_NAME
from shelf_tools import rehearse
from shelf_tools.boot import Trace
from shelf_tools.console import Call, Commands, counted


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    trace = commands.add_parser(
        "trace",
        parents=[shelf],
        help="run a program or handler once and record what it needs",
        description="Run a Python file as 'python FILE ARG …' would, with an empty cache; with --event call "
        "its handler as Lambda does. What it needed is written when it ends, for 'shelf boot'.",
    )
    trace.add_argument("program", metavar="FILE", type=Path, help="the program, or the handler's file")
    trace.add_argument("arguments", metavar="ARG", nargs="*", help="its arguments")
    trace.add_argument(
        "--event", metavar="JSON", default="", help="call the handler with this, or with @FILE"
    )
    trace.add_argument(
        "--handler", metavar="NAME", default="", help="its function; default: handler, else lambda_handler"
    )
    trace.add_argument("--lock", metavar="FILE", type=Path, help=f"default: {LOCK_NAME} beside the program")
    trace.add_argument("-o", "--output", metavar="FILE", type=Path, default=Path("trace.json"))
    trace.set_defaults(run=run)


def run(call: Call) -> int:
    """Run a program and record what it needs; its exit status."""
    options = call.options
    event = options.event
    if event.startswith("@"):
        event = Path(event[1:]).read_text(encoding="utf-8")
    lock = (options.lock or options.program.parent / LOCK_NAME).absolute()
    said = options.shelf or ""
    status = rehearse.run(
        rehearse.Rehearsal(
            options.program,
            options.arguments,
            options.handler,
            event,
            lock,
            said,
            options.output.absolute(),
        ),
        call.environ,
    )
    if not options.output.exists():
        call.complain(f"shelf: error: {options.program} ended with status {status} and left no trace")
        return 1
    needed = len(Trace.read(options.output).blocks)
    call.say(f"{options.output}: {counted(needed, 'block')} needed; now 'shelf boot {options.output}'")
    return status
