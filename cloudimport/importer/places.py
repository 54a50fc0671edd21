"""Where the finder and the site tree's root stand in ``sys``, and what stands there besides.

Import budget: ``os``, ``sys``.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def path_position(path: list[str]) -> int:
    """Return where the site tree goes: after the handler and the standard library, before site-packages.

    In Lambda the runtime's own packages and the layers' stand before the standard library; the
    site tree goes before them.
    """
    for at, entry in enumerate(path):
        parts = entry.split("/")
        if (
            "site-packages" in parts
            or "dist-packages" in parts
            or entry.startswith(("/opt/python", "/var/runtime"))
        ):
            return at
    return len(path)


def finder_position() -> int:
    """Return where the finder goes on ``sys.meta_path``: before PathFinder."""
    from importlib.machinery import PathFinder

    return sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)


def is_installed(name: str, tops: Iterable[str]) -> bool:
    """Whether a distribution lies in a folder of ``sys.path``: its metadata, or a package or module of it.

    ``name`` is normalised; ``tops`` are the top-level files and folders that the shelf's build has.
    """
    modules = [top for top in tops if top.endswith(".py")]
    packages = [f"{top}/__init__.py" for top in tops if "." not in top]
    for entry in sys.path:
        if any(os.path.isfile(os.path.join(entry, path)) for path in (*modules, *packages)):
            return True
        try:
            found = os.listdir(entry or ".")
        except OSError:
            continue
        infos = (n.partition("-")[0] for n in found if n.endswith((".dist-info", ".egg-info")))
        if name in (info.lower().replace("_", "-").replace(".", "-") for info in infos):
            return True
    return False
