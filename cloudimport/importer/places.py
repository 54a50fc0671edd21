"""Where the finder and the site tree's root stand in ``sys``. Import budget: ``sys``."""

from __future__ import annotations

import sys


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
