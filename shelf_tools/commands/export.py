"""``shelf export``."""

from __future__ import annotations

import argparse
from contextlib import closing

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from cloudimport.settings import LOCK_NAME, REQUIREMENTS_NAME
from shelf_tools.console import Call, Commands, counted
from shelf_tools.export import Export, Wanted


def add(commands: Commands, shelf: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    export = commands.add_parser(
        "export",
        parents=[shelf],
        help="lay an environment out in a folder, for editors and type checkers",
        description="Lay an environment out in a folder as pip would, read-only, so that pyright, mypy and "
        "jedi see it. An earlier export there is replaced at once; any other folder has to be empty. "
        "Exports share equal files by hard links, on the cache's file system.",
        epilog="Without -r and --lock the environment is that of CLOUDIMPORT_LOCK or "
        f"CLOUDIMPORT_REQUIREMENTS, else of {LOCK_NAME} or {REQUIREMENTS_NAME} in the current folder; "
        "without --shelf, what the lock says.",
    )
    export.add_argument("folder", metavar="DIR", help="the folder to make or to replace")
    export.add_argument(
        "--stubs-only",
        action="store_true",
        help="only what a type checker reads: .pyi, .py (many packages have their types in the source), "
        "py.typed and METADATA; no native code, data or scripts: to be read, not to be run",
    )
    export.add_argument(
        "--layout",
        choices=("folder", "openlambda"),
        default="folder",
        help="folder: one, as pip install --target makes it; openlambda: NAME==VERSION/files for each, "
        "as an OpenLambda worker keeps them (its lambda/packages); what is there already stays",
    )
    export.add_argument("-r", "--requirements", metavar="FILE", help="the list that was published")
    export.add_argument("--lock", metavar="FILE", help="the lockfile")
    export.add_argument(
        "--target",
        metavar="T",
        help="of those that were published; default: the running interpreter's",
    )
    export.add_argument("--cache", metavar="FOLDER", help="where fetched blocks are kept")
    export.set_defaults(run=run)


def run(call: Call) -> int:
    """Lay an environment out in a folder."""
    options = call.options
    if options.layout != "folder" and options.stubs_only:
        raise ConfigurationError(
            "--stubs-only and --layout openlambda do not go together: workers run packages"
        )
    target = Target.parse(options.target) if options.target else None
    wanted = Wanted(
        options.requirements,
        options.lock,
        options.shelf,
        options.cache,
        target,
        call.environ,
    )
    bars = call.bars()
    call.end_on_sigterm()
    with closing(Export(wanted)) as export, bars.progress:
        bars.stage("export", len(export.pins))
        if options.layout == "openlambda":
            done = export.write_packages(options.folder, bars.step, bars.note)
        else:
            done = export.write(options.folder, options.stubs_only, bars.step)
    call.say(
        f"{export.target}: {counted(len(export.pins), 'package')}, {counted(done.files, 'file')} "
        f"({done.size} bytes), {done.shared} of them shared with an earlier export; in {options.folder}",
    )
    return 0
