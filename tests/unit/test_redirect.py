"""``cloudimport.handler``: what Lambda's runtime gets for it, and what it is told when that cannot be had."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.support.children import Ran, Runner
from tests.support.shelves import MadeShelf, write_tree

APP = """
import demo

def main(event, context):
    return [demo.answer, event]

class Deep:
    pass
"""
#: What the runtime does (awslambdaric, bootstrap.py): the module, then its attribute.
RUNTIME = """
import importlib, os, sys, traceback
sys.path.insert(0, os.environ["LAMBDA_TASK_ROOT"])
module, name = "cloudimport", "handler"
try:
    handler = getattr(importlib.import_module(module), name)
    print(handler(1, None), handler is getattr(sys.modules["cloudimport"], name), os.environ["_HANDLER"])
except Exception as error:
    own = hasattr(error, "exception_type")
    kind = f"{type(error).__module__}.{type(error).__name__}"
    print(f"{kind}: {error.exception_type}: {error.msg}" if own else f"{kind}: {error}")
"""
#: With the modules of AWS' client in place, of which the error's and the handler's are used.
WITH_CLIENT = """
import sys
from awslambdaric import bootstrap, lambda_runtime_exception
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A function's folder, with a lockfile."""
    shelf = MadeShelf(tmp_path_factory.mktemp("redirect"))
    shelf.add("demo", "1", {"demo.py": "answer = 42\n"})
    shelf.environment()
    files = {
        "app.py": APP,
        "pkg/sub/app.py": APP,
        "broken.py": "import nowhere\n",
        "odd.py": "import os\nos.nothing\n",
        "bad.py": "def f(:\n",
        "raises.py": "raise ValueError('no')\n",
    }
    write_tree(shelf.work / "task", {**files, "cloudimport.lock": shelf.lock.read_text()})
    return shelf.work / "task"


@pytest.fixture
def call(task: Path, tmp_path: Path) -> Callable[..., Ran]:
    """A function that plays the runtime, in the function's folder, with variables."""

    def run(environ: Mapping[str, str], code: str = RUNTIME) -> Ran:
        fixed = {
            "LAMBDA_TASK_ROOT": str(task),
            "AWS_LAMBDA_FUNCTION_NAME": "f",
            "_HANDLER": "cloudimport.handler",
            "CLOUDIMPORT_CACHE": str(tmp_path / "cache"),
        }
        return Runner(tmp_path / "home").run(code, env={**fixed, **environ})

    return run


@pytest.mark.parametrize("name", ["app.main", "pkg/sub/app.main", "pkg/sub.app.main", " app.main "])
def test_handler(name: str, call: Callable[..., Ran]) -> None:
    """The function's own function, of a module that imports from the shelf; found once."""
    assert call({"CLOUDIMPORT_HANDLER": name}).ok() == f"[42, 1] True {name.strip()}"


_CANNOT = "builtins.ImportError: {} cannot be imported: AttributeError: module '{}' has no attribute '{}'"
_NO_NAME = """\
cloudimport.errors.ConfigurationError: the function's handler is cloudimport.handler, and \
CLOUDIMPORT_HANDLER does not say which handler that stands for: set it, as to app.handler"""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("broken.main", "builtins.ModuleNotFoundError: No module named 'nowhere'"),
        ("absent.main", "builtins.ModuleNotFoundError: No module named 'absent'"),
        ("odd.main", _CANNOT.format("odd.main", "os", "nothing")),
        ("app.other", _CANNOT.format("app.other", "app", "other")),
        ("raises.main", "builtins.ValueError: no"),
        ("", _NO_NAME),
        ("cloudimport.handler", _NO_NAME),
    ],
)
def test_errors(name: str, told: str, call: Callable[..., Ran]) -> None:
    """Never an AttributeError, of which the runtime would say that ``cloudimport`` has no ``handler``."""
    assert call({"CLOUDIMPORT_HANDLER": name}).ok() == told


FAULT = "awslambdaric.lambda_runtime_exception.FaultException: "


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        (
            {"CLOUDIMPORT_HANDLER": "broken.main"},
            "Runtime.ImportModuleError: Unable to import module 'broken': No module named 'nowhere'",
        ),
        ({"CLOUDIMPORT_HANDLER": "bad.f"}, "Runtime.UserCodeSyntaxError: Syntax error in module 'bad': "),
        (
            {"CLOUDIMPORT_HANDLER": "app.other"},
            "Runtime.HandlerNotFound: Handler 'other' missing on module 'app'",
        ),
        ({"CLOUDIMPORT_HANDLER": "app"}, "Runtime.MalformedHandlerName: Bad handler 'app': "),
        (
            {"CLOUDIMPORT_HANDLER": "app.main", "CLOUDIMPORT_LOCK": "/none"},
            "ConfigurationError: /none cannot be read: ",
        ),
        (
            {},
            "ConfigurationError: the function's handler is cloudimport.handler, and CLOUDIMPORT_HANDLER does",
        ),
    ],
)
def test_the_runtime_tells_them_as_its_own(
    environ: Mapping[str, str], told: str, call: Callable[..., Ran]
) -> None:
    """Where AWS' client is loaded, its function finds the handler, and errors are of its kind: one line."""
    said = call(environ, WITH_CLIENT + RUNTIME).ok()
    assert said.startswith(FAULT + told)
    assert "\n" not in said


def test_elsewhere_there_is_no_such_name(call: Callable[..., Ran]) -> None:
    """Outside of Lambda it is not there, and nothing is loaded; within, only what is asked for is."""
    code = """
        import os, sys
        del os.environ["AWS_LAMBDA_FUNCTION_NAME"]
        import cloudimport
        print(hasattr(cloudimport, "handler"), hasattr(cloudimport, "other"), "handler" in dir(cloudimport))
    """
    assert call({}, code).ok() == "False False False"
    code = "import cloudimport, sys; print('cloudimport.redirect' in sys.modules, 'os' in dir(cloudimport))"
    assert call({"CLOUDIMPORT_HANDLER": "app.main"}, code).ok() == "False False"
