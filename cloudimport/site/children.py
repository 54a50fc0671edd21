"""Child interpreters see the environment too: subprocess, ``-m``, multiprocessing spawn and forkserver.

By a folder on ``PYTHONPATH`` whose ``sitecustomize`` installs what the parent installed, before any
of the child's own code runs. ``-S``, ``-E`` and ``-I`` turn that off, as they turn off every site
package. Import budget: ``os``.
"""

from __future__ import annotations

import os

from cloudimport.format import jsontext
from cloudimport.settings import CHILD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from typing import Any

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")


def completed(environ: Mapping[Any, Any]) -> dict[bytes, bytes] | None:
    """Return a child's environment with our folder on ``PYTHONPATH``; None if nothing has to be added.

    A program that gives its children ``os.pathsep.join(sys.path)`` leaves that out, since it is not there.
    What is no environment is left for the function that it is meant for.
    """
    try:
        found = {os.fsencode(name): os.fsencode(value) for name, value in environ.items()}
    except (AttributeError, TypeError, ValueError):
        return None
    path, ours = found.get(b"PYTHONPATH", b""), os.fsencode(FOLDER)
    if CHILD.encode() not in found or ours in path.split(os.pathsep.encode()):
        return None
    return {**found, b"PYTHONPATH": ours + (os.pathsep.encode() + path if path else b"")}


class Children:
    """Sets the environment variables that children inherit, and restores them."""

    def __init__(self, record: Mapping[str, Any], environ: MutableMapping[str, str]) -> None:
        self._record = record
        self._environ = environ
        self._before: str | None = None
        self._ours = ""

    def install(self) -> None:
        """Make children install the environment."""
        self._before = self._environ.get("PYTHONPATH")
        self._ours = os.pathsep.join([FOLDER, *self._path()])
        self._environ["PYTHONPATH"] = self._ours
        self._environ[CHILD] = jsontext.dumps(self._record)

    def uninstall(self) -> None:
        """Leave ``PYTHONPATH`` as it would be without us."""
        self._environ.pop(CHILD, None)
        before = self._before
        if self._environ.get("PYTHONPATH") != self._ours or FOLDER in (before or "").split(os.pathsep):
            before = os.pathsep.join(self._path()) or None  # changed meanwhile, or inherited
        if before is None:
            self._environ.pop("PYTHONPATH", None)
        else:
            self._environ["PYTHONPATH"] = before

    def _path(self) -> list[str]:
        value = self._environ.get("PYTHONPATH", "")
        return [entry for entry in value.split(os.pathsep) if entry != FOLDER] if value else []
