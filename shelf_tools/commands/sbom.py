"""``shelf sbom``."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudimport.errors import ConfigurationError
from cloudimport.settings import LOCK_NAME
from shelf_tools.console import Call, Commands
from shelf_tools.environments import read_lock
from shelf_tools.swap import write_file


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    make = commands.add_parser(
        "sbom",
        parents=[shelf],
        help="write what an environment is made of, as CycloneDX JSON",
        description="Write the bill of materials of a lockfile's environment (CycloneDX 1.6, JSON): packages "
        "with package URLs, hashes of their wheels, declared licences, and who needs whom. The same lockfile "
        "gives the same bytes.",
    )
    make.add_argument(
        "--lock", metavar="FILE", type=Path, default=Path(LOCK_NAME), help=f"default: {LOCK_NAME}"
    )
    make.add_argument(
        "--target", metavar="T", default="", help="default: the lock's only one, or the running interpreter's"
    )
    make.add_argument(
        "--loaded",
        metavar="FILE",
        type=Path,
        help="only what a process has loaded, by the file of its CLOUDIMPORT_LOADED or by its log",
    )
    make.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: standard output")
    make.set_defaults(run=run)


def run(call: Call) -> int:
    """Write a bill of materials."""
    from shelf_tools.sbom import (
        pick_target,
        read_loaded,
        write_sbom,
    )  # 0.3 s, of which no other command has any use

    options = call.options
    lock = read_lock(options.lock)
    url = options.shelf or lock.shelf or call.url
    loaded = read_loaded(_text(options.loaded), str(options.loaded)) if options.loaded else None
    target = pick_target(lock, options.target or (loaded.target if loaded else ""))
    text = write_sbom(lock, target, url, call.environ, loaded)
    if options.output:
        write_file(options.output, text)
    else:
        call.say(text.rstrip("\n"))
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error
