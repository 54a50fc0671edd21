"""``shelf verify``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack, closing
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.config import NAME as CONFIG
from shelf_tools.config import Config, beside, read_config
from shelf_tools.console import Bars, Call, Commands, counted
from shelf_tools.flags import add_limits, add_python, given_limits
from shelf_tools.inputs import read_input
from shelf_tools.inspect import Shelf
from shelf_tools.limits import StageLimits
from shelf_tools.rebuild import Making, rebuilt
from shelf_tools.repair import Opener, repair


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    verify = commands.add_parser(
        "verify",
        parents=[shelf],
        help="read everything back and check it; repair it",
        description="Read everything back and check it. With --repair, what is damaged or gone is replaced, "
        "by what has the right digest only.",
    )
    verify.add_argument("pins", metavar="NAME==VERSION", nargs="*")
    verify.add_argument("--repair", action="store_true", help="replace what is damaged or gone, from:")
    donor = verify.add_mutually_exclusive_group()
    donor.add_argument("--from", metavar="URL", dest="donor", help="another shelf that has it")
    donor.add_argument(
        "--from-index",
        action="store_true",
        help="the package index: it is fetched and built again, as 'shelf publish' does",
    )
    verify.add_argument(
        "--sandbox",
        choices=("bubblewrap", "none"),
        default="bubblewrap",
        help="for --from-index; none: no isolation, at your own risk",
    )
    verify.add_argument(
        "-r",
        "--requirements",
        metavar="FILE",
        type=Path,
        help="for --from-index: a list that was published; the indexes that it names are asked",
    )
    verify.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"for --from-index: limits and allow-sdist; default: {CONFIG} beside the list of -r",
    )
    add_python(verify)
    add_limits(verify)
    verify.set_defaults(run=run)


def run(call: Call) -> int:
    """Read everything back and check it; 1 if there are problems."""
    options = call.options
    pins = [Pin.parse(text) for text in options.pins]
    if options.repair != bool(options.donor or options.from_index):
        raise ConfigurationError("--repair needs one of --from URL and --from-index, and they need --repair")
    if options.repair and pins:
        raise ConfigurationError("--repair is of the whole shelf: give no pins")
    how = options.requirements, options.config, options.python, given_limits(options)
    if any(how) and not options.from_index:
        raise ConfigurationError("-r, --config, --python and limits are for --from-index")
    checked, problems = 0, 0

    def count(name: str) -> None:
        nonlocal checked
        checked += 1

    with closing(Shelf(call.url, call.environ)) as shelf:
        if options.repair:
            call.end_on_sigterm()
            _repair(call, shelf, _making(call))
        for problem in shelf.verify(pins, count):
            problems += 1
            call.complain(f"shelf: {problem}")
    call.say(f"{counted(checked, 'build')} checked, {counted(problems, 'problem')}")
    return 1 if problems else 0


def _making(call: Call) -> Making:
    """Return how builds are to be made again. Raises ConfigurationError."""
    options = call.options
    config, indexes = Config(), tuple[str, ...]()
    if options.requirements:
        # Whole paths: the folders of wheels that it names are beside it.
        listed = read_input(options.requirements.absolute(), (), (), call.environ, call.complain)
        config, indexes = beside(options.requirements), listed.options
    if options.config:
        config = read_config(options.config)
    return Making(
        call.environ,
        options.sandbox,
        StageLimits.of(given_limits(options), config.limits),
        config.allow_sdist,
        tuple(path.absolute() for path in options.python),
        indexes,
    )


def _repair(call: Call, shelf: Shelf, making: Making) -> None:
    """Repair, and say what was; what could not be is a problem that verifying finds."""
    bars = call.bars()
    with ExitStack() as stack, bars.progress:
        done = repair(
            shelf.store,
            shelf.source,
            _opener(call, shelf, stack, bars, making),
            lambda total: bars.stage("check", total, "object"),
            bars.step,
            bars.note,
        )
    for key in done.done:
        call.say(f"repaired {key}")
    for pin, target in done.unsigned:
        call.complain(
            f"note: {pin} for {target} is not signed by those who signed environments that have it: if you "
            f"trust it as it is now, 'shelf key sign KEYFILE {pin}'"
        )
    for reason in done.left.values():
        call.complain(f"shelf: not repaired: {reason}")
    call.say(f"{counted(len(done.done), 'object')} repaired, {len(done.left)} not")


def _opener(call: Call, shelf: Shelf, stack: ExitStack, bars: Bars, making: Making) -> Opener:
    """Return what opens the donor that was asked for, until the stack is closed."""
    options = call.options
    if options.donor:
        donor = open_source(options.donor, SourceConfig(environ=call.environ))
        return lambda _: stack.enter_context(closing(donor))
    return lambda walk: stack.enter_context(rebuilt(shelf.store, shelf.source, making, bars, walk))
