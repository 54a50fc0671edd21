"""Installing one wheel in a sandbox and taking its tree and bytecode out."""

from __future__ import annotations

import email.parser
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import installer

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.ids import Pin, Target
from shelf_tools.collect import (
    Bounds,
    OverflowingOutputError,
    TruncatedOutputError,
    code_file,
)
from shelf_tools.interpreters import Interpreter, running_interpreter
from shelf_tools.limits import INSTALL, INSTALL_LIMITS, Limits, explain, passed, suspect
from shelf_tools.process import ProcessError, ProcessTimeout
from shelf_tools.sandbox import OUT, Sandbox
from shelf_tools.scripts import SCRIPTS, scripts
from shelf_tools.streaming import run_streaming

__all__ = ["INSTALL_LIMITS", "InstallError", "Installed", "code_file", "install"]

#: Where the wheel is seen inside.
_WHEEL = PurePosixPath("/wheel")
#: Exit status of ``inside/install_wheel.py`` when it refuses a wheel.
_REFUSED = 3
#: Bytes of report.json and of one METADATA; the largest real ones are below 1 MiB.
_REPORT_BYTES = 16 << 20
#: Notes that are handed on for one wheel.
_MOST_NOTES = 50
#: Compiler processes of one wheel: pins are installed in parallel already.
_COMPILERS = 4


class InstallError(CloudImportError):
    """A wheel could not be installed; the text names the pin, the wheel and the reason."""


@dataclass(frozen=True)
class Installed:
    """One installed wheel.

    ``tree`` is laid out as ``pip install --target`` does it. ``code`` mirrors it: for each source
    that compiles, ``code_file(code, path)`` holds the marshalled code object with ``co_filename``
    equal to the path, for the pyc magic number ``magic`` (hexadecimal). ``code`` is None and
    ``magic`` "" when no interpreter of the target was at hand. ``notes`` are lines for a person.
    """

    tree: Path
    code: Path | None
    magic: str
    notes: tuple[str, ...]


def install(
    wheel: Path,
    pin: Pin,
    target: Target,
    interpreter: Interpreter | None,
    sandbox: Sandbox,
    limits: Limits = INSTALL_LIMITS,
    *,
    into: Path,
) -> Installed:
    """Install ``wheel`` below the folder ``into`` (made if need be; must not hold ``tree`` or ``code``).

    The same wheel gives the same tree, byte for byte, whatever interpreter, sandbox or time. Raises
    InstallError if the wheel is refused, runs into a limit, or is not ``pin``.
    """
    into.mkdir(parents=True, exist_ok=True)
    what = f"{pin} ({wheel.name}, {target})"
    with tempfile.TemporaryDirectory(dir=into, prefix="collected-") as folder:
        collected = Path(folder)
        seen = _run(wheel, pin, what, interpreter, sandbox, limits, collected)
        report = _report(collected / "report.json", what)
        tree, code = collected / "tree", collected / "code"
        if not tree.is_dir():
            raise InstallError(f"{what}: the wheel installs no files")
        _check_identity(tree, pin, what)
        notes = tuple(_notes(tree, report, limits, seen))
        os.replace(tree, into / "tree")
        if interpreter is None:
            return Installed(into / "tree", None, "", notes)
        code.mkdir(exist_ok=True)
        os.replace(code, into / "code")
        return Installed(into / "tree", into / "code", interpreter.magic, notes)


def _run(
    wheel: Path,
    pin: Pin,
    what: str,
    interpreter: Interpreter | None,
    sandbox: Sandbox,
    limits: Limits,
    into: Path,
) -> Mapping[str, int]:
    """Install inside and collect the stream as it comes; return what that was seen to use."""
    workers = min(_COMPILERS, os.cpu_count() or 1) if interpreter is not None else 0
    python = interpreter or running_interpreter()
    argv: list[str | PurePosixPath] = [
        "-I",
        "-S",
        "-B",
        SCRIPTS / "install_wheel.py",
        wheel.name,
        _WHEEL,
        OUT,
    ]
    argv += [SCRIPTS, str(workers)]
    bounds = Bounds(limits.output_bytes, limits.output_files, limits.file_bytes)
    with scripts(installer) as folder:
        # Not as standard input: who runs as the curator's own uid could open /proc/self/fd/0 and write to it.
        mounts = {SCRIPTS: folder, _WHEEL: wheel}
        try:
            finished, refused = run_streaming(sandbox, argv, limits, mounts, python, into, bounds)
        except ProcessTimeout:
            raise InstallError(f"{pin}: {passed('wall_seconds', limits, INSTALL)}") from None
        except ProcessError as error:
            raise InstallError(f"{what}: {error}") from error
    if finished.returncode == _REFUSED:
        raise InstallError(f"{what}: refused: {finished.reason()}")
    if isinstance(refused, OverflowingOutputError):
        raise InstallError(f"{pin}: {passed(refused.field, limits, INSTALL)}: {refused}") from refused
    if refused is not None and not isinstance(refused, TruncatedOutputError):
        raise InstallError(f"{what}: {refused}") from refused
    if finished.returncode or refused is not None:
        limit = explain(finished, limits, INSTALL)
        if limit:
            raise InstallError(f"{pin}: {limit}") from refused
        why = finished.reason() if finished.returncode else refused
        raise InstallError(f"{what}: the install failed: {why}") from refused
    return finished.seen


