"""Inside the sandbox: import modules one after the other and say what Python itself opened.

``python -I -S -B trace_import.py SITE PYC SECONDS`` with a JSON list of module names on standard
input. SITE is the folder with the packages, PYC the bytecode folder (``sys.pycache_prefix``),
SECONDS what one module may take. Standard output gets JSON lines: ``["begin", module]``,
``["end", module, error]``, ``["open", path]`` and ``["native", path]`` with paths below SITE. The
lines go out one by one, since a module may end the process at any moment.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def reporter() -> Callable[..., None]:
    """Take standard output away from the modules; return the function that reports on it."""
    descriptor = os.dup(1)
    empty = os.open(os.devnull, os.O_RDWR)
    os.dup2(empty, 0)
    os.dup2(empty, 1)
    os.close(empty)

    def report(*line: str, dumps: Any = json.dumps, write: Any = os.write) -> None:
        # Bound early: a module may replace what it finds in os and json.
        write(descriptor, dumps(line).encode() + b"\n")

    return report


def watch(site: str, report: Callable[..., None]) -> None:
    """Report the first time that Python opens a file below SITE or loads an extension module."""
    seen: set[tuple[str, str]] = set()
    start = site + os.sep

    normalise, join, decode, cwd = os.path.normpath, os.path.join, os.fsdecode, os.getcwd

    def note(kind: str, path: object) -> None:
        if isinstance(path, bytes):
            path = decode(path)
        if not isinstance(path, str):
            return
        path = normalise(path if path[:1] == "/" else join(cwd(), path))
        if path.startswith(start) and (kind, path) not in seen:
            seen.add((kind, path))
            report(kind, path[len(start) :])

    def hook(event: str, args: tuple[Any, ...]) -> None:
        # The "import" event names a file only when an extension module is about to be loaded.
        if event == "open":
            note("open", args[0])
        elif event == "import" and args[1]:
            note("native", args[1])

    sys.addaudithook(hook)


def try_import(name: str) -> str:
    """Import one module; return "" or the exception's text, one line."""
    try:
        importlib.import_module(name)
    except BaseException as error:  # noqa: BLE001 (whatever a package raises is the answer)
        try:
            text = f"{type(error).__name__}: {error}"
        except BaseException:  # noqa: BLE001 (so is what its exception raises when it is printed)
            text = type(error).__name__
        return "".join(c if c.isprintable() else " " for c in text[:300])
    return ""


def main() -> None:
    """Import each module and report."""
    site, pyc, seconds = sys.argv[1:4]
    names = json.load(sys.stdin)
    report = reporter()
    sys.argv[:] = [""]
    sys.pycache_prefix = pyc
    sys.path.append(site)
    watch(site, report)
    for name in names:
        report("begin", name)
        signal.setitimer(signal.ITIMER_REAL, float(seconds))
        error = try_import(name)
        signal.setitimer(signal.ITIMER_REAL, 0)
        report("end", name, error)
    # Threads and exit handlers of the packages are no part of the trace.
    os._exit(0)


if __name__ == "__main__":
    main()
