"""``shelf publish``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.format.signing import parse_keys
from cloudimport.ids import Target, normalise_name, running_targets
from cloudimport.settings import LOCK_NAME
from shelf_tools import limits
from shelf_tools.config import NAME as CONFIG
from shelf_tools.config import beside, read_config
from shelf_tools.console import Call, Commands
from shelf_tools.flags import add_limits, add_python, given_limits
from shelf_tools.inputs import is_requirements_file
from shelf_tools.pack import LEVEL
from shelf_tools.provenance import ALL
from shelf_tools.publish import Job, publish
from shelf_tools.recipes import NAME as RECIPES
from shelf_tools.signing import Signing, open_key
from shelf_tools.workers import KINDS, check_kind


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
        help="pins: name==version, one a line; or pylock.toml, uv.lock, pyproject.toml (then: its uv.lock)",
    )
    make.add_argument(
        "--add-missing",
        action="store_true",
        help="resolve what the pins need and the list lacks, and add it to the end of the list",
    )
    make.add_argument(
        "--extra", metavar="NAME", action="append", default=[], help="of a project's lock; repeatable"
    )
    make.add_argument(
        "--group",
        metavar="NAME",
        action="append",
        default=[],
        help="of a project's lock; repeatable; default: none, of pylock.toml its default groups",
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
    make.add_argument(
        "--allow-sdist",
        metavar="NAME",
        action="append",
        default=[],
        help="build this package from its source distribution, in the sandbox, if it has no wheel for the "
        "target; repeatable",
    )
    make.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help=f"limits and allow-sdist of every publication; default: {CONFIG} beside the requirements",
    )
    add_limits(make)
    make.add_argument(
        "--bytecode-only",
        metavar="NAME",
        action="append",
        default=[],
        help="publish this package (or name==version) without source; repeatable",
    )
    make.add_argument(
        "--require-attestation",
        metavar="NAME",
        nargs="?",
        const=ALL,
        action="append",
        default=[],
        help="refuse this package (default: all) without a publisher's attestation (PEP 740) that is right; "
        "repeatable",
    )
    make.add_argument(
        "--sign",
        metavar="KEYFILE",
        type=Path,
        action="append",
        default=[],
        help="sign builds, environment and lockfile ('shelf key new' makes a key); repeatable",
    )
    make.add_argument(
        "--root",
        metavar="KEY",
        action="append",
        default=[],
        help="a public key that readers of the lockfile trust, and builds on the shelf may be signed by; "
        "repeatable; default: the lockfile's, and those that sign",
    )
    make.add_argument(
        "--executor",
        metavar="E",
        default=KINDS[0],
        help=f"where the work is done: {', '.join(KINDS)} (of this machine), or dask=tcp://host:8786; "
        f"default: {KINDS[0]}",
    )
    add_python(make)
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


def _signing(options: argparse.Namespace) -> Signing:
    if options.root and not options.sign:
        raise ConfigurationError("--root says who may have signed: give --sign KEYFILE too")
    signing = Signing(tuple(map(open_key, options.sign)), parse_keys(options.root, "--root"))
    signing.roots_of(())  # what is wrong with them shall not be said when all else is done
    return signing


def run(call: Call) -> int:
    """Publish a requirements file."""
    options = call.options
    targets = tuple(dict.fromkeys(map(Target.parse, options.target))) or tuple(running_targets()[:1])
    url = call.url if "://" in call.url else os.path.abspath(call.url)
    said = bool(options.shelf or call.environ.get("CLOUDIMPORT_SHELF"))
    chosen = {name: getattr(options, name) for name in ("jobs", "level") if getattr(options, name)}
    config = read_config(options.config) if options.config else beside(options.requirements)
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
        extras=tuple(options.extra),
        groups=tuple(options.group),
        add_missing=options.add_missing,
        limits=limits.StageLimits.of(given_limits(options), config.limits),
        allow_sdist=config.allow_sdist | frozenset(map(normalise_name, options.allow_sdist)),
        signing=_signing(options),
        bytecode_only=tuple(options.bytecode_only),
        require_attestation=tuple(options.require_attestation),
        executor=check_kind(options.executor),
        pythons=tuple(path.absolute() for path in options.python),
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
    if not is_requirements_file(job.requirements):
        call.say(f"handlers go by {job.lock}: they do not read {job.requirements.name}")
    return 0
