"""Programs: executables in wheels, console scripts, ``python -m``, ``runpy``."""

import contextlib
import io
import os
import re
import runpy
import subprocess
import sys
import tempfile
import warnings

from behaviours.modules import module_names
from behaviours.record import digest, spread

_TIMEOUT = 120
#: Characters of output that are kept as they are; of all there is a digest.
_KEPT = 1500
_LAUNCHER = re.compile(r'(/bin/[\w.-]+", line )\d+')


def executables(subject, record):
    """Programs that the wheel brings, started by their path."""
    for file in spread(subject.programs, 12):
        record.check(file, run, [subject.path(file), "--version"])


def scripts(subject, record):
    """Console scripts, started by their path: ``--help`` and ``--version``."""
    for name in spread(subject.scripts, 12):
        for option in ("--help", "--version"):
            record.check(f"{name} {option}", run, [subject.path("bin/" + name), option])


def mains(subject, record):
    """``python -m`` of packages that have a main module."""
    for name in spread(subject.mains, 6):
        record.check(name, run, [sys.executable, "-W", "ignore", "-m", name, "--help"])
    for root in subject.roots[:1]:
        code = f"import {root} as m; print(m.__file__, m.__spec__.origin)"
        record.check("-c", run, [sys.executable, "-W", "ignore", "-c", code])


def run(command):
    """Run a program in a folder of its own; return its status and what it says."""
    with tempfile.TemporaryDirectory() as folder:
        env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            cwd=folder,
            env=env,
            check=False,
        )
        said = [text.decode(errors="replace").replace(folder, "<cwd>") for text in (done.stdout, done.stderr)]
    # pip and the shelf word launchers in their own ways, so that the call stands in another line.
    said = [_LAUNCHER.sub(r"\1…", text) for text in said]
    return [done.returncode] + [text if len(text) < _KEPT else [text[:_KEPT], digest(text)] for text in said]


def by_runpy(subject, record):
    """``runpy.run_module`` of modules and ``run_path`` of files, not as the main program."""
    packages = {os.path.dirname(file).replace("/", ".") for file in subject.files}
    modules = [
        n for n in module_names(subject) if n not in packages and "test" not in n and "__main__" not in n
    ]
    for name in spread(modules, 5):
        record.check("module " + name, _run, runpy.run_module, name)
    for file in spread([name.replace(".", "/") + ".py" for name in modules], 2):
        if file in subject.files:
            record.check("path " + file, _run, runpy.run_path, subject.path(file))


def _run(function, argument):
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        found = function(argument, run_name="conformance_run")
    return [found.get("__file__"), found.get("__cached__"), digest("\n".join(sorted(map(str, found))))]
