"""Running Python code in fresh interpreters that have the runtime and nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Variables that a child needs to run at all; everything else of the developer's stays out.
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
REPOSITORY = Path(__file__).parents[2]
#: Seconds; a hang is a failure, not a wait.
TIMEOUT = 240.0


@dataclass(frozen=True)
class Ran:
    """What a child interpreter said."""

    returncode: int
    stdout: str
    stderr: str

    def ok(self) -> str:
        """Return standard output; fail with everything it said if it did not end well."""
        assert self.returncode == 0, f"exit status {self.returncode}\n{self.stdout}\n{self.stderr}"
        return self.stdout.strip()


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment with an empty home and nothing that configures clouds, pip or certificates."""
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONWARNINGS": "default", **(extra or {})}


@dataclass(frozen=True)
class Runner:
    """Runs code under ``python``; the runtime is found through a path entry, like an installed package.

    ``timeout`` is in seconds.
    """

    home: Path
    python: str = sys.executable
    path: Sequence[str] = (str(REPOSITORY),)
    timeout: float = TIMEOUT

    def run(
        self,
        code: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        name: str = "main.py",
    ) -> Ran:
        """Run ``code`` as a script of its own folder."""
        folder = cwd or self.home / "handler"
        folder.mkdir(parents=True, exist_ok=True)
        script = folder / name
        script.write_text(textwrap.dedent(code))
        return self.run_script(script, *arguments, env=env, cwd=folder)

    def run_script(
        self, script: Path, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> Ran:
        """Run a script file."""
        environment = {
            **clean_environment(self.home),
            "PYTHONPATH": os.pathsep.join(self.path),
            **(env or {}),
        }
        done = subprocess.run(
            [self.python, str(script), *arguments],
            capture_output=True,
            text=True,
            timeout=self.timeout,
            env=environment,
            cwd=cwd or self.home,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)
