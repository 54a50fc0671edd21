"""Libraries of the curator's extra, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

from cloudimport.errors import ConfigurationError


def load(name: str, purpose: str) -> Any:
    """Return the module ``name``. Raises ConfigurationError if it is not installed.

    As ``Any``: whether a library's stubs are installed differs between machines.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise ConfigurationError(f"{purpose} needs {package}: pip install {package} ({error})") from error
