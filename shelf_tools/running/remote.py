"""Functions run by a deployed runner (``lambda_layer/runner.py``), through Lambda's Invoke API.

"Invoke", AWS Lambda API reference: a synchronous event has at most 6 MB, and so has its answer; of the log
the last 4 KB come back.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from typing import Any

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.ids import Target
from lambda_layer import runner
from shelf_tools.running.executing import FunctionError, Ran, outcome
from shelf_tools.running.functions import Program
from shelf_tools.running.settling import Ready
from shelf_tools.stores.libraries import load

#: Seconds to wait for an answer: a function of Lambda's ends after 15 minutes.
_PATIENCE = 910
#: As a runner's template has it.
_HANDLER = "runner.handler"


class InvokeError(CloudImportError):
    """Lambda did not run a function: it, the network or the runner's set-up says why."""


class RemoteRunner:
    """A deployed runner, by its function's name or ARN. May be used by several threads.

    ``relay`` hears the end of a function's log, line by line, ``note`` what Lambda says of the start.
    """

    def __init__(
        self,
        function: str,
        endpoint: str,
        program: Program,
        relay: Callable[[str, str], None],
    ) -> None:
        """Raises ConfigurationError if boto3 is not installed, or cannot be set up."""
        self._function, self._program, self._relay = function, program, relay
        self._waiting: set[Future[Any]] = set()
        boto3, config = load("boto3", "running functions remotely"), load("botocore.config", "Lambda")
        self._errors = load("botocore.exceptions", "Lambda")
        options = config.Config(
            read_timeout=_PATIENCE,
            connect_timeout=10,
            # What was sent may run: it is not sent again.
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
        )
        try:
            self._client: Any = boto3.client("lambda", endpoint_url=endpoint or None, config=options)
        except (self._errors.BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"Lambda cannot be asked: {error}") from None

    def targets(self) -> list[Target]:
        """Return the targets of the runner's interpreter, best first. Raises InvokeError."""
        answer = self._invoke({runner.KEY: runner.VERSION, "describe": True}, "")
        try:
            return [Target.parse(text) for text in answer["targets"]]
        except (KeyError, TypeError, ConfigurationError):
            raise self._no_runner() from None

    def run(self, name: str, ready: Ready | None, args: list[Any], kwargs: dict[str, Any]) -> Ran:
        """Run a function remotely. Raises FunctionError with its error, or InvokeError."""
        parts = {
            "code": base64.b64encode(self._program.data).decode(),
            "lock": ready.lock.encode() if ready else "",
            "index": base64.b64encode(ready.stored).decode() if ready else "",
        }
        event = {
            runner.KEY: runner.VERSION,
            "file": self._program.path.name,
            "function": name,
            "args": args,
            "kwargs": kwargs,
            **parts,
        }
        return outcome(self._invoke(event, name))

    def stop(self) -> None:
        """Wait for nothing any more. What runs in Lambda cannot be ended from here: it ends with its time."""
        for answer in list(self._waiting):
            answer.cancel()

    def _aside(self, call: Callable[[], Any]) -> Any:
        """Return what a call returns, from a thread that does not keep this process from ending."""
        answer: Future[Any] = Future()
        self._waiting.add(answer)

        def work() -> None:
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 (it is raised where it is waited for)
                with suppress(InvalidStateError):
                    answer.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    answer.set_result(result)

        threading.Thread(target=work, name="invoke", daemon=True).start()
        try:
            return answer.result()
        except CancelledError:
            raise InvokeError(f"{self._function} was not waited for") from None
        finally:
            self._waiting.discard(answer)

    def _send(self, payload: bytes) -> tuple[Any, bytes]:
        """Return Lambda's answer and its body."""
        said = self._client.invoke(
            FunctionName=self._function, InvocationType="RequestResponse", LogType="Tail", Payload=payload
        )
        return said, said["Payload"].read()

    def _invoke(self, event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
        payload = json.dumps(event).encode()
        if len(payload) > runner.PAYLOAD:
            raise InvokeError(_too_large(event, len(payload)))
        try:
            said, body = self._aside(lambda: self._send(payload))
        except self._errors.ClientError as error:
            about = error.response.get("Error", {})
            text = f"{about.get('Code', 'an error')}: {about.get('Message') or 'no reason was given'}"
            raise InvokeError(f"Lambda does not run {self._function}: {text}") from None
        except (self._errors.BotoCoreError, OSError) as error:
            raise InvokeError(f"Lambda cannot be asked to run {self._function}: {error}") from None
        for line in _log(said.get("LogResult")):
            self._relay(name, line)
        return self._answer(body, said.get("FunctionError"))

    def _answer(self, body: bytes, failed: str | None) -> Mapping[str, Any]:
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        if failed:
            about = answer if isinstance(answer, dict) else {}
            trace = about.get("stackTrace")
            kind = about.get("errorType") or failed
            raise FunctionError(
                f"{self._function} failed: {kind}: {about.get('errorMessage') or 'no reason was given'}",
                "".join(map(str, trace)) if isinstance(trace, list) else "",
            )
        if not isinstance(answer, dict):
            raise self._no_runner()
        return answer

    def _no_runner(self) -> InvokeError:
        return InvokeError(
            f"{self._function} is no runner: the handler of one is {_HANDLER} (docs/running.md)"
        )


def _log(tail: object) -> list[str]:
    """Return the lines of a log's end."""
    try:
        data = base64.b64decode(tail) if isinstance(tail, str) else b""
    except ValueError:
        return []
    return data.decode("utf-8", "replace").splitlines()


def _too_large(event: Mapping[str, Any], size: int) -> str:
    sizes = {"arguments": len(json.dumps([event["args"], event["kwargs"]]))} if "args" in event else {}
    sizes |= {name: len(event[name]) for name in ("code", "index", "lock") if name in event}
    listed = ", ".join(f"{name} {size}" for name, size in sorted(sizes.items(), key=lambda one: -one[1]))
    return (
        f"{event.get('function')}() is sent with {size} bytes ({listed}), and Lambda takes {runner.PAYLOAD}: "
        "give less, or a place in S3"
    )
