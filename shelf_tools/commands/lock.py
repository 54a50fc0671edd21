"""``shelf lock``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.ids import Target, running_targets
from shelf_tools.console import Call, Commands, counted
from shelf_tools.indexes import PIPS_STRATEGY, Asked
from shelf_tools.locking import Job, lock


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "lock",
        help="resolve requirements to pins with hashes, for targets",
        description="Resolve ranges, extras and markers by uv, for the targets and not for this machine, and "
        "write a list of pins with hashes for 'shelf publish -r'. Lines that differ by target carry markers. "
        "Wheels only are taken; versions that the list has already are kept where they fit.",
        epilog="Packages come from where pip is configured to find them, with its credentials (netrc, "
        "keyring, URL), unless an argument or a variable of uv (UV_INDEX, …) says otherwise.",
    )
    make.add_argument(
        "inputs", metavar="FILE", nargs="+", help="requirements.in and the like, or pyproject.toml"
    )
    make.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the list to write: requirements.txt"
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
        "-c",
        "--constraint",
        metavar="FILE",
        action="append",
        default=[],
        help="versions to keep to; repeatable",
    )
    make.add_argument(
        "--extra", metavar="NAME", action="append", default=[], help="of pyproject.toml; repeatable"
    )
    make.add_argument("--exclude-newer", metavar="DATE", default="", help="nothing that came after it")
    make.add_argument("-U", "--upgrade", action="store_true", help="keep no version of the list as it is")
    make.add_argument(
        "-P", "--upgrade-package", metavar="NAME", action="append", default=[], help="keep all but this one's"
    )
    _add_indexes(make)
    make.set_defaults(run=run)


def _add_indexes(make: argparse.ArgumentParser) -> None:
    make.add_argument("-i", "--index-url", metavar="URL", default="", help="the index, in place of pip's")
    make.add_argument(
        "--extra-index-url", metavar="URL", action="append", default=[], help="one more; repeatable"
    )
    make.add_argument(
        "-f", "--find-links", metavar="PLACE", action="append", default=[], help="a folder or page of wheels"
    )
    make.add_argument("--no-index", action="store_true", help="no index, only --find-links")
    make.add_argument(
        "--index-strategy",
        metavar="S",
        default="",
        help="first-index: a package comes from the first index that has it, --extra-index-url before "
        f"--index-url; {PIPS_STRATEGY}: from any, as pip does it; default: the latter if pip is configured "
        "for several",
    )
    make.add_argument(
        "--keyring-provider",
        choices=("disabled", "subprocess"),
        default="",
        help="subprocess: ask the program 'keyring' for passwords",
    )


def run(call: Call) -> int:
    """Lock requirements."""
    options = call.options
    targets = tuple(dict.fromkeys(map(Target.parse, options.target))) or tuple(running_targets()[:1])
    indexes = Asked(
        options.index_url,
        tuple(options.extra_index_url),
        tuple(options.find_links),
        options.no_index,
        options.keyring_provider,
        options.index_strategy,
    )
    job = Job(
        tuple(options.inputs),
        options.output,
        targets,
        call.environ,
        tuple(options.constraint),
        indexes,
        options.exclude_newer,
        tuple(options.extra),
        options.upgrade,
        tuple(options.upgrade_package),
    )
    call.end_on_sigterm()
    lines = lock(job, call.bars())
    marked = sum(bool(line.marker) for line in lines)
    differ = f", {marked} of them by target" if marked else ""
    call.say(
        f"{options.output}: {counted(len(lines), 'pin')}{differ}, for {', '.join(map(str, targets))}; "
        f"now 'shelf publish -r {options.output}"
        + "".join(f" --target {target}" for target in targets if options.target)
        + "'"
    )
    return 0
