"""Inside the sandbox: import modules one after the other and say what Python itself opened.

``python -I -S -B trace_import.py SITE PYC SECONDS WHAT`` with a JSON list of module names on standard
input. SITE is the folder with the packages, PYC the bytecode folder (``sys.pycache_prefix``),
SECONDS what one module may take. Standard output gets JSON lines: ``["begin", module]``,
``["end", module, error]`` and, with paths below SITE, for WHAT ``opens`` ``["open", path]`` and
``["native", path]``, for ``imports`` ``["imports", path, path]``. The lines go out one by one, since a
module may end the process at any moment.
"""

from __future__ import annotations

import builtins
import importlib
import json
import os
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType
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


class Graph:
    """Which module imports which while it runs: by its statements, by ``import_module``, or out of C.

    What a function imports counts for the module whose import has called it.
    """

    def __init__(self, site: str, report: Callable[..., None]) -> None:
        self._start, self._report = site + os.sep, report
        self._pairs: dict[tuple[str, str], None] = {}
        self._reported: set[tuple[str, str]] = set()
        self._import = builtins.__import__
        builtins.__import__ = self._traced
        self._import_module = importlib.import_module
        importlib.import_module = self._traced_module
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Hear of a module that is not loaded yet; finds nothing."""
        self._pairs[self._running(), name] = None

    def _traced(self, name: str, *others: Any, **named: Any) -> Any:
        found = self._import(name, *others, **named)
        given = {**dict(zip(("globals", "locals", "fromlist", "level"), others, strict=False)), **named}
        fromlist, level = given.get("fromlist") or (), given.get("level") or 0
        if level:
            package = (given.get("globals") or {}).get("__package__") or ""
            for _ in range(level - 1):
                package = package.rpartition(".")[0]
            name = f"{package}.{name}" if name else package
        running = self._running()
        self._pairs[running, name] = None
        for item in fromlist:
            self._pairs[running, f"{name}.{item}"] = None
        return found

    def _traced_module(self, name: str, package: str | None = None) -> ModuleType:
        found = self._import_module(name, package)
        self._pairs[self._running(), str(getattr(found, "__name__", ""))] = None
        return found

    @staticmethod
    def _running() -> str:
        """Return the file of the module that runs, "" for none."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            if code.co_name == "<module>":
                return str(frame.f_globals.get("__file__") or "")
            if code.co_name == "_load_unlocked" and code.co_filename == "<frozen importlib._bootstrap>":
                return str(frame.f_locals["spec"].origin or "")  # an extension module has no frame
            frame = frame.f_back
        return ""

    def flush(self) -> None:
        """Report what was not reported yet."""
        start = self._start
        for file, name in self._pairs:
            other = getattr(sys.modules.get(name), "__file__", None)
            if isinstance(other, str) and file.startswith(start) and other.startswith(start):
                pair = file[len(start) :], other[len(start) :]
                if pair not in self._reported:
                    self._reported.add(pair)
                    self._report("imports", *pair)
        self._pairs.clear()


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
    site, pyc, seconds, what = sys.argv[1:5]
    names = json.load(sys.stdin)
    report = reporter()
    sys.argv[:] = [""]
    sys.pycache_prefix = pyc
    sys.path.append(site)
    graph = Graph(site, report) if what == "imports" else None
    if graph is None:
        watch(site, report)
    for name in names:
        report("begin", name)
        signal.setitimer(signal.ITIMER_REAL, float(seconds))
        error = try_import(name)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if graph is not None:
            graph.flush()
        report("end", name, error)
    # Threads and exit handlers of the packages are no part of the trace.
    os._exit(0)


if __name__ == "__main__":
    main()
