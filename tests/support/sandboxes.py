"""The sandbox that tests run in, opened once, and the interpreters that they use."""

from __future__ import annotations

import os
import shutil
from functools import lru_cache
from pathlib import Path

import pytest

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Target
from shelf_tools.interpreters import Interpreter, find_interpreter, running_interpreter
from shelf_tools.sandbox import Sandbox, open_sandbox


def copied_interpreter(folder: Path) -> Path:
    """Make a copy of the running interpreter below ``folder``, without what nobody imports here."""
    own = running_interpreter()
    name = f"python{own.version[0]}.{own.version[1]}"
    left_out = shutil.ignore_patterns("test", "tests", "site-packages", "dist-packages", "__pycache__")
    shutil.copytree(own.prefix / "lib" / name, folder / "lib" / name, ignore=left_out)
    for library in (own.prefix / "lib").glob("libpython*.so*"):
        shutil.copy(library, folder / "lib")
    (folder / "bin").mkdir()
    shutil.copy(own.executable, folder / "bin" / name)
    return folder / "bin" / name


@lru_cache(maxsize=1)
def bubblewrap() -> Sandbox:
    """Return the bubblewrap sandbox.

    Where it cannot work, root fails with the reason; an ordinary user's test is skipped, but only
    if the kernel forbids user namespaces.
    """
    try:
        return open_sandbox("bubblewrap")
    except ConfigurationError as error:
        if os.geteuid() and _namespaces_forbidden():
            pytest.skip(f"user namespaces are not permitted here: {error}")
        pytest.fail(str(error), pytrace=False)


def _namespaces_forbidden() -> bool:
    def reads(path: str, value: str) -> bool:
        file = Path("/proc/sys", path)
        return file.exists() and file.read_text().strip() == value

    return (
        reads("user/max_user_namespaces", "0")
        or reads("kernel/unprivileged_userns_clone", "0")
        or reads("kernel/apparmor_restrict_unprivileged_userns", "1")
    )


def running() -> tuple[Target, Interpreter]:
    """Return a target of the running interpreter, and that interpreter."""
    own = running_interpreter()
    machine = os.uname().machine
    return Target((own.version[0], own.version[1]), (2, 28), machine), own


def others() -> list[tuple[Target, Interpreter]]:
    """Return targets of other minor versions for which this machine has an interpreter."""
    mine = running()[0]
    found = []
    for minor in range(10, 15):
        target = Target((3, minor), (2, 28), mine.machine)
        interpreter = find_interpreter(target) if target != mine else None
        if interpreter is not None:
            found.append((target, interpreter))
    return found
