"""Running ``shelf serve`` as a user does, and asking it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.children import REPOSITORY
from tests.support.shelfcommand import publisher_environment

#: Seconds until the server answers, on busy cores, and for an answer.
_START, _ANSWER = 60.0, 300.0


@dataclass(frozen=True)
class Said:
    """An answer: status, headers with small names, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")


@dataclass
class Served:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]
    cache: Path
    #: Lines that it has written.
    said: list[str] = field(default_factory=list)

    def ask(self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Said:
        """GET, or POST ``body``."""
        request = urllib.request.Request(self.url + path, data=body, headers=dict(headers or {}))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=_ANSWER) as answer:
                return Said(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Said(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())

    def run(self, name: str, event: Any = None) -> Said:
        """POST /run/NAME, as OpenLambda's users do."""
        return self.ask(f"/run/{name}", json.dumps(event).encode())

    def invoke(self, name: str, event: Any = None, **headers: str) -> Said:
        """POST AWS' Invoke; ``log_type="Tail"`` is X-Amz-Log-Type, and so on."""
        named = {f"X-Amz-{key.replace('_', '-').title()}": value for key, value in headers.items()}
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        return self.ask(f"/2015-03-31/functions/{name}/invocations", body, named)

    def status(self) -> Any:
        """GET /status."""
        return self.ask("/status").value

    def instances(self, name: str) -> list[dict[str, Any]]:
        """Return what it says of a function's sandboxes."""
        return self.status()["functions"][name]["instances"]  # type: ignore[no-any-return]

    def processes(self) -> set[int]:
        """Return the processes of its sandboxes, and itself."""
        found = {self.process.pid}
        for _ in range(8):
            for pid in list(found):
                for children in Path(f"/proc/{pid}/task").glob("*/children"):
                    try:
                        found |= set(map(int, children.read_text().split()))
                    except OSError:
                        continue
        return found

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(
    functions: Path, cache: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """Run ``shelf serve`` on a free port."""
    command = [
        sys.executable,
        "-c",
        "import sys; from shelf_tools.cli import main; sys.exit(main())",
        "serve",
    ]
    command += ["--functions", str(functions), "--port", "0", "--cache", str(cache), *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=publisher_environment(env),
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    try:
        said = []
        while line := process.stdout.readline():
            said.append(line)
            if found := re.search(r"http://\S+:\d+", line):
                break
        else:
            raise AssertionError(f"shelf serve did not start:\n{''.join(said)}")
        threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True).start()
        yield Served(found[0], process, cache, said)
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def wait_until_gone(pids: set[int], seconds: float = 20.0) -> set[int]:
    """Wait for processes to end; return those that have not."""
    until = time.monotonic() + seconds
    while (left := {pid for pid in pids if _runs(pid)}) and time.monotonic() < until:
        time.sleep(0.05)
    return left


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in ("Z", "X")


def mounts_of(folder: Path) -> list[str]:
    """Return what is mounted below a folder, or is a sandbox's, as this process sees it."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if str(folder) in line or "/run/cloudimport" in line]
