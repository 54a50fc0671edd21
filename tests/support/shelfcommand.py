"""Running the ``shelf`` command as a user does, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.children import REPOSITORY, Ran

#: Seconds; publishing sixty real packages takes about 150 on two cores.
_TIMEOUT = 900
#: What the developer's environment says about where packages come from, and how, is kept.
_KEPT = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "HOME", "XDG_CACHE_HOME")
_KEPT_PREFIXES = ("PIP_", "UV_")
_KEPT_SUFFIXES = ("_PROXY", "_proxy")


def publisher_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which an index can be reached, and no cloud is configured."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or name.startswith(_KEPT_PREFIXES) or name.endswith(_KEPT_SUFFIXES)
    }
    return {**kept, "PYTHONPATH": str(REPOSITORY), **(extra or {})}


def run_shelf(*arguments: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
    """Run ``shelf`` with ``arguments``."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from shelf_tools.cli import main; sys.exit(main())",
            *map(str, arguments),
        ],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env=publisher_environment(env),
        cwd=cwd,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)
