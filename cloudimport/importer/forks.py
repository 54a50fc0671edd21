"""Imports that other threads were in the midst of when this process was forked off.

Import budget: ``sys``, ``_thread``.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from importlib import _bootstrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def forget_others() -> None:
    """In a forked child: let those modules be imported anew.

    importlib has a lock for each module that is being imported, and a child whose parent's other threads held
    some would wait for threads that it does not have. That is so under pip too, for as long as reading a file
    takes; here a module may wait for the network.
    """
    locks: dict[str, Any] = getattr(_bootstrap, "_module_locks", {})
    own = get_ident()
    for name, reference in list(locks.items()):
        lock = reference()
        if getattr(lock, "owner", None) in (None, own):
            continue
        locks.pop(name, None)
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if getattr(spec, "_initializing", False):
            del sys.modules[name]
