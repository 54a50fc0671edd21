"""``python -m tests.bench.pin [WORKLOAD …]``: resolve the workloads anew and write their pins."""

from __future__ import annotations

import argparse
import sys

from tests.bench.workloads import WORKLOADS
from tests.support.resolving import resolve
from tests.support.runtimes import running_version


def main() -> int:
    """Resolve the workloads that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pin", description=__doc__)
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD")
    parser.add_argument("--python", default=running_version(), help="a version, such as 3.11")
    arguments = parser.parse_args()
    failed = []
    for name in arguments.workloads or WORKLOADS:
        pins = resolve(WORKLOADS[name].wanted, arguments.python)
        if pins is None:
            failed.append(name)
            continue
        path = WORKLOADS[name].pins(arguments.python)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(pins)
        sys.stdout.write(f"{name}: {pins.count('==')} distributions\n")
    for name in failed:
        sys.stderr.write(f"not resolved: {name}\n")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
