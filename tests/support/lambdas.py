"""Lambda-like sandboxes for tests: a runtime with AWS' own interface client, functions in a box, invoking."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from cloudimport.ids import running_targets
from shelf_tools.interpreters import find_interpreter
from shelf_tools.lambdabox.box import Box
from shelf_tools.lambdabox.runtime import lay_out
from shelf_tools.lambdabox.runtime_api import Answer, RuntimeApi
from shelf_tools.process import Started
from tests.support.runtimes import install_packages
from tests.support.s3servers import S3Server

#: AWS' runtime interface client for Python and what it needs, as the managed runtimes have them.
RIC = "awslambdaric==4.2.2\nsimplejson==4.3.0\nsnapshot-restore-py==1.0.0\n"


def prefix_of(version: str) -> Path:
    """Return the prefix of a CPython (``3.12``); the test is skipped where this machine has none."""
    major, _, minor = version.partition(".")
    found = find_interpreter(running_targets()[0]._replace(python=(int(major), int(minor))))
    if found is None:
        pytest.skip(f"there is no CPython {version} on this machine")
    return found.prefix


@lru_cache(maxsize=8)
def _ric(version: str, folder: Path) -> Path:
    requirements = folder / f"ric-{version}.txt"
    requirements.write_text(RIC)
    return install_packages(version, requirements, folder / f"ric-{version}")


def runtime_with_ric(version: str, folder: Path) -> Path:
    """Lay a /var/runtime with awslambdaric out below ``folder``, a test session's, once; return it."""
    place = folder / f"runtime-{version}"
    if not (place / "bootstrap").exists():
        _ric(version, folder).rename(place)
        lay_out(place, version)
    return place


class Function:
    """A box that runs, with its Runtime API; ``log`` is what it wrote so far."""

    def __init__(self, box: Box) -> None:
        self.api = RuntimeApi(box.name)
        self.box = replace(box, api=self.api.address)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self.process: Started = self.box.start(stdout=self._file, stderr=self._file)
        self.api.watch(self.process)

    @property
    def log(self) -> str:
        """Standard output and error of the sandbox so far."""
        # By a descriptor of its own position: the sandbox writes where this one stands.
        with open(f"/proc/self/fd/{self._file.fileno()}", "rb") as file:
            return file.read().decode("utf-8", "replace")

    def ready(self, timeout: float = 60.0) -> Answer | None:
        """Wait for the end of the init phase; None if it went well."""
        return self.api.wait_ready(timeout)

    def invoke(self, event: Any = None, timeout: float = 60.0) -> Answer:
        """Invoke it; times in seconds."""
        return self.api.invoke(json.dumps(event).encode(), timeout=timeout, patience=60.0)

    def result(self, event: Any = None, timeout: float = 60.0) -> Any:
        """Invoke it and return its result; fail with its log if there is none."""
        answer = self.invoke(event, timeout)
        assert answer.kind == "result", f"{answer.kind}: {answer.body!r}\n{self.log}"
        return answer.value

    def stop(self) -> None:
        """End it; nothing is left."""
        self.process.stop()
        self.api.close()
        self._file.close()


@contextmanager
def function(box: Box) -> Iterator[Function]:
    """Run a box, and end it with the block."""
    one = Function(box)
    try:
        yield one
    finally:
        one.stop()


def make_box(
    task: Path,
    runtime: Path,
    version: str,
    *,
    handler: str = "app.handler",
    server: S3Server | None = None,
    environ: Mapping[str, str] | None = None,
    layers: Sequence[Path] = (),
    **more: Any,
) -> Box:
    """Return a box of a function; ``server`` is a store that it reaches with the server's own keys."""
    variables = {**(server.environ if server else {}), **(environ or {})}
    return Box(
        prefix_of(version), task, runtime, handler=handler, environ=variables, layers=tuple(layers), **more
    )


def at_once(functions: Sequence[Function], event: Any = None, timeout: float = 60.0) -> list[Answer]:
    """Invoke several functions at once; their answers, in order."""
    answers: dict[int, Answer] = {}

    def call(number: int) -> None:
        answers[number] = functions[number].invoke(event, timeout)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(len(functions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [answers[number] for number in range(len(functions))]
