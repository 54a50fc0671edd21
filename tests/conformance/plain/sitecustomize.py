"""Puts the pip-installed folder where a shelf's site tree stands: just before site-packages.

This folder stands on PYTHONPATH of the interpreters that have the packages from pip, as that of
``cloudimport`` does for those that have them from the shelf, and takes itself off ``sys.path`` likewise.
"""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
at = next((at for at, entry in enumerate(sys.path) if "site-packages" in entry.split("/")), len(sys.path))
sys.path.insert(at, os.environ["CONFORMANCE_ROOT"])
