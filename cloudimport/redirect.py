"""What is behind ``cloudimport.handler``: the environment is installed, the function's handler imported.

Lambda's runtime imports the module ``cloudimport`` and asks for its attribute ``handler``, at a time when
``sys.path`` is what it will be. What it gets is the function's own handler: nothing of ours is called when
the function is. Import budget: it is loaded in Lambda, instead of the handler.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

from cloudimport import settings
from cloudimport.bootstrap import install
from cloudimport.errors import CloudImportError, ConfigurationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping
    from typing import Any

    Handler = Callable[[Any, Any], Any]


def is_wanted() -> bool:
    """Whether ``cloudimport.handler`` is there: in Lambda, or where the variable is set."""
    return settings.is_redirected(os.environ)


def handler(environ: MutableMapping[str, str] = os.environ) -> Handler:
    """Install the environment and return the handler that ``CLOUDIMPORT_HANDLER`` names.

    What is wrong with the environment is raised as the runtime's own error, which it reports in one line as
    that of the function's initialisation; what is wrong with the handler as the runtime raises it for one
    of its own. Elsewhere than in that runtime it is a CloudImportError, or what the handler's module raises.
    """
    name = settings.handler_name(environ)
    try:
        if not name:
            raise ConfigurationError(
                f"the function's handler is {settings.REDIRECT}, and {settings.HANDLER} does not say which "
                "handler that stands for: set it, as to app.handler"
            )
        install()
    except CloudImportError as error:
        raise _fault(error) from error
    if environ.get("_HANDLER") == settings.REDIRECT:
        environ["_HANDLER"] = name  # for those who look at it, as tracers do
    return _found(name)


def _found(name: str) -> Handler:
    """Return a handler as the runtime does: its own function, if it is there, tells errors as ever."""
    find = getattr(sys.modules.get("awslambdaric.bootstrap"), "_get_handler", _get_handler)
    try:
        found: Handler = find(name)
    except AttributeError as error:  # of this the runtime would say that ``cloudimport`` has no ``handler``
        raise ImportError(f"{name} cannot be imported: AttributeError: {error}") from error
    return found


def _get_handler(name: str) -> Any:
    """Return ``module.function``; packages may be told with slashes (awslambdaric does so)."""
    module, _, function = name.rpartition(".")
    return getattr(import_module(module.replace("/", ".")), function)


def _fault(error: CloudImportError) -> Exception:
    """Return an error as the runtime reports one in a line, without a traceback into this package."""
    fault = getattr(sys.modules.get("awslambdaric.lambda_runtime_exception"), "FaultException", None)
    return error if fault is None else fault(type(error).__name__, str(error), None)
