"""``python -m tests.bench.pin [WORKLOAD …]``: resolve the workloads anew and write their pins."""

from __future__ import annotations

import argparse
import sys

from tests.bench.workloads import WORKLOADS
from tests.support.resolving import write_pins
from tests.support.runtimes import running_version


def main() -> int:
    """Resolve the workloads that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pin", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    parser.add_argument("--python", default=running_version(), help="a version, such as 3.11")
    arguments = parser.parse_args()
    named = [WORKLOADS[name] for name in arguments.workloads or WORKLOADS]
    chosen = [workload for workload in named if not workload.pinned_as]
    return not write_pins((w.name, w.wanted, arguments.python, w.pins(arguments.python)) for w in chosen)


if __name__ == "__main__":
    sys.exit(main())
