"""What is said of a cold start, in one line of JSON on standard error; and what a process has loaded.

The line comes when the first imports have become quiet, from a thread that no import waits for, and not
only at exit: Lambda freezes a process between invocations, and never ends it (docs/decisions/0029). With a
namespace it has metrics in CloudWatch's embedded format, by its specification. This is loaded by that thread,
and where nobody wants it not at all. Import budget: nothing of its own.
"""

from __future__ import annotations

import os
import sys
import time
from _thread import allocate_lock

from cloudimport.format import jsontext
from cloudimport.format.records import FORMAT
from cloudimport.importer.loader import FromTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    from cloudimport.fetch.engine import Fetcher
    from cloudimport.importer.bursts import Bursts
    from cloudimport.settings import Watching
    from cloudimport.site.tree import SiteTree

#: Imports are through when for so long (seconds by the wall clock, which goes on in a frozen sandbox) none is
#: under way; how often that is looked for.
_QUIET, _LOOK = 0.25, 0.05
#: After so long there is a line all the same, and another when imports are through: Lambda ends an
#: initialisation of 10 seconds, and what was slow about it should be known.
_TOO_LONG = 9.0
#: The unit of each metric, as CloudWatch names it.
_METRICS = {
    "requests": "Count",
    "bytes_fetched": "Bytes",
    "cache_hits": "Count",
    "cache_misses": "Count",
    "bytes_written": "Bytes",
    "bytes_cached": "Bytes",
    "install_seconds": "Seconds",
    "import_seconds": "Seconds",
    "wait_seconds": "Seconds",
    "packages": "Count",
    "modules": "Count",
}


class Observer:
    """Tells of one environment's cold start. Thread-safe."""

    def __init__(
        self,
        watching: Watching,
        environ: Mapping[str, str],
        tree: SiteTree,
        whence: str,
        bursts: Bursts,
        stats: Callable[[], Mapping[str, float]],
        installing: float,
    ) -> None:
        """``whence``: the shelf's URL, told without a password; ``installing``: seconds of ``install()``."""
        self._watching, self._environ, self._tree, self._whence = watching, environ, tree, _public(whence)
        self._bursts, self._stats, self._installing = bursts, stats, installing
        self._owner = os.getpid()
        self._lock = allocate_lock()
        self._is_told = False

    def watch(self, fetcher: Fetcher, is_over: Callable[[], bool]) -> None:
        """Wait until imports are through, and tell. For a thread of its own. ``is_over``: nobody cares."""
        began = quiet = time.time()
        modules = -1
        while not is_over():
            before, modules = modules, len(sys.modules)
            now = time.time()
            if before != modules or self._bursts.is_inside or fetcher.is_busy or is_importing():
                quiet = now
                if now - began > _TOO_LONG:
                    began = float("inf")
                    self._say(is_complete=False)
            elif not 0 <= now - quiet < _QUIET:
                return self.tell()
            time.sleep(_LOOK)
        return None

    def tell(self) -> None:
        """Say what there is to say, unless that was done, or another process is to do it."""
        with self._lock:
            is_told, self._is_told = self._is_told, True
        if not is_told and os.getpid() == self._owner:
            self._say(is_complete=True)

    def at_exit(self) -> None:
        """Tell if nothing was told, and write down what was loaded until now."""
        self.tell()
        if os.getpid() == self._owner:
            self._write_loaded()

    def _say(self, *, is_complete: bool) -> None:
        if self._watching.line:
            say(self.line(is_complete=is_complete))
        self._write_loaded()

    def line(self, *, is_complete: bool = True) -> dict[str, Any]:
        """Return what there is to say: bytes are bytes, seconds seconds, the rest counts."""
        pins, modules = loaded(self._tree), _modules(self._tree)
        found = {
            **_head("INFO", "cold start"),
            "function": self._environ.get("AWS_LAMBDA_FUNCTION_NAME") or _program(),
            "function_version": self._environ.get("AWS_LAMBDA_FUNCTION_VERSION", ""),
            "initialization": self._environ.get("AWS_LAMBDA_INITIALIZATION_TYPE", ""),
            "python": sys.version.partition(" ")[0],
            "environment": self._tree.index.digest,
            "target": self._tree.index.target,
            "shelf": self._whence,
            "complete": is_complete,
            **{name: round(value, 6) for name, value in self._stats().items()},
            "install_seconds": round(self._installing, 6),
            "import_seconds": round(self._bursts.seconds, 6),
            "disk_free": _free(self._tree.root),
            "packages": len(pins),
            "modules": sum(modules.values()),
            "loaded": pins,
        }
        return {**found, **_metrics(self._watching.metrics)} if self._watching.metrics else found

    def _write_loaded(self) -> None:
        """Write down what was loaded; a file that cannot be written is no reason to end in an error."""
        path = self._watching.loaded
        if not path:
            return
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(jsontext.dumps(record(self._tree, self._whence)) + "\n")
        except OSError as error:
            _write(f"cloudimport: CLOUDIMPORT_LOADED={path}: {error.strerror}\n")


