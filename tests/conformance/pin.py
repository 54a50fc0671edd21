"""``python -m tests.conformance.pin [GROUP …]``: resolve the corpus anew and write its pins.

The index is whatever uv has been told to use; nothing of that is written down.
"""

from __future__ import annotations

import argparse
import sys

from tests.conformance.groups import VERSIONS, pins_file, read_groups
from tests.support.resolving import write_pins

_HEADER = "# Made by `python -m tests.conformance.pin` from packages.toml.\n"


def main() -> int:
    """Resolve the groups that are named, or all, for each Python."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.pin", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--python", default=",".join(VERSIONS), help="versions, such as 3.11,3.12")
    arguments = parser.parse_args()
    groups = read_groups()
    versions = arguments.python.split(",")
    names = arguments.groups or groups
    wanted = ((n, groups[n].wanted, v, pins_file(n, v)) for v in versions for n in names)
    return not write_pins(wanted, _HEADER)


if __name__ == "__main__":
    sys.exit(main())
