"""``shelf policy``."""

from __future__ import annotations

import argparse
import json
from contextlib import closing
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.opening import open_source
from shelf_tools.console import Call, Commands
from shelf_tools.environments import read_lock
from shelf_tools.pins import read_pins
from shelf_tools.policy import (
    Place,
    as_yaml,
    keys_of_lock,
    keys_of_names,
    keys_of_requirements,
    policy,
    resources,
    too_large,
)


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "policy",
        parents=[shelf],
        help="write the IAM or bucket policy that readers need, and no more",
        description="Write a policy that lets readers of a lockfile, of a published list or of named "
        "packages get what they need of a shelf on S3: GetObject, on exactly these keys and prefixes.",
        epilog="With NAMEs beside --lock or -r, these packages alone can be imported. NAMEs alone are for "
        "any environment: since indexes are named by digests, such readers may read all indexes (envs/*), "
        "and so see the file names of every package. A policy for -r is made anew when the list is "
        "published anew.",
    )
    make.add_argument("names", metavar="NAME", nargs="*")
    where = make.add_mutually_exclusive_group()
    where.add_argument("--lock", metavar="FILE", type=Path, help="a lockfile; it says the shelf, too")
    where.add_argument(
        "-r",
        "--requirements",
        metavar="FILE",
        type=Path,
        help="a list that was published, for readers without lock",
    )
    make.add_argument(
        "--bucket-policy", action="store_true", help="a bucket's policy instead of one of a role or user"
    )
    make.add_argument(
        "--principal",
        metavar="ARN",
        action="append",
        default=[],
        help="whom a bucket's policy is for: the ARN of a role or user, an account, or *; repeatable",
    )
    make.add_argument(
        "--format",
        choices=("json", "cloudformation"),
        default="json",
        help="cloudformation: as YAML, to be put below a template's Resources; what is too large for one "
        "managed policy becomes several; default: json",
    )
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Write a policy document to standard output."""
    options = call.options
    if options.bucket_policy != bool(options.principal):
        raise ConfigurationError("--bucket-policy and --principal ARN belong together: who may read?")
    url, wanted = _wanted(call)
    place = Place.of(url, call.environ)
    document = policy(place, wanted, options.principal)
    as_resources = options.format == "cloudformation"
    if as_resources:
        call.say("\n".join(as_yaml(resources(place, wanted, options.principal))))
    else:
        call.say(json.dumps(document, indent=2))
    note = too_large(document, options.bucket_policy)
    if note and (options.bucket_policy or not as_resources):
        call.complain(f"note: {note}")
    return 0


def _wanted(call: Call) -> tuple[str, list[str]]:
    """Return the shelf's URL, and the keys and prefixes that are to be read."""
    options = call.options
    if options.lock:
        lock = read_lock(options.lock)
        return options.shelf or lock.shelf or call.url, keys_of_lock(lock, options.names)
    if options.requirements:
        lines = [requirement.line for requirement in read_pins(options.requirements)]
        with closing(open_source(call.url, SourceConfig(environ=call.environ))) as source:
            return call.url, keys_of_requirements(source, lines, options.names)
    if not options.names:
        raise ConfigurationError("a policy of what? Name packages, or a lockfile with --lock")
    return call.url, keys_of_names(options.names)