def _public(url: str) -> str:
    """Return a URL without user and password: the line goes to a log."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"


def is_importing() -> bool:
    """Whether any thread is in the midst of an import, be it of the handler's own modules."""
    return any(map(_imports, list(sys._current_frames().values())))


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "_find_and_load" and frame.f_globals.get("__name__") == _IMPORTLIB:
            return True
        frame = frame.f_back
    return False


_IMPORTLIB = "importlib._bootstrap"


def loaded(tree: SiteTree) -> dict[str, str]:
    """Return the pins of which code was run, as ``name==version``, sorted, each with its content digest."""
    builds = [tree.index.builds[build] for build in tree.active]
    return {str(build.pin): build.content for build in sorted(builds, key=lambda one: one.pin)}


def record(tree: SiteTree, whence: str) -> dict[str, Any]:
    """Return what was loaded as it is written down (docs/observing.md)."""
    return {
        "format": FORMAT,
        "kind": "loaded",
        "environment": tree.index.digest,
        "target": tree.index.target,
        "shelf": whence,
        "loaded": loaded(tree),
        "modules": _modules(tree),
    }


def _modules(tree: SiteTree) -> dict[str, int]:
    """Return how many modules of each pin are loaded now."""
    found: dict[str, int] = {}
    for module in list(sys.modules.values()):
        try:  # not by attributes: a lazy module would load itself, and what else lies there may do anything
            loader = object.__getattribute__(module, "__dict__").get("__loader__")
        except (AttributeError, TypeError):
            continue
        pin = loader.pin_in(tree) if isinstance(loader, FromTree) else None
        if pin is not None:
            found[str(pin)] = found.get(str(pin), 0) + 1
    return dict(sorted(found.items()))


def fetched(key: str, start: int, began: float) -> Callable[[int, float], None]:
    """Say of a read of the store what it brought: for ``sources.timing``."""

    def end(size: int, moment: float) -> None:
        outcome = {"failed": True} if size < 0 else {"bytes": size}
        seconds = round(moment - began, 6)
        say({**_head("DEBUG", "read"), "key": key, "start": start, **outcome, "seconds": seconds})

    return end


def _head(level: str, message: str) -> dict[str, str]:
    """Return what Lambda's own lines of JSON begin with."""
    now = time.time()
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    stamp = f"{seconds}.{int(now * 1000) % 1000:03}Z"
    return {"timestamp": stamp, "level": level, "logger": "cloudimport", "message": message}


def _metrics(namespace: str) -> dict[str, Any]:
    """Return what makes metrics of a line (Embedded metric format specification, Amazon CloudWatch)."""
    directive = {
        "Namespace": namespace,
        "Dimensions": [["function"]],
        "Metrics": [{"Name": name, "Unit": unit} for name, unit in _METRICS.items()],
    }
    return {"_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}}


def _program() -> str:
    argv = getattr(sys, "argv", None)
    return os.path.basename(argv[0]) if argv and argv[0] else "python"


def _free(folder: str) -> int:
    """Return the bytes that are free where ``folder`` is, -1 if there is no such folder."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return -1
    return found.f_bavail * found.f_frsize


def say(line: Mapping[str, Any]) -> None:
    """Write a line of JSON to standard error, as one."""
    _write(jsontext.dumps(line) + "\n")


def _write(text: str) -> None:
    try:
        # Not through the stream: a thread that holds its lock when the process ends makes Python abort.
        number = sys.stderr.fileno()
        data = text.encode("utf-8", "backslashreplace")
        while data:
            data = data[os.write(number, data) :]
    except (AttributeError, OSError, ValueError):
        pass  # there is none, or it is closed
