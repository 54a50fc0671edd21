"""What ``shelf publish -r`` takes: a requirements file, ``pylock.toml``, ``uv.lock``, ``pyproject.toml``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from packaging.pylock import is_valid_pylock_path

from cloudimport.errors import ConfigurationError
from shelf_tools.pins import Listed, read_list
from shelf_tools.pylock import read_pylock
from shelf_tools.uv_command import UvError, run_uv

#: Files of a uv project: what is published is what its uv.lock has.
_PROJECT = ("uv.lock", "pyproject.toml")


def is_requirements_file(path: Path) -> bool:
    """Whether a list is in pip's format: what a handler can read, and what can be added to."""
    return path.name not in _PROJECT and path.suffix != ".toml"


def read_input(
    path: Path,
    extras: Sequence[str],
    groups: Sequence[str],
    environ: Mapping[str, str],
    note: Callable[[str], None],
) -> Listed:
    """Return the pins of a file of any kind.

    ``extras`` and ``groups`` choose from what a lock of a project has; the project's own code and that
    of its workspace are not packages of an index, and left out. uv runs in ``environ``. Raises
    ConfigurationError with all errors, one a line.
    """
    if is_requirements_file(path):
        if extras or groups:
            raise ConfigurationError(
                f"{path}: --extra and --group are for pylock.toml, uv.lock and pyproject.toml: "
                "a requirements file has its extras in its lines"
            )
        return read_list(path)
    if path.name in _PROJECT:
        text = _export(path, extras, groups, environ, note)
        return read_pylock(text, path, exported=True)
    if not is_valid_pylock_path(path):
        raise ConfigurationError(
            f"{path} is not a list that can be published: it is neither a requirements file, nor pylock.toml "
            "or pylock.NAME.toml, nor uv.lock, nor pyproject.toml"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    return read_pylock(text, path, extras, groups or None)


def _export(
    path: Path,
    extras: Sequence[str],
    groups: Sequence[str],
    environ: Mapping[str, str],
    note: Callable[[str], None],
) -> str:
    """Return a project's uv.lock, as it stands, as a pylock.toml. Raises ConfigurationError."""
    if not path.is_file():
        raise ConfigurationError(f"{path}: cannot be read: No such file or directory")
    command = ["export", "--frozen", "--format=pylock.toml", "--no-header", "--no-emit-workspace"]
    command += ["--no-default-groups", f"--project={path.parent}"]
    command += [f"--extra={name}" for name in extras]
    command += [f"--group={name}" for name in groups]
    try:
        text, warnings = run_uv(command, environ)
    except UvError as error:
        lines = str(error).splitlines()
        if any("lockfile" in line and "--frozen" in line for line in lines):
            lines = [f"there is no uv.lock for it: run 'uv lock', or 'shelf lock {path} -o requirements.txt'"]
        raise ConfigurationError("\n".join(f"{path}: {line}" for line in lines)) from None
    for warning in warnings:
        note(f"{path}: {warning}")
    return text