def _report(path: Path, what: str) -> dict[str, Any]:
    """Return the installer's report, hostile: only strings out of it are used, and bounded."""
    try:
        if path.stat().st_size > _REPORT_BYTES:
            raise ValueError("too large")
        report = json.loads(path.read_bytes())
        return {"notes": list(report["notes"]), "bad": dict(report["bad"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InstallError(f"{what}: the installer's report cannot be read: {error}") from None


def _notes(tree: Path, report: dict[str, Any], limits: Limits, seen: Mapping[str, int]) -> Iterator[str]:
    """Yield lines on what was neutralised or left out."""
    lines = [f"{path}: executable .pth, kept as data, never executed" for path in _executable_pths(tree)]
    lines += _startup(tree)
    lines += [str(note) for note in report["notes"]]
    for path, reason in report["bad"].items():
        why = suspect(str(reason), limits, INSTALL, seen) or reason
        lines.append(f"{path}: does not compile, stays source: {why}")
    for line in lines[:_MOST_NOTES]:
        yield "".join(c if c.isprintable() else "?" for c in line[:500])
    if len(lines) > _MOST_NOTES:
        yield f"and {len(lines) - _MOST_NOTES} more notes"


def _executable_pths(tree: Path) -> list[str]:
    """Return ``.pth`` files that a ``site.py`` would execute lines of (it does so at the top only)."""
    found = []
    for path in sorted(filter(Path.is_file, tree.glob("*.pth"))):
        with open(path, "rb") as stream:
            text = stream.read(_REPORT_BYTES)
        if is_executable_pth(text):
            found.append(path.name)
    return found


def is_executable_pth(text: bytes) -> bool:
    """Whether a ``site.py`` would execute a line of a ``.pth`` file with these bytes.

    From Python 3.13 on it takes a mark of byte order away and splits lines as ``str`` does.
    """
    lines = text.decode("utf-8-sig", "replace").splitlines()
    return any(line.startswith(("import ", "import\t")) for line in lines)


def _startup(tree: Path) -> list[str]:
    """Return lines on what an interpreter that has this tree on its path would run or believe by itself."""
    lines = []
    for path in sorted(tree.iterdir()):
        stem, suffix = path.name.partition(".")[0], path.suffix.lower()
        if stem in ("sitecustomize", "usercustomize"):
            lines.append(f"{path.name}: under pip every start of an interpreter would run it")
        elif suffix == ".egg-info":
            lines.append(f"{path.name}: installs metadata beside its own")
        elif stem in sys.stdlib_module_names:
            lines.append(f"{path.name}: is called as a module of the standard library, which wins")
    return lines


def _check_identity(tree: Path, pin: Pin, what: str) -> None:
    """Check that the one installed METADATA is the pin's. Raises InstallError."""
    # importlib.metadata takes a folder for a distribution whatever the case of its suffix.
    infos = sorted(path.name for path in tree.iterdir() if path.name.lower().endswith(".dist-info"))
    if len(infos) > 1:
        raise InstallError(f"{what}: the wheel installs {', '.join(infos)[:200]}: only one can be its own")
    found = [path for path in tree.glob("*.dist-info/METADATA") if path.is_file()]
    if len(found) != 1:
        raise InstallError(f"{what}: the wheel installs {len(found)} METADATA files, not one")
    with open(found[0], "rb") as stream:
        text = stream.read(_REPORT_BYTES).decode("utf-8", "replace")
    metadata = email.parser.HeaderParser().parsestr(text)
    try:
        actual = Pin.of(str(metadata["Name"]), str(metadata["Version"]))
    except ConfigurationError as error:
        raise InstallError(f"{what}: the wheel's METADATA is not valid: {error}") from None
    if actual != pin:
        raise InstallError(f"{what}: the wheel's METADATA says that it is {actual}")
