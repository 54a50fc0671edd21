"""``python -m lambda_layer``: what is made for AWS Lambda."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from cloudimport.errors import CloudImportError
from lambda_layer import template

#: Each has ``add(commands)``, which sets ``run`` to what takes the arguments and returns the status.
_COMMANDS = (template,)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns 0, or 1 after an error."""
    top = argparse.ArgumentParser(prog="python -m lambda_layer", description="Make what AWS Lambda needs.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add(commands)
    options = top.parse_args(arguments)
    try:
        status: int = options.run(options)
        return status
    except CloudImportError as error:
        sys.stderr.write(f"lambda_layer: error: {error}\n")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"lambda_layer: error: {where}{error.strerror or error}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
