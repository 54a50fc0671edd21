"""``python -m lambda_layer``: a thin layer over its commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from cloudimport.errors import CloudImportError
from lambda_layer.commands import build, template
from shelf_tools.console import Call

#: In the order of ``--help``.
_COMMANDS = (build, template)


def parser() -> argparse.ArgumentParser:
    """Return the command's argument parser."""
    top = argparse.ArgumentParser(
        prog="python -m lambda_layer", description="The AWS Lambda layer of cloudimport."
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 done, 1 an error, 2 wrong usage."""
    call = Call(parser().parse_args(arguments), "", dict(os.environ))
    try:
        status: int = call.options.run(call)
        return status
    except CloudImportError as error:
        for line in str(error).split("\n"):
            call.complain(f"lambda_layer: error: {line}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        call.complain(f"lambda_layer: error: {where}{error.strerror or error}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
