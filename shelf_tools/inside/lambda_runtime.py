"""The Python runtime of a Lambda-like sandbox: what AWS' interface client does, on the standard library.

It speaks the Lambda Runtime API (version 2018-06-01), loads ``_HANDLER`` (``module.function``, called with
the event and a context; ``module.function(event)``, called with the event alone), and reports errors as
AWS' client for Python does.
"""

from __future__ import annotations

import http.client
import importlib
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

_VERSION = "/2018-06-01/runtime"
_LOG = "[%(levelname)s]\t%(asctime)s.%(msecs)dZ\t%(aws_request_id)s\t%(message)s"


class FaultError(Exception):
    """An error of the runtime's own: its type, and a text."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class _Identity:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self.cognito_identity_id = said.get("cognitoIdentityId")
        self.cognito_identity_pool_id = said.get("cognitoIdentityPoolId")


class _Client:
    _names = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")

    def __init__(self, said: Mapping[str, Any]) -> None:
        for name in self._names:
            setattr(self, name, said.get(name))


class _ClientContext:
    def __init__(self, said: Mapping[str, Any]) -> None:
        self.custom, self.env = said.get("custom"), said.get("env")
        self.client = _Client(said["client"]) if "client" in said else None


class Context:
    """What a handler gets beside the event ("Using the Lambda context object", Lambda Developer Guide)."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        environ = os.environ
        self.aws_request_id = headers.get("Lambda-Runtime-Aws-Request-Id", "")
        self.invoked_function_arn = headers.get("Lambda-Runtime-Invoked-Function-Arn", "")
        self.function_name = environ.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = environ.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = environ.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environ.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.tenant_id = headers.get("Lambda-Runtime-Aws-Tenant-Id")
        said = headers.get("Lambda-Runtime-Client-Context")
        self.client_context = _ClientContext(json.loads(said)) if said else None
        self.identity = _Identity(json.loads(headers.get("Lambda-Runtime-Cognito-Identity") or "{}"))
        self._deadline = int(headers.get("Lambda-Runtime-Deadline-Ms") or 0)

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds that are left until the invocation is ended, 0 at the least."""
        return max(0, self._deadline - int(time.time() * 1000))

    def log(self, text: object) -> None:
        """Write to the function's log."""
        print(text, flush=True)

    def __repr__(self) -> str:
        names = sorted(name for name in vars(self) if not name.startswith("_"))
        return f"LambdaContext([{','.join(f'{name}={getattr(self, name)}' for name in names)}])"


class _Api:
    """One connection to the Runtime API, kept open; a sandbox that was frozen for long connects anew."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address)

    def call(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        for is_last in (False, True):
            try:
                self._connection.request(method, _VERSION + path, body, dict(headers or {}))
                answer = self._connection.getresponse()
                return answer.status, dict(answer.headers), answer.read()
            except (http.client.HTTPException, ConnectionError):
                self._connection.close()
                if is_last:
                    raise
        raise AssertionError

    def fail(self, path: str, error: dict[str, Any]) -> None:
        """Report an error; ``path`` says of what."""
        headers = {"Lambda-Runtime-Function-Error-Type": error["errorType"]}
        self.call("POST", path, json.dumps(error).encode(), headers)


class _Requests(logging.Filter):
    """Tells the log which request a record belongs to."""

    request = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say it."""
        record.aws_request_id = _Requests.request
        return True


def _log_to_stdout() -> None:
    handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(_LOG, "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    handler.addFilter(_Requests())
    logging.getLogger().addHandler(handler)
    level = os.environ.get("AWS_LAMBDA_LOG_LEVEL", "")
    if level in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"):
        logging.getLogger().setLevel({"TRACE": "DEBUG"}.get(level, level))


def load(name: str) -> Callable[[Any, Any], Any]:
    """Return the function that ``_HANDLER`` names, called with event and context. Raises FaultError."""
    alone = name.endswith("(event)")
    module_name, dot, attribute = name.removesuffix("(event)").rpartition(".")
    if not dot:
        raise FaultError("Runtime.MalformedHandlerName", f"Bad handler '{name}': not enough values to unpack")
    try:
        module = importlib.import_module(module_name.replace("/", "."))
    except ImportError as error:
        traceback.print_exc()
        text = f"Unable to import module '{module_name}': {error}"
        raise FaultError("Runtime.ImportModuleError", text) from error
    except SyntaxError as error:
        traceback.print_exc()
        text = f"Syntax error in module '{module_name}': {error}"
        raise FaultError("Runtime.UserCodeSyntaxError", text) from error
    function: Callable[..., Any] | None = getattr(module, attribute, None)
    if function is None:
        text = f"Handler '{attribute}' missing on module '{module_name}'"
        raise FaultError("Runtime.HandlerNotFound", text)
    return (lambda event, _: function(event)) if alone else function


def _error(error: Exception) -> dict[str, Any]:
    """Return an error as AWS tells it, and write it to the log."""
    if isinstance(error, FaultError):
        said: dict[str, Any] = {"errorMessage": str(error), "errorType": error.kind, "stackTrace": []}
    else:
        # Less what is ours: the trace begins in the function's own code.
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
        trace = traceback.format_list(own)
        said = {"errorMessage": _text(error), "errorType": type(error).__name__, "stackTrace": trace}
    said["requestId"] = _Requests.request
    lines = "".join(said["stackTrace"])
    head = f"[ERROR] {said['errorType']}: {said['errorMessage']}"
    print(f"{head}\nTraceback (most recent call last):\n{lines}" if lines else head, flush=True)
    return said


def _text(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (a function's own class may do anything)
        return f"<{type(error).__name__} that cannot be shown>"


def _plain(value: object) -> float:
    """Return what JSON has for a value of another kind. Raises TypeError."""
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return float(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _answer(function: Callable[[Any, Any], Any], body: bytes, context: Context) -> bytes:
    """Call the function; returns its answer as JSON. Raises what it raises, and FaultError."""
    try:
        event = json.loads(body or b"null")
    except ValueError as error:
        raise FaultError("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
    result = function(event, context)
    try:
        return json.dumps(result, ensure_ascii=False, default=_plain).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as error:
        raise FaultError("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def _invoke(api: _Api, function: Callable[[Any, Any], Any]) -> None:
    _, headers, body = api.call("GET", "/invocation/next")
    context = Context(headers)
    request = _Requests.request = context.aws_request_id
    os.environ["_X_AMZN_TRACE_ID"] = headers.get("Lambda-Runtime-Trace-Id", "")
    try:
        answer = _answer(function, body, context)
    except Exception as error:  # noqa: BLE001 (what a function raises is its answer)
        _flush()
        api.fail(f"/invocation/{request}/error", _error(error))
        return
    _flush()
    status, _, said = api.call("POST", f"/invocation/{request}/response", answer)
    if status == 413:
        fault = FaultError("Function.ResponseSizeTooLarge", json.loads(said)["errorMessage"])
        api.fail(f"/invocation/{request}/error", _error(fault))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # the function closed it


def main(prepare: Callable[[], None]) -> None:
    """Serve invocations for good. ``prepare`` is called first; what it raises is an error of the start."""
    api = _Api(os.environ["AWS_LAMBDA_RUNTIME_API"])
    _log_to_stdout()
    try:
        prepare()
        function = load(os.environ["_HANDLER"])
    except Exception as error:  # noqa: BLE001 (likewise)
        _flush()
        api.fail("/init/error", _error(error))
        sys.exit(1)
    while True:
        _invoke(api, function)
