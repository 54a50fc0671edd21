"""``shelf trace``: a program or handler run once, with an empty cache, to see what it needs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cloudimport
from cloudimport.errors import ConfigurationError

#: Runs ``program`` as ``python program …`` would; with an event as Lambda calls a handler.
_RUN = """\
import sys
import cloudimport
program, handler, event, *arguments = sys.argv[1:]
import os
sys.path.insert(0, os.path.dirname(os.path.abspath(program)))
sys.argv[:] = [program, *arguments]
cloudimport.install()
import runpy
if not event:
    runpy.run_path(program, run_name="__main__")
else:
    import json
    module = runpy.run_path(program, run_name=os.path.basename(program).partition(".")[0])
    names = [handler] if handler else ["handler", "lambda_handler"]
    found = [name for name in names if name in module]
    if not found:
        sys.exit(f"{program} has no function {' or '.join(names)}")
    print(json.dumps(module[found[0]](json.loads(event), None), default=repr))
"""


class Rehearsal(NamedTuple):
    """What to run: a Python file; with an ``event`` (JSON text) its function ``handler`` is called with it.

    ``shelf`` is "" if the lockfile says where it is. ``output`` is the trace to write.
    """

    program: Path
    arguments: Sequence[str]
    handler: str
    event: str
    lock: Path
    shelf: str
    output: Path


def run(rehearsal: Rehearsal, environ: Mapping[str, str]) -> int:
    """Run it, with its output where ours goes; return its exit status. Raises ConfigurationError."""
    if not rehearsal.program.is_file():
        raise ConfigurationError(f"{rehearsal.program} is not a file: give the program or the handler's file")
    try:
        json.loads(rehearsal.event or "null")
    except ValueError as error:
        raise ConfigurationError(f"the event is not JSON: {error}") from None
    rehearsal.output.unlink(missing_ok=True)
    runtime = str(Path(cloudimport.__file__).parents[1])
    path = [runtime, *filter(None, [environ.get("PYTHONPATH", "")])]
    with tempfile.TemporaryDirectory(prefix="shelf-trace-") as cache:
        done = subprocess.run(
            [sys.executable, "-c", _RUN, str(rehearsal.program), rehearsal.handler, rehearsal.event]
            + list(rehearsal.arguments),
            env={
                **environ,
                "PYTHONPATH": os.pathsep.join(path),
                "CLOUDIMPORT_CACHE": cache,
                "CLOUDIMPORT_LOCK": str(rehearsal.lock),
                "CLOUDIMPORT_TRACE": str(rehearsal.output),
                **({"CLOUDIMPORT_SHELF": rehearsal.shelf} if rehearsal.shelf else {}),
            },
            check=False,
        )
    return done.returncode
