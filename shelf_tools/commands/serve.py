"""``shelf serve``."""

from __future__ import annotations

import argparse
import contextlib
import os
from contextlib import closing
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.settings import default_cache
from shelf_tools import slots
from shelf_tools.console import Call, Commands
from shelf_tools.flags import count, seconds, size
from shelf_tools.lambdabox.box import MIB
from shelf_tools.sandbox import open_sandbox
from shelf_tools.serving.pool import Keeping
from shelf_tools.serving.preparing import Sizes
from shelf_tools.serving.server import Server, serve
from shelf_tools.serving.worker import Plan, Worker

#: Unprivileged uids that are left to others of this machine.
_OTHERS = 16


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    command = commands.add_parser(
        "serve",
        parents=[shelf],
        help="run functions locally, each in a sandbox like Lambda's, behind HTTP",
        description="Run the functions of a folder, NAME/f.py with f(event) or NAME/lambda_function.py, each "
        "in a sandbox like Lambda's, kept warm, with the packages of its cloudimport.lock or its "
        "requirements.txt: POST /run/NAME as in OpenLambda, AWS' Invoke, GET /status. Whoever reaches "
        "the port can run them.",
    )
    command.add_argument(
        "--functions", metavar="DIR", type=Path, required=True, help="a folder for each function"
    )
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on; default: 127.0.0.1")
    command.add_argument("--port", type=int, default=5000, help="0: a free one; default: 5000")
    command.add_argument(
        "--memory", metavar="SIZE", type=size, default=512 * MIB, help="of a sandbox; default: 512M"
    )
    command.add_argument(
        "--tmp", metavar="SIZE", type=size, default=512 * MIB, help="/tmp of a sandbox; default: 512M"
    )
    command.add_argument(
        "--timeout", metavar="SECONDS", type=seconds, default=30.0, help="of an invocation; default: 30"
    )
    command.add_argument(
        "--concurrency", metavar="N", type=count, default=64, help="sandboxes at once; default: 64"
    )
    command.add_argument(
        "--idle",
        metavar="SECONDS",
        type=seconds,
        default=300.0,
        help="until a sandbox is ended; default: 300",
    )
    command.add_argument(
        "--requests",
        metavar="N",
        type=count,
        default=10_000,
        help="until a sandbox is ended; default: 10000",
    )
    command.add_argument("--cache", metavar="FOLDER", type=Path, help="where the shared cache is kept")
    command.add_argument(
        "--tier-size", metavar="SIZE", type=size, default=10 << 30, help="of the shared cache; default: 10G"
    )
    command.add_argument("--logs", metavar="FOLDER", type=Path, help="default: logs in the cache")
    command.add_argument(
        "--python", metavar="FILE", type=Path, action="append", default=[], help="an interpreter; repeatable"
    )
    command.set_defaults(run=run)


def run(call: Call) -> int:
    """Serve until interrupted."""
    options = call.options
    _check_concurrency(options.concurrency)
    cache = (options.cache or Path(default_cache(call.environ))).resolve() / "serve"
    plan = Plan(
        options.functions,
        cache,
        (options.logs or cache / "logs").resolve(),
        options.shelf or call.environ.get("CLOUDIMPORT_SHELF", ""),
        call.environ,
        Sizes(options.memory, options.tmp, options.timeout),
        Keeping(options.concurrency, options.requests, options.idle, options.timeout + 60),
        options.tier_size,
        options.python,
        call.complain,
    )
    open_sandbox()
    call.end_on_sigterm()
    with closing(Worker(plan)) as worker:
        server = Server(options.host, options.port, worker)
        host, port = server.server_address[:2]
        names = ", ".join(worker.names()) or "no function yet"
        call.say(f"serving {names} on http://{host!s}:{port}")
        with contextlib.suppress(KeyboardInterrupt):
            serve(server)
    return 0


def _check_concurrency(number: int) -> None:
    """Raise ConfigurationError if there are too few uids for that many sandboxes."""
    most = slots.COUNT - _OTHERS
    if os.geteuid() == 0 and number > most:
        raise ConfigurationError(
            f"--concurrency {number} is too many: as root each sandbox has a uid of its own, of which there "
            f"are {slots.COUNT}, some for publishing: give {most} or less, or serve as another user"
        )
