"""Starting helper processes, where libraries run that must not stand in this process's modules.

A helper is a script beside this module, run by ``python -I -S``: no ``sitecustomize`` (ours
would install cloudimport again), no ``.pth``; its ``sys.path`` is handed to it. Import budget:
``os``, ``sys``; the caller imports ``subprocess``.
"""

from __future__ import annotations

import os
import sys

from cloudimport.errors import ConfigurationError
from cloudimport.sources.config import SourceConfig

#: Runs a script as Python would, but by its bytecode, if there is any: a script by itself is always compiled.
_RUN = """\
import sys
from importlib.machinery import SourceFileLoader
del sys.argv[0]
exec(SourceFileLoader("__main__", sys.argv[0]).get_code("__main__"))
"""


def helper_path(config: SourceConfig) -> list[str]:
    """Return ``sys.path`` for a helper process."""
    return [entry for entry in (config.helper_path or sys.path) if entry]


def helper_command(script: str, *arguments: str) -> list[str]:
    """Return the command line that runs ``script`` of this folder. Raises ConfigurationError."""
    if not sys.executable:
        raise ConfigurationError("cannot start a helper process: sys.executable is not set")
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), script)
    return [sys.executable, "-I", "-S", "-c", _RUN, path, *arguments]
