"""Running in a sandbox and taking out what it hands over while it comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from shelf_tools.collect import Bounds, OutputError, collect
from shelf_tools.interpreters import Interpreter
from shelf_tools.limits import Limits
from shelf_tools.process import Finished
from shelf_tools.sandbox import Sandbox


def run_streaming(
    sandbox: Sandbox,
    argv: Sequence[str | PurePosixPath],
    limits: Limits,
    mounts: Mapping[PurePosixPath, Path],
    interpreter: Interpreter,
    into: Path,
    bounds: Bounds,
) -> tuple[Finished, OutputError | None]:
    """Run, collect the tar stream on its standard output below ``into``; return what both said.

    The sandbox runs in a thread of its own, which must outlive it (PR_SET_PDEATHSIG is about threads):
    it does, since it waits for the sandbox's end. Raises what ``Sandbox.run`` raises.
    """
    read_end, write_end = os.pipe()
    outcome: list[Finished | BaseException] = []

    def work() -> None:
        try:
            with open(write_end, "wb") as out:
                outcome.append(
                    sandbox.run(
                        argv,
                        limits=limits,
                        read_only=mounts,
                        interpreter=interpreter,
                        stdout_to=out,
                    )
                )
        except BaseException as error:  # noqa: BLE001 (raised again by the thread that waits)
            outcome.append(error)

    worker = threading.Thread(target=work, name="sandbox")
    worker.start()
    refused: OutputError | None = None
    try:
        with open(read_end, "rb") as stream:
            collect(stream, into, bounds)
    except OutputError as error:
        refused = error
    finally:
        worker.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0], refused
