"""What the suite runs in: a runtime, and each group twice: as pip installs it, and on a shelf.

All of it lies in a work folder and is made again when what it is made from has changed. Both sides run
in the same interpreter, so that nothing that names it differs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloudimport.ids import running_targets
from tests.conformance.groups import pins_file
from tests.support.children import REPOSITORY
from tests.support.runtimes import find_python, make_runtime
from tests.support.shelfcommand import publisher_environment

#: Seconds for installing or publishing a group: scipy's neighbours take ten minutes on a busy machine.
_TIMEOUT = 3600


@dataclass(frozen=True)
class Prepared:
    """A group for one Python: ``plain`` is pip's folder; ``key`` changes when a result may.

    ``tree`` is where the site tree is, relative to the cache.
    """

    version: str
    group: str
    python: str
    plain: Path
    lock: Path
    tree: str
    key: str


def prepare(work: Path, version: str, group: str) -> Prepared:
    """Make what a group needs below ``work``, or find it there."""
    python = _runtime(work / version, version)
    pins = pins_file(group, version)
    folder = work / version / group
    folder.mkdir(parents=True, exist_ok=True)
    plain, lock = folder / "plain", folder / "cloudimport.lock"
    if _outdated(plain, digest_of([pins])):
        _install(version, python, pins, plain)
        _stamp(plain, digest_of([pins]))
    published = digest_of([pins, REPOSITORY / "shelf_tools", REPOSITORY / "cloudimport/format"])
    if _outdated(folder / "shelf", published):
        _publish(version, pins, folder / "shelf", lock)
        _stamp(folder / "shelf", published)
    key = digest_of([pins, REPOSITORY / "shelf_tools", REPOSITORY / "cloudimport"])
    return Prepared(version, group, python, plain, lock, _tree(python, lock, folder / "asked"), key)


def digest_of(paths: Iterable[Path]) -> str:
    """Return a digest of files, and of the sources in folders."""
    found = hashlib.sha256()
    for path in paths:
        for file in sorted([*path.rglob("*.py"), *path.rglob("*.c")]) if path.is_dir() else [path]:
            found.update(f"{file.name}\0".encode() + file.read_bytes())
    return found.hexdigest()


def _outdated(path: Path, digest: str) -> bool:
    stamp = path.with_name(path.name + ".stamp")
    if path.exists() and stamp.exists() and stamp.read_text() == digest:
        return False
    stamp.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    return True


def _stamp(path: Path, digest: str) -> None:
    path.with_name(path.name + ".stamp").write_text(digest)


def _runtime(folder: Path, version: str) -> str:
    """Return an interpreter with the runtime; always at the same path, which console scripts name."""
    made = folder / "runtime"
    digest = digest_of([REPOSITORY / "cloudimport", REPOSITORY / "pyproject.toml"])
    if _outdated(made, digest):
        made.mkdir(parents=True)
        make_runtime(version, made)
        _stamp(made, digest)
    return str(made / "venv" / "bin" / "python")


def _install(version: str, python: str, pins: Path, folder: Path) -> None:
    """Install by pip into a plain folder, for ``python``.

    By the interpreter that ``python`` is a virtual environment of, since in one pip has another place for
    headers; so the launchers are made to name ``python``. Without bytecode, which both sides keep
    elsewhere (``PYTHONPYCACHEPREFIX``): a shelf's bytecode never lies in the tree. ``REQUESTED`` says what
    a user has asked pip for, so a shelf has none: it goes.
    """
    wanted = ("--no-deps", "--only-binary", ":all:", "--no-compile", "--target", str(folder), "-r", str(pins))
    base = find_python(version)
    assert base is not None
    _run(sys.executable, "-m", "pip", "--no-input", "--python", base, "install", "--quiet", *wanted)
    for script in folder.glob("bin/*"):
        text = script.read_bytes()
        if text.startswith(b"#!" + base.encode() + b"\n"):
            script.write_bytes(text.replace(base.encode(), python.encode(), 1))
    for record in folder.glob("*.dist-info/RECORD"):
        record.with_name("REQUESTED").unlink(missing_ok=True)
        # pip notes scripts and headers where they are before it moves them into the folder.
        lines = [line.removeprefix("../../") for line in record.read_text().splitlines(keepends=True)]
        gone = (f"bin/pip{version},", f"{record.parent.name}/REQUESTED,")
        record.write_text("".join(line for line in lines if not line.startswith(gone)))
    # pip gives itself a launcher more than its entry points say, in whose name is the interpreter's version.
    (folder / "bin" / f"pip{version}").unlink(missing_ok=True)


def _publish(version: str, pins: Path, shelf: Path, lock: Path) -> None:
    target = f"cp{version.replace('.', '')}-{str(running_targets()[0]).partition('-')[2]}"
    code = "import sys; from shelf_tools.cli import main; sys.exit(main())"
    arguments = ("publish", "-r", pins, "--level", "3", "--shelf", shelf, "--lock", lock, "--target", target)
    _run(sys.executable, "-c", code, *map(str, arguments), env=publisher_environment())


def _tree(python: str, lock: Path, cache: Path) -> str:
    """Return where the runtime puts the site tree below a cache folder."""
    code = "import cloudimport, sys; print(cloudimport.install(lock=sys.argv[1], cache=sys.argv[2]).root)"
    root = _run(python, "-c", code, str(lock), str(cache)).strip()
    shutil.rmtree(cache)
    return Path(root).relative_to(cache).as_posix()


def _run(*command: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        env=env or {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")},
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout
