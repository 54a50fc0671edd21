"""The ``shelf`` command: a thin layer over its commands."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import cloudimport
from cloudimport.errors import CloudImportError
from cloudimport.settings import default_shelf
from shelf_tools.commands import (
    boot,
    diff,
    export,
    forget,
    gc,
    key,
    lock,
    ls,
    mirror,
    policy,
    promote,
    publish,
    report,
    run,
    sbom,
    serve,
    show,
    trace,
    unyank,
    verify,
    yank,
)
from shelf_tools.console import Call

#: In the order of ``shelf --help``.
_COMMANDS = (
    *(lock, publish, ls, show, diff, verify, yank, unyank, forget, gc, promote),
    *(run, serve, export, trace, boot, mirror, key, report, sbom, policy),
)
_EPILOG = """\
The shelf is a folder, s3://bucket/prefix (endpoint: AWS_ENDPOINT_URL_S3; credentials: the standard
sources) or any URL that fsspec knows; without --shelf it is CLOUDIMPORT_SHELF, else a folder in
your data folder.
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    top = argparse.ArgumentParser(
        prog="shelf",
        description="Publish PyPI packages to object storage, to be imported from there.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"shelf {cloudimport.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shelf = argparse.ArgumentParser(add_help=False)
    shelf.add_argument("--shelf", metavar="URL", help="where the packages lie")
    for command in _COMMANDS:
        command.add(commands, shelf)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 an error or a problem found, 2 wrong usage."""
    options = parser().parse_args(arguments)
    environ = dict(os.environ)
    call = Call(options, getattr(options, "shelf", "") or environ.get("CLOUDIMPORT_SHELF", ""), environ)
    try:
        call.url = call.url or default_shelf(environ)
        status: int = options.run(call)
        return status
    except CloudImportError as error:
        for line in str(error).split("\n"):  # other ends of lines are a package's
            call.complain(f"shelf: error: {line}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        call.complain(f"shelf: error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        call.complain("shelf: interrupted; nothing half-done is visible, run it again to go on")
        return 130
    return 1
