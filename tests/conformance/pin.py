"""``python -m tests.conformance.pin [GROUP …]``: resolve the corpus anew and write its pins.

The index is whatever uv has been told to use; nothing of that is written down.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.conformance.groups import VERSIONS, Group, pins_file, read_groups
from tests.support.runtimes import find_python

_HEADER = "# Made by `python -m tests.conformance.pin` from packages.toml.\n"


def main() -> int:
    """Resolve the groups that are named, or all, for each Python."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.pin", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP")
    parser.add_argument("--python", default=",".join(VERSIONS), help="versions, such as 3.11,3.12")
    arguments = parser.parse_args()
    groups = read_groups()
    failed = []
    for version in arguments.python.split(","):
        for name in arguments.groups or groups:
            pins = resolve(groups[name], version)
            if pins is None:
                failed.append(f"{name} for Python {version}")
                continue
            pins_file(name, version).write_text(_HEADER + pins)
            sys.stdout.write(f"{name} for Python {version}: {pins.count('==')} distributions\n")
    for line in failed:
        sys.stderr.write(f"not resolved: {line}\n")
    return bool(failed)


def resolve(group: Group, version: str) -> str | None:
    """Return pins of a group with all dependencies, wheels only; None (and uv's words) if there are none."""
    python = find_python(version)
    if python is None:
        sys.stderr.write(f"there is no CPython {version} on this machine\n")
        return None
    uv = str(Path(sys.executable).with_name("uv"))
    done = subprocess.run(
        [uv, "pip", "compile", "-", "--python", python, "--only-binary", ":all:"]
        + ["--quiet", "--no-header", "--no-annotate", "--no-python-downloads"],
        input="\n".join(group.wanted),
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
