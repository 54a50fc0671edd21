"""``python -m lambda_layer template``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from lambda_layer.templating import KINDS, Filling, filling, template
from shelf_tools.console import Call, Commands
from shelf_tools.environments import read_lock
from shelf_tools.swap import write_file


def add(commands: Commands) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "template",
        help="print a template for AWS SAM or CloudFormation",
        description="Print a template: of a function with the layer and a role that may read what its "
        "lockfile needs (sam, cloudformation), of a shelf's bucket and those who write to it (publisher), or "
        "of a function for 'shelf run --remote' (runner).",
        epilog="Without --lock and --shelf the function's stack makes the shelf's bucket, too; without "
        "--lock the function may read any package of the shelf. The publisher's stack makes the bucket of "
        "--shelf.",
    )
    make.add_argument("kind", choices=KINDS)
    make.add_argument(
        "--lock",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="the function's lockfile, which says the shelf, too; repeat it for versions that still run",
    )
    make.add_argument(
        "--shelf", metavar="URL", default="", help="s3://bucket/prefix, of a bucket that is there"
    )
    make.add_argument("--no-bucket", action="store_true", help="publisher: the bucket is there already")
    make.add_argument("--python", metavar="X.Y", help="default: the lockfile's, else 3.12")
    make.add_argument("--arch", choices=("arm64", "x86_64"), help="default: the lockfile's, else arm64")
    make.add_argument(
        "--code",
        metavar="DIR",
        default=Filling().code,
        help="sam: the function's folder; default: %(default)s",
    )
    make.add_argument(
        "--layer", metavar="ZIP", default=Filling().layer, help="sam: the layer's zip; default: %(default)s"
    )
    make.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Write a template."""
    options = call.options
    locks = [read_lock(path) for path in options.lock]
    found = filling(locks, options.shelf, call.environ, _target(options))
    found = found._replace(code=options.code, layer=options.layer)
    if options.kind == "publisher":
        found = found._replace(has_bucket=not options.no_bucket)
    text = template(options.kind, found)
    if options.output:
        write_file(options.output, text)
    else:
        call.say(text.removesuffix("\n"))
    return 0


def _target(options: argparse.Namespace) -> Target | None:
    """Return the target that is asked for, None if none is."""
    if not options.python and not options.arch:
        return None
    if options.lock and not (options.python and options.arch):
        raise ConfigurationError("--python and --arch belong together where there is a lockfile")
    return Target.parse(f"lambda-python{options.python or '3.12'}-{options.arch or 'arm64'}")
