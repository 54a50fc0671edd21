"""The native helper: files appear for C code too (``cloudimport/_native.c``), where it was built.

Without it everything else works; what C code opens by itself must then be there before
(docs/semantics.md, "Where it falls short"). Import budget: ``os``, ``sys``, and the helper: 0.3 ms.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType

from cloudimport.format import jsontext
from cloudimport.settings import CHILD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

#: Starts the filler without a look at ``sys.path``, where a handler may have another ``cloudimport``.
_FILLER = """\
import sys
sys.path[:] = filter(None, sys.path)  # not the current folder
import os
for descriptor in map(int, os.listdir("/proc/self/fd")):  # the program's own, which it may want to see closed
    if descriptor > 2:
        try:
            os.close(descriptor)
        except OSError:
            pass
from importlib.util import module_from_spec, spec_from_file_location
folder = sys.argv.pop()
spec = spec_from_file_location("cloudimport", folder + "/__init__.py", submodule_search_locations=[folder])
module = sys.modules["cloudimport"] = module_from_spec(spec)
spec.loader.exec_module(module)
from cloudimport.filler import main
main()
"""
#: Seconds that a question may take beyond what a fetch may: the filler's start on a busy machine.
_START_SECONDS = 30.0


class Helper:
    """The helper of one environment; ``load`` makes it."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def install(self, root: str, index: bytes, record: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        """Hook this process for the site tree at ``root``.

        ``record`` is what children install from, ``environ`` what the filler gets (a store's credentials).
        """
        environ = {**environ, CHILD: jsontext.dumps(record)}
        argv = [sys.executable, *_flags(environ), "-c", _FILLER, record["runtime"]]
        self._before = self._module.counts()
        self._module.install(
            os.fsencode(root),
            index,
            [os.fsencode(argument) for argument in argv],
            [os.fsencode(f"{name}={value}") for name, value in environ.items()],
            int((record["deadline"] + _START_SECONDS) * 1000),
        )

    def touched(self) -> list[str]:
        """Return what C code has changed, removed or made in the tree since the last time."""
        found: list[str] = self._module.touched()
        return found

    def touch(self, relative: str) -> None:
        """Have the hooks leave what is at a path as it is."""
        self._module.touch(os.fsencode(relative))

    def counts(self) -> dict[str, int]:
        """Return what was done for C code since ``install``: requests, bytes fetched, files written."""
        names = ("files_written", "requests", "bytes_fetched")
        return {
            name: now - before
            for name, now, before in zip(names, self._module.counts(), self._before, strict=True)
        }

    def uninstall(self) -> None:
        """Make the hooks pass everything through."""
        self._module.uninstall()


def _flags(environ: dict[str, str]) -> list[str]:
    """Return how the filler's interpreter is started: with the standard library, and nothing besides.

    An interpreter that needs ``PYTHONHOME`` does not start without it.
    """
    utf8 = ["-X", "utf8"] if sys.flags.utf8_mode else []
    if "PYTHONHOME" not in environ or sys.flags.ignore_environment:
        return ["-I", *utf8]
    for name in [name for name in environ if name.startswith("PYTHON") and name != "PYTHONHOME"]:
        del environ[name]
    return ["-s", *utf8]


def load() -> Helper | None:
    """Return the helper, or None where there is none, or nothing to start its filler with."""
    if not sys.executable or getattr(sys, "frozen", False):
        return None  # an embedded or frozen interpreter has no program to start the filler with
    module = native_module()
    return Helper(module) if module is not None else None


def native_module() -> ModuleType | None:
    """Return the extension module, or None where it was not built, or this is another kind of Python."""
    try:
        return import_module("cloudimport._native")
    except ImportError:
        return None
