"""Building a wheel from a source distribution in the sandbox: its own code runs there, and nowhere else.

PEP 517 and 518. What it needs to be built comes in as wheels; there is no network inside.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import installer
import pyproject_hooks

from cloudimport.errors import CloudImportError
from cloudimport.ids import Pin
from shelf_tools.collect import Bounds, OverflowingOutputError, TruncatedOutputError
from shelf_tools.interpreters import Interpreter
from shelf_tools.limits import BUILD, Limits, explain, passed
from shelf_tools.process import ProcessError, ProcessTimeout
from shelf_tools.sandbox import OUT, SCRATCH, Sandbox
from shelf_tools.scripts import SCRIPTS, scripts
from shelf_tools.streaming import run_streaming

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Where the source distribution and the build requirements are seen inside.
_SDIST = PurePosixPath("/sdist")
_WHEELS = PurePosixPath("/wheels")
#: Exit status of ``inside/build_wheel.py`` when it refuses an archive.
_REFUSED = 3
#: Bytes of report.json; a pyproject.toml is at most 1 MiB of them.
_REPORT_BYTES = 8 << 20
#: What a project without a build-system table is built with (PEP 517, PEP 518).
_LEGACY_BACKEND, _LEGACY_REQUIRES = "setuptools.build_meta:__legacy__", ("setuptools>=40.8.0",)


class BuildError(CloudImportError):
    """A wheel could not be built; the text names the pin and the reason."""


class BuildSystem(NamedTuple):
    """The build-system table of a project: requires, build-backend and backend-path (PEP 517, PEP 518)."""

    requires: tuple[str, ...]
    backend: str = _LEGACY_BACKEND
    path: tuple[str, ...] = ()


class BuiltWheel(NamedTuple):
    """What a build came to: a wheel, or, if ``wheel`` is None, what the backend wants besides."""

    wheel: Path | None
    requires: tuple[str, ...]


class Builder(NamedTuple):
    """Builds one source distribution, ``sdist``, of a pin. Raises BuildError everywhere."""

    sdist: Path
    pin: Pin
    interpreter: Interpreter
    sandbox: Sandbox
    limits: Limits

    def look(self) -> BuildSystem:
        """Return what its pyproject.toml says of the build."""
        with tempfile.TemporaryDirectory(prefix="look-", dir=self.sdist.parent) as folder:
            report = self._run({"name": self.sdist.name}, None, Path(folder))
        text = report.get("pyproject")
        if text is None:
            return BuildSystem(_LEGACY_REQUIRES)
        try:
            return _build_system(tomllib.loads(text))
        except (tomllib.TOMLDecodeError, TypeError, ValueError, RecursionError) as error:
            raise BuildError(f"{self.pin}: its pyproject.toml is not valid: {str(error)[:200]}") from None

    def build(self, system: BuildSystem, known: Sequence[str], wheels: Path, into: Path) -> BuiltWheel:
        """Build the wheel into the folder ``into``, with ``wheels`` installed for that.

        ``known`` are the requirements that these wheels were chosen for; if the backend asks for others
        (``get_requires_for_build_wheel``), nothing is built and they are returned.
        """
        task = {"name": self.sdist.name, "backend": system.backend, "path": system.path, "known": list(known)}
        with tempfile.TemporaryDirectory(prefix="build-", dir=into) as folder:
            report = self._run(task, wheels, Path(folder))
            if "requires" in report:
                return BuiltWheel(None, _strings(report["requires"], self.pin))
            found = list(Path(folder, "wheel").glob("*.whl"))
            if len(found) != 1:
                raise BuildError(f"{self.pin}: the build left {len(found)} wheels, not one")
            kept = into / found[0].name
            shutil.move(found[0], kept)
        return BuiltWheel(kept, ())

    def _run(self, task: dict[str, Any], wheels: Path | None, into: Path) -> dict[str, Any]:
        argv: list[str | PurePosixPath] = ["-I", "-S", "-B", SCRIPTS / "build_wheel.py", _SDIST, SCRATCH, OUT]
        argv += [SCRIPTS, _WHEELS, json.dumps(task)]
        limits = self.limits
        bounds = Bounds(limits.output_bytes, limits.output_files, limits.file_bytes)
        with scripts(installer, pyproject_hooks) as tools:
            # Not as standard input: see ``Sandbox.run``.
            mounts = {SCRIPTS: tools, _SDIST: self.sdist, **({_WHEELS: wheels} if wheels else {})}
            try:
                finished, refused = run_streaming(
                    self.sandbox, argv, limits, mounts, self.interpreter, into, bounds
                )
            except ProcessTimeout:
                raise BuildError(f"{self.pin}: {passed('wall_seconds', limits, BUILD)}") from None
            except ProcessError as error:
                raise BuildError(f"{self.pin}: {error}") from error
        if finished.returncode == _REFUSED:
            raise BuildError(f"{self.pin}: {self.sdist.name} is refused: {finished.reason()}")
        if isinstance(refused, OverflowingOutputError):
            raise BuildError(f"{self.pin}: {passed(refused.field, limits, BUILD)}: {refused}")
        if refused is not None and not isinstance(refused, TruncatedOutputError):
            raise BuildError(f"{self.pin}: what the build left is refused: {refused}")
        if finished.returncode or refused is not None:
            limit = explain(finished, limits, BUILD)
            why = limit or f"{self.sdist.name} does not build: {finished.reason()}"
            raise BuildError(f"{self.pin}: {why}") from refused
        return _report(into / "report.json", self.pin)


def _report(path: Path, pin: Pin) -> dict[str, Any]:
    """Return the report of a run, hostile: its caller checks what it takes out of it."""
    try:
        if path.stat().st_size > _REPORT_BYTES:
            raise ValueError("too large")
        report = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(f"{pin}: the report of its build cannot be read: {error}") from None
    if not isinstance(report, dict) or not isinstance(report.get("pyproject"), (str, type(None))):
        raise BuildError(f"{pin}: the report of its build is not one")
    return report


def _strings(found: object, pin: Pin) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise BuildError(f"{pin}: its build backend asks for what is no list of requirements")
    return tuple(found)


def _build_system(tables: dict[str, Any]) -> BuildSystem:
    """Return the build-system table of a pyproject.toml. Raises TypeError or ValueError."""
    table = tables.get("build-system")
    if table is None:
        return BuildSystem(_LEGACY_REQUIRES)
    requires, path = table.get("requires"), table.get("backend-path", [])
    backend = table.get("build-backend", _LEGACY_BACKEND)
    for name, value in (("requires", requires), ("backend-path", path)):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise TypeError(f"build-system.{name} has to be a list of strings")
    if not isinstance(backend, str):
        raise TypeError("build-system.build-backend has to be a string")
    return BuildSystem(tuple(requires), backend, tuple(path))
