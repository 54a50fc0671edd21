"""Where a pin's wheel comes from: an index, or, for names that the curator allows, its source distribution.

Fetching and building are apart: what a build needs is resolved (by uv), pinned and fetched as wheels,
without running any package's code, before the sandbox without network builds.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename
from packaging.version import InvalidVersion

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format.requirements import Requirement, parse_lines
from cloudimport.ids import GLIBCS, Pin, Target, normalise_name, normalise_version
from shelf_tools import pins, process
from shelf_tools.building import Builder, BuildError, BuildSystem
from shelf_tools.fetch import OnDone, Wheel, WheelError, digests, fetch, fetch_some, tags
from shelf_tools.indexes import read_indexes, uv_settings
from shelf_tools.interpreters import Interpreter, find_interpreter
from shelf_tools.limits import StageLimits
from shelf_tools.resolve import Line, Query, absolute, resolve
from shelf_tools.sandbox import Sandbox
from shelf_tools.sdists import Sdist, SdistError, fetch_sdist
from shelf_tools.uv_command import UvError

#: Builds at a time: each may use all processors, and much memory.
_BUILDS = 2
#: Times that a backend may ask for more (``get_requires_for_build_wheel`` is asked once and does not change).
_ROUNDS = 3


@dataclass(frozen=True)
class Sourcing:
    """How wheels are had. ``env`` is the curator's environment, ``options`` and ``links`` are the list's.

    ``allowed`` are normalised names of packages that may be built; ``limits`` are for each pip and each
    build. ``note`` is called with lines for a person, in the thread that calls ``wheels``. ``pythons`` are
    interpreters that the curator named, which build for targets of their version.
    """

    env: Mapping[str, str]
    options: Sequence[str]
    links: Mapping[Pin, Sequence[pins.Link]]
    jobs: int
    allowed: Collection[str]
    sandbox: Sandbox
    limits: StageLimits
    note: Callable[[str], None]
    pythons: tuple[Path, ...] = ()

    def wheels(
        self, wanted: Sequence[Requirement], target: Target, into: Path, on_done: OnDone
    ) -> dict[Pin, Wheel]:
        """Return a wheel for each requirement, below the folder ``into``.

        ``on_done`` is called in this thread. Raises WheelError with one line for each pin that failed.
        """
        found, failures = self.some(wanted, target, into, on_done)
        if failures:
            raise WheelError([failures[one.pin] for one in wanted if one.pin in failures])
        return {one.pin: found[one.pin] for one in wanted}

    def some(
        self, wanted: Sequence[Requirement], target: Target, into: Path, on_done: OnDone
    ) -> tuple[dict[Pin, Wheel], dict[Pin, str]]:
        """Do as ``wheels`` does; return the wheels, and by pin the line that says why there is none."""
        found, failures = fetch_some(
            wanted,
            target,
            into,
            env=self.env,
            options=self.options,
            links=self.links,
            jobs=self.jobs,
            on_done=on_done,
            limits=self.limits.fetch,
        )
        to_build = [one for one in wanted if one.pin in failures and one.pin.name in self.allowed]
        for one in to_build:
            self.note(f"{one.pin}: {failures[one.pin].partition(': --allow-sdist')[0]}: its source is tried")

        def take(pin: Pin, outcome: Wheel | Exception) -> None:
            if isinstance(outcome, Wheel):
                found[pin] = outcome
                del failures[pin]
                on_done(pin)
            elif isinstance(outcome, SdistError):
                failures[pin] = f"{failures[pin]}; {outcome}"
            else:
                failures[pin] = str(outcome).removeprefix(f"{pin}: ")

        self._build_all(to_build, target, into, take)
        where = {one.pin: one.where for one in wanted}
        return found, {pin: f"{where[pin]}: {pin}: {reason}" for pin, reason in failures.items()}

    def _build_all(
        self,
        wanted: Sequence[Requirement],
        target: Target,
        into: Path,
        take: Callable[[Pin, Wheel | Exception], None],
    ) -> None:
        """Build, in threads of their own; ``take`` gets each outcome when it is there, in this thread.

        A full disk is the failure of the build that it befell: the others go on.
        """
        with ThreadPoolExecutor(_BUILDS, "build") as pool:
            running = {
                pool.submit(self._build, one, target, into / f"build-{one.pin.name}"): one.pin
                for one in wanted
            }
            try:
                for done in as_completed(running):
                    error = done.exception()
                    if error is not None and not isinstance(error, (CloudImportError, OSError)):
                        raise error
                    take(running[done], error or done.result())
            except BaseException as error:  # what has not begun shall not begin
                for future in running:
                    future.cancel()
                if isinstance(error, (KeyboardInterrupt, SystemExit)):  # and what runs shall end, all of it
                    process.stop_all()
                raise

    def _build(self, one: Requirement, target: Target, folder: Path) -> Wheel:
        """Fetch a source distribution and what it needs, and build it. Raises CloudImportError."""
        here, interpreter = _builder_for(one.pin, target, self.pythons)
        links = self.links.get(one.pin, ())
        indexes = read_indexes(self.env, self.options)
        sdist = fetch_sdist(one, indexes, folder, self.limits.fetch, links)
        builder = Builder(sdist.path, one.pin, interpreter, self.sandbox, self.limits.build)
        system = builder.look()
        known = list(system.requires)
        for attempt in range(_ROUNDS):
            needed = self._requirements(one.pin, known, here, folder / f"needs-{attempt}")
            built = builder.build(system, known, folder / f"needs-{attempt}" / "wheels", folder)
            if built.wheel is not None:
                wheel = _accepted(built.wheel, one.pin, target)
                return wheel._replace(origin=sdist.origin, build=_record(sdist, system, needed, interpreter))
            known += [text for text in built.requires if text not in known]
        raise BuildError(f"{one.pin}: its build backend asks for something else each time")

    def _requirements(self, pin: Pin, known: Sequence[str], here: Target, folder: Path) -> dict[Pin, Wheel]:
        """Resolve what a build needs for this machine, and fetch it as wheels into ``folder``/wheels."""
        wheels = folder / "wheels"
        wheels.mkdir(parents=True)
        wheels.chmod(0o755)
        if not known:
            return {}
        for text in known:
            _check_named(pin, text)
        asked = folder / "requirements.in"
        asked.write_text("\n".join([*map(absolute, self.options), *known]) + "\n", encoding="utf-8")
        query = Query(
            (str(asked),), ("--generate-hashes", "--no-annotate"), uv_settings(self.env), self.limits.fetch
        )
        try:
            found, _ = resolve(query, here, (), folder)
        except (UvError, ConfigurationError) as error:
            raise BuildError(f"{pin}: what it needs to be built cannot be resolved: {error}") from error
        where = f"build requirements of {pin}"
        wanted = pins.for_target(
            parse_lines((str(Line(one.name, one.text, "", one.hashes, ())) for one in found), where), here
        )
        try:
            fetched = fetch(
                wanted,
                here,
                wheels,
                env=self.env,
                options=self.options,
                jobs=self.jobs,
                limits=self.limits.fetch,
            )
        except WheelError as error:
            raise BuildError(
                f"{pin}: what it needs to be built cannot be fetched: {error.failures[0]}"
            ) from error
        for path in wheels.iterdir():
            path.chmod(0o644)
        return fetched


def _builder_for(pin: Pin, target: Target, pythons: Sequence[Path]) -> tuple[Target, Interpreter]:
    """Return this machine as a target of the same Python, and its interpreter.

    Of another machine's target too: what is built there may turn out to be pure Python. Raises BuildError.
    """
    library = tuple(map(int, platform.libc_ver()[1].split(".")[:2])) or (2, 17)
    glibc = max((one for one in GLIBCS if one <= library), default=GLIBCS[0])
    here = Target(target.python, glibc, platform.machine())
    interpreter = find_interpreter(here, pythons)
    if interpreter is None:
        version = ".".join(map(str, target.python))
        raise BuildError(
            f"{pin}: it is built from source, and there is no CPython {version} on this machine to do it"
            f": 'uv python install {version}', or --python"
        )
    return here, interpreter


def _check_named(pin: Pin, text: str) -> None:
    """Check that a build requirement is a name with a version: a URL or a path is not fetched."""
    from packaging.requirements import InvalidRequirement
    from packaging.requirements import Requirement as Dependency

    try:
        url = Dependency(text).url  # refuses line feeds too: a line of its own would be an option of uv's
    except (InvalidRequirement, RecursionError):
        raise BuildError(f"{pin}: its build requirement {text[:200]!r} is not valid") from None
    if url:
        raise BuildError(f"{pin}: its build requirement {text[:200]!r} is a URL, which is not fetched")


def _accepted(path: Path, pin: Pin, target: Target) -> Wheel:
    """Return the wheel that was built: of the pin, with tags that the target takes. Raises BuildError."""
    try:
        name, version, _, found = parse_wheel_filename(path.name)
    except (InvalidWheelFilename, InvalidVersion):
        raise BuildError(f"{pin}: the build made {path.name[:200]!r}, which is no wheel's name") from None
    actual = Pin(normalise_name(name), normalise_version(str(version)))
    if actual != pin:
        raise BuildError(f"{pin}: the build made a wheel of {actual}")
    if not found & tags(target):
        raise BuildError(
            f"{pin}: the wheel that was built here is for {', '.join(sorted(map(str, found)))[:200]}, which "
            f"{target} does not take: build it on such a machine, and name its folder with --find-links"
        )
    return Wheel(path, path.name, digests(path), path.stat().st_size)


def _record(
    sdist: Sdist, system: BuildSystem, needed: Mapping[Pin, Wheel], interpreter: Interpreter
) -> dict[str, Any]:
    """Return what provenance says of a build (docs/format.md, section 8)."""
    return {
        "sdist": {"name": sdist.filename, **sdist.hashes, "size": sdist.size},
        "backend": system.backend,
        "requires": [{"name": wheel.filename, "sha256": wheel.sha256} for wheel in needed.values()],
        "interpreter": str(interpreter),
        "libc": " ".join(platform.libc_ver()),
        "machine": platform.machine(),
    }
