"""Installed trees of a publish, made where they are missing: by one task at a time, whole or not at all."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format.records import sha256
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target
from cloudimport.sources.base import Source
from shelf_tools.builds import read_build, restore
from shelf_tools.errand import Errand, environ_of, interpreter_of, sandbox_called
from shelf_tools.fetch import Wheel, WheelError
from shelf_tools.install import Installed, install
from shelf_tools.portable import check_portable
from shelf_tools.sourceless import strip
from shelf_tools.sourcing import Sourcing
from shelf_tools.workfolder import work_folder

#: Beside a tree: the magic number of its bytecode.
_MAGIC = "magic"


class Making(NamedTuple):
    """Where a pin's tree lies; ``into``: where it is to be made, None if it is there."""

    folder: Path
    into: Path | None


class Clock:
    """Adds up wall time by stage, in seconds."""

    def __init__(self, seconds: Mapping[str, float] = MappingProxyType({})) -> None:
        self.seconds = dict(seconds)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time of a ``with`` block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began


def install_pin(
    errand: Errand, requirement: Requirement, wheel: Wheel | None, into: Path, clock: Clock, notes: list[str]
) -> Wheel:
    """Install a pin below ``into``, without source if that is wanted; return its wheel."""
    pin, target = requirement.pin, errand.target
    interpreter, sandbox = interpreter_of(errand), sandbox_called(errand.sandbox)
    with tempfile.TemporaryDirectory(dir=into, prefix="wheel-") as folder:
        if wheel is None or not wheel.path.is_file():
            with clock("fetch"):
                wheels, failures = fetch_wheels(errand, [requirement], Path(folder), notes)
            if pin in failures:
                raise WheelError([failures[pin]])
            wheel = wheels[pin]
        with clock("install"):
            limits = errand.limits.install
            done = install(wheel.path, pin, target, interpreter, sandbox, limits, into=into)
            if wheel.build is not None:
                check_portable(done.tree, pin, target)
            if pin in errand.sourceless:
                done = without_source(done, target)
    (into / _MAGIC).write_text(done.magic)
    notes += done.notes
    return wheel


def without_source(installed: Installed, target: Target) -> Installed:
    """Return an installed tree with bytecode in place of its sources. Raises CloudImportError."""
    if installed.code is None:
        raise ConfigurationError(
            f"--bytecode-only needs an interpreter of {target} to compile with: "
            f"'uv python install {target.python[0]}.{target.python[1]}', or --python"
        )
    notes = strip(installed.tree, installed.code, installed.magic, installed.notes)
    shutil.rmtree(installed.code)
    return Installed(installed.tree, None, "", tuple(notes))


def _silent(_: Pin) -> None:
    return


def fetch_wheels(
    errand: Errand, wanted: Sequence[Requirement], into: Path, notes: list[str]
) -> tuple[dict[Pin, Wheel], dict[Pin, str]]:
    """Fetch wheels into a folder, or build them; return them, and by pin the line that says why not."""
    sourcing = Sourcing(
        environ_of(errand),
        errand.options,
        errand.links,
        1,
        errand.allow_sdist,
        sandbox_called(errand.sandbox),
        errand.limits,
        notes.append,
        errand.pythons,
    )
    return sourcing.some(wanted, errand.target, into, _silent)


@contextmanager
def making(errand: Errand, pin: Pin, *, anew: bool = False) -> Iterator[Making]:
    """Give a folder to make a pin's tree in, which takes its place at the end; one makes it at a time.

    ``anew``: what is there is no use, since nobody knows what was said of it.
    """
    place = place_of(errand)
    folder = place / f"{pin.name}-{sha256(str(pin).encode())[:12]}"
    with _locked(place / f"{folder.name}.lock"):
        if folder.is_dir() and not anew:
            yield Making(folder, None)
            return
        with tempfile.TemporaryDirectory(dir=place, prefix="making-", ignore_cleanup_errors=True) as made:
            into = Path(made, "new")
            into.mkdir()
            yield Making(folder, into)
            if folder.is_dir():
                os.replace(folder, Path(made, "old"))
            os.replace(into, folder)


def tree_of(
    errand: Errand, requirement: Requirement, wheel: Wheel | None, source: Source | None = None
) -> Installed:
    """Return a pin's installed tree: the one that is here, one from the shelf (``source``), or a new one."""
    with making(errand, requirement.pin) as made:
        if made.into is not None:
            built = read_build(source, requirement.pin, str(errand.target)) if source else None
            if built is not None and source is not None:
                restore(source, built, made.into)
                (made.into / _MAGIC).write_text(built.layout.magic)
            else:
                install_pin(errand, requirement, wheel, made.into, Clock(), [])
    code = made.folder / "code"
    magic = (made.folder / _MAGIC).read_text()
    return Installed(made.folder / "tree", code if code.is_dir() else None, magic, ())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock among threads and processes; the kernel drops it when its holder dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


#: Seconds after which a run that nobody has released is over: no task takes that long without a tree.
_IDLE = 6 * 3600.0


@dataclass
class _Place:
    """A run's folder on a machine that does not see the curator's, and what removes it."""

    folder: Path
    stack: ExitStack
    used: float


_places: dict[str, _Place] = {}
_released: set[str] = set()
_guard = threading.Lock()


def place_of(errand: Errand) -> Path:
    """Return the folder for an errand's trees."""
    place = (errand.folder or _own_folder(errand.run)) / str(errand.target)
    place.mkdir(exist_ok=True)
    return place


def _own_folder(run: str) -> Path:
    """Return this process's folder for a run. Raises CloudImportError if the run is over."""
    now = time.monotonic()
    with _guard:
        if run in _released:
            raise CloudImportError("its publish was given up")
        forgotten = [one for one, place in _places.items() if one != run and now - place.used > _IDLE]
        if run not in _places:
            stack = ExitStack()
            _places[run] = _Place(stack.enter_context(work_folder("worker")), stack, now)
        _places[run].used = now
        folder = _places[run].folder
    for one in forgotten:  # the curator's process was killed
        release(one)
    return folder


def release(run: str) -> None:
    """Remove what a run has left on this machine; nothing more is done for it."""
    with _guard:
        place = _places.pop(run, None)
        _released.add(run)
    if place is not None:
        place.stack.close()


@atexit.register
def _release_all() -> None:
    for run in list(_places):
        with contextlib.suppress(OSError):
            release(run)
