"""``shelf publish``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cloudimport.ids import Target, running_targets
from cloudimport.settings import LOCK_NAME
from shelf_tools.console import Call, Commands
from shelf_tools.pack import LEVEL
from shelf_tools.publish import Job, publish
from shelf_tools.recipes import NAME as RECIPES


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "publish", parents=[shelf], help="install pinned packages once and publish them"
    )
    make.add_argument(
        "-r",
        "--requirements",
        metavar="FILE",
        required=True,
        type=Path,
        help="pins: name==version, one a line",
    )
    make.add_argument(
        "--target",
        metavar="T",
        action="append",
        default=[],
        help="such as cp312-manylinux_2_28_x86_64 or lambda-python3.12-arm64; repeatable; "
        "default: the running interpreter's",
    )
    make.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        help=f"the lockfile to write; default: {LOCK_NAME} beside the requirements",
    )
    make.add_argument(
        "--recipes",
        metavar="FILE",
        type=Path,
        help=f"what to put in place at a package's first import; default: {RECIPES} beside the requirements",
    )
    make.add_argument(
        "--jobs", metavar="N", type=_positive, help="packages at a time; default: the number of processors"
    )
    make.add_argument(
        "--level",
        metavar="N",
        type=_level,
        help=f"zstd level, 1 to {LEVEL}, of what importing a package needs; default: {LEVEL}, which takes a "
        "quarter of a second a megabyte, once",
    )
    make.add_argument(
        "--sandbox",
        choices=("bubblewrap", "none"),
        default="bubblewrap",
        help="none: no isolation, at your own risk",
    )
    make.add_argument(
        "--allow-yanked",
        action="store_true",
        help="publish pins that were yanked ('shelf yank') all the same",
    )
    make.set_defaults(run=run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _level(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LEVEL:
        raise argparse.ArgumentTypeError(f"1 to {LEVEL}")
    return number


def run(call: Call) -> int:
    """Publish a requirements file."""
    options = call.options
    targets = tuple(dict.fromkeys(map(Target.parse, options.target))) or tuple(running_targets()[:1])
    url = call.url if "://" in call.url else os.path.abspath(call.url)
    said = bool(options.shelf or call.environ.get("CLOUDIMPORT_SHELF"))
    chosen = {name: getattr(options, name) for name in ("jobs", "level") if getattr(options, name)}
    job = Job(
        requirements=options.requirements,
        shelf=url,
        targets=targets,
        lock=options.lock or options.requirements.parent / LOCK_NAME,
        lock_shelf=url if said else "",
        environ=call.environ,
        sandbox=options.sandbox,
        recipes=options.recipes,
        allow_yanked=options.allow_yanked,
        **chosen,
    )
    bars = call.bars()
    call.end_on_sigterm()
    with bars.progress:
        outcomes = publish(job, bars)
    for outcome in outcomes:
        call.say(
            f"{outcome.target}: {len(outcome.built)} published, {len(outcome.present)} were there; "
            f"environment {outcome.index.digest[:12]} ({outcome.index.stored} bytes)"
        )
    call.say(f"shelf {url}; lockfile {job.lock}")
    return 0
