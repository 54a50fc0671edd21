"""Child interpreters see the environment too: subprocess, ``-m``, multiprocessing spawn and forkserver.

By a folder on ``PYTHONPATH`` whose ``sitecustomize`` installs what the parent installed, before any
of the child's own code runs. ``-S``, ``-E`` and ``-I`` turn that off, as they turn off every site
package. Import budget: ``os``, ``json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, MutableMapping
from typing import Any

from cloudimport.settings import CHILD

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bootstrap")


class Children:
    """Sets the environment variables that children inherit, and restores them."""

    def __init__(self, record: Mapping[str, Any], environ: MutableMapping[str, str]) -> None:
        self._record = record
        self._environ = environ

    def install(self) -> None:
        """Make children install the environment."""
        rest = self._path()
        self._environ["PYTHONPATH"] = os.pathsep.join([FOLDER, *rest])
        self._environ[CHILD] = json.dumps(self._record)

    def uninstall(self) -> None:
        """Leave ``PYTHONPATH`` as it would be without us."""
        self._environ.pop(CHILD, None)
        rest = self._path()
        if rest:
            self._environ["PYTHONPATH"] = os.pathsep.join(rest)
        else:
            self._environ.pop("PYTHONPATH", None)

    def _path(self) -> list[str]:
        value = self._environ.get("PYTHONPATH", "")
        return [entry for entry in value.split(os.pathsep) if entry != FOLDER] if value else []
