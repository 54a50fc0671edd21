"""``shelf run``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from cloudimport import settings
from cloudimport.errors import ConfigurationError
from shelf_tools.console import Call, Commands, counted
from shelf_tools.flags import count, seconds, size
from shelf_tools.running import calls, runs
from shelf_tools.running.dag import Outcome
from shelf_tools.running.executing import Bounds, FunctionError, Ran
from shelf_tools.running.functions import read_program

_DEFAULT = Bounds()
_MIB = 1 << 20


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    takes = {"--shelf": True, "-h": False, "--help": False, **_add_own(own)}
    run = commands.add_parser(
        "run",
        parents=[shelf, own],
        help="run a function of a file with what it says that it needs",
        description="Run a function of a Python file in a fresh sandbox, with the packages that "
        "@cloudimport.requirements says it needs, from the shelf. Its result is printed as JSON, what it "
        "prints goes to standard error. -a VALUE gives a positional argument, --name VALUE a named one; "
        "behind -- all are the function's. Values are JSON, else text.",
        usage="shelf run [option ...] FILE [option ...] [-a VALUE ...] [--name VALUE ...] "
        "[-- --option-of-the-function VALUE ...]",
    )
    # FILE is one of the words: behind a positional of its own argparse would take a "--" away.
    run.add_argument(
        "words", metavar="FILE ...", nargs=argparse.REMAINDER, help="the file with the function; the rest"
    )
    after = argparse.ArgumentParser(prog="shelf run", parents=[shelf, own], usage=run.usage)
    run.set_defaults(run=lambda call: _run(call, after, takes))


def _add_own(own: argparse.ArgumentParser) -> dict[str, bool]:
    """Add the command's own options; return for each whether it takes a value."""
    made = [
        own.add_argument(
            "--function", metavar="NAME", default="", help="which; default: that no other needs"
        ),
        own.add_argument(
            "--update", action="store_true", help="choose versions anew, instead of those that were recorded"
        ),
        own.add_argument(
            "--record", action="store_true", help="choose and record versions for all functions, run none"
        ),
        own.add_argument(
            "--publish",
            action="store_true",
            help="publish the environments, too, so that other machines find them by the record",
        ),
        own.add_argument(
            "--remote", metavar="FUNCTION", default="", help="run it in Lambda, by this deployed runner"
        ),
        own.add_argument(
            "--endpoint-url", metavar="URL", default="", help="of Lambda; default: AWS_ENDPOINT_URL_LAMBDA"
        ),
        own.add_argument(
            "--memory",
            metavar="SIZE",
            type=size,
            default=_DEFAULT.memory_bytes,
            help=f"of each process of a sandbox; default: {_DEFAULT.memory_bytes // _MIB}M",
        ),
        own.add_argument(
            "--tmp",
            metavar="SIZE",
            type=size,
            default=_DEFAULT.tmp_bytes,
            help=f"of /tmp in a sandbox; default: {_DEFAULT.tmp_bytes // _MIB}M",
        ),
        own.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=_DEFAULT.seconds,
            help=f"of a function in a sandbox; default: {_DEFAULT.seconds:.0f}",
        ),
        own.add_argument(
            "--env",
            metavar="NAME[=VALUE]",
            action="append",
            default=[],
            help="a variable for functions in sandboxes; without a value: as it is here; repeatable",
        ),
        own.add_argument(
            "--jobs", metavar="N", type=count, default=8, help="functions at a time; default: 8"
        ),
    ]
    return {name: action.nargs != 0 for action in made for name in action.option_strings}


def _run(call: Call, after: argparse.ArgumentParser, takes: Mapping[str, bool]) -> int:
    """Run a function of a file."""
    path, rest = _file(call.options.words, after)
    words = calls.split(rest, takes)
    options = after.parse_args(words.own, call.options)
    call.end_on_sigterm()
    said = options.shelf or call.environ.get("CLOUDIMPORT_SHELF", "")
    url = said or settings.default_shelf(call.environ)
    program = read_program(path)
    job = runs.Job(
        program=program._replace(path=path.absolute()),
        shelf=url if "://" in url else os.path.abspath(url),
        said=bool(said),
        settings=settings.resolve(lock=os.devnull, environ=call.environ),
        bounds=Bounds(options.timeout, options.memory, options.tmp),
        environ=_variables(options.env, call.environ),
        remote=options.remote,
        endpoint=options.endpoint_url,
        update=options.update,
        publish=options.publish,
        jobs=options.jobs,
    )
    if options.record:
        return _record(call, job, words)
    plan = calls.plan(program, options.function, words)
    outcome = runs.run(job, plan, _Listener(call, len(plan.calls) > 1))
    if plan.end in outcome.results:
        call.answer(outcome.results[plan.end])
        return 0
    return _fail(call, outcome)


def _file(words: list[str], parser: argparse.ArgumentParser) -> tuple[Path, list[str]]:
    """Return the file, which is the first word, and the words behind it."""
    first, *rest = words[words[:1] == ["--"] :] or [""]
    if not first or first.startswith("-"):
        parser.error(f"{first} is no option of this command" if first else "FILE is missing")
    return Path(first), rest


def _record(call: Call, job: runs.Job, words: calls.Words) -> int:
    if words.positional or words.named:
        raise ConfigurationError("--record runs no function: it takes no arguments for one")
    for ready in runs.record(job, _Listener(call, False)):
        call.say(f"{ready.target}: {', '.join(ready.pins)}")
    return 0


def _variables(given: list[str], environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals and name not in environ:
            raise ConfigurationError(f"--env {name}: there is no such variable here: write {name}=VALUE")
        found[name] = value if equals else environ[name]
    return found


def _fail(call: Call, outcome: Outcome) -> int:
    for name, error in outcome.errors.items():
        if isinstance(error, FunctionError):
            for line in error.traceback.splitlines():
                call.relay(line)
        call.complain(f"shelf: error: {name}: {error}")
    for name, other in outcome.skipped.items():
        call.complain(f"shelf: {name} was not run: {other} has no result")
    return 1


class _Listener:
    """Prints to standard error, with the function's name in front where there are several."""

    def __init__(self, call: Call, several: bool) -> None:
        self._call, self._several = call, several

    def note(self, text: str) -> None:
        """Print a line for a person."""
        self._call.relay(f"note: {text}")

    def printed(self, function: str, line: str) -> None:
        """Print what a function has printed."""
        self._call.relay(f"{function} | {line}" if self._several else line)

    def ran(self, function: str, ran: Ran) -> None:
        """Print the figures of a function that has ended."""
        figures = [f"{ran.seconds:.2f} s"]
        if ran.stats:
            got = ran.stats.get("bytes_fetched", 0) + ran.stats.get("bytes_shared", 0)
            figures += [
                f"{got / 1e6:.1f} MB of packages",
                counted(int(ran.stats.get("requests", 0)), "request"),
            ]
        self._call.relay(f"{function}: {', '.join(figures)}")
