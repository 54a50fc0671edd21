"""From a function to the sandbox that it runs in: interpreter, packages, variables, mounts."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cloudimport import environments
from cloudimport.errors import ConfigurationError
from cloudimport.format.lock import Lock
from cloudimport.format.requirements import decode, parse_file
from cloudimport.ids import PYTHONS, Target, running_targets
from cloudimport.settings import Settings, default_shelf, resolve
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.profiles import Profiles
from shelf_tools.interpreters import Interpreter, find_interpreter
from shelf_tools.lambdabox.box import MIB, Box
from shelf_tools.lambdabox.runtime import laid_out
from shelf_tools.serving.heeding import Heeding, pins_of
from shelf_tools.serving.layer import runtime_layer
from shelf_tools.serving.registry import Function
from shelf_tools.serving.tier import Tier
from shelf_tools.swap import write_bytes

#: Variables of the server's that a function gets by name, unless it has variables for AWS of its own.
PASSED = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
    *("AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED"),
)
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
#: Settings of the server's that hold for its functions, too.
_POLICY = ("CLOUDIMPORT_ROOT", "CLOUDIMPORT_YANKED", "CLOUDIMPORT_STATUS_TTL", "CLOUDIMPORT_STATUS_UNKNOWN")
#: Variables of a function's that are heeded here, and that its sandboxes do not get: they have no files of
#: profiles, and a lockfile that was checked, or that the server has made and nobody signed.
_HEEDED = ("AWS_PROFILE", *_POLICY)
#: Where a sandbox sees what is the server's.
_LOCK, _SHARED, _STORE, _ROOTS = (f"/var/shelf/{name}" for name in ("lock", "tier", "store", "roots.pem"))
_PRELUDE = """\
import os

if os.environ.get("CLOUDIMPORT_LOCK"):
    import cloudimport

    cloudimport.install()
"""
#: Of blocks that a sandbox keeps in its /tmp, which is memory: the tier has them all.
_CACHE_SIZE = "16M"


@dataclass(frozen=True)
class Sizes:
    """Limits of one sandbox: bytes of memory and of /tmp, seconds of an invocation."""

    memory_bytes: int
    tmp_bytes: int
    timeout: float


class Packages(NamedTuple):
    """What a function imports from the shelf: for which target, by which lockfile, from where."""

    target: Target
    python: Interpreter
    lock: Path | None = None
    shared: Path | None = None
    shelf: str = ""


class Preparer:
    """Makes boxes. ``cache`` is a folder for what is kept; ``shelf`` wins over what locks say."""

    def __init__(
        self,
        cache: Path,
        shelf: str,
        environ: Mapping[str, str],
        pythons: Sequence[Path],
        tier: Tier,
        say: Callable[[str], None],
    ) -> None:
        self._cache, self._shelf, self._environ, self._tier = cache, shelf, dict(environ), tier
        self._pythons, self._say = tuple(pythons), say
        self._heeding: dict[str, Heeding] = {}
        self._making = threading.Lock()

    def heed(self, function: Function) -> None:
        """Look whether pins of a function that has a box are yanked; see ``Heeding.look``."""
        if (heeding := self._heeding.get(function.name)) is not None:
            heeding.look()

    def box(self, function: Function, sizes: Sizes) -> Box:
        """Return the box of a function, with all that it needs on this machine.

        Raises ConfigurationError, NotPublishedError, TierError, a FetchError, FormatError or OSError.
        """
        environ = self._credentials(function)
        packages = self._packages(function, environ)
        version = f"{packages.target.python[0]}.{packages.target.python[1]}"
        with self._making:  # who makes a folder again takes it from sandboxes that see it
            runtime = laid_out(self._cache / "var-runtime", version, _PRELUDE)
            layer = runtime_layer(self._cache, packages.target, packages.python, self._environ)
        said = {**function.variables, **environ}
        mounts, variables = _mounted(packages, {n: v for n, v in said.items() if n not in _HEEDED})
        return Box(
            packages.python.prefix,
            function.folder,
            runtime,
            handler=function.handler,
            name=function.name,
            layers=(layer,),
            environ={**variables, "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(sizes.memory_bytes // MIB)},
            tmp_bytes=sizes.tmp_bytes,
            # A wall behind the limit that is watched: threads' stacks and C libraries' arenas count here.
            memory_bytes=2 * sizes.memory_bytes + 512 * MIB,
            mounts=tuple(mounts),
        )

    def _credentials(self, function: Function) -> dict[str, str]:
        """Return what a function reads the store with: its own, else the server's, by name."""
        own = function.variables
        passed = {name: self._environ[name] for name in PASSED if self._environ.get(name)}
        if "AWS_PROFILE" in own or "AWS_ACCESS_KEY_ID" in own:
            passed = {name: value for name, value in passed.items() if name not in _KEYS}
        if "AWS_PROFILE" in own:
            environ = {**self._environ, "AWS_PROFILE": own["AWS_PROFILE"]}
            said = Profiles(SourceConfig(environ=environ)).settings()
            found = {name: said[name.lower()] for name in _KEYS if said.get(name.lower())}
            if not found:
                raise ConfigurationError(
                    f"the profile {own['AWS_PROFILE']!r} of {function.name} has no access key: a function "
                    "gets keys, not the files of who serves it"
                )
            passed.update(found, **({"AWS_REGION": said["region"]} if said.get("region") else {}))
        return {**passed, **{name: value for name, value in own.items() if name.startswith("AWS_")}}

    def _packages(self, function: Function, environ: Mapping[str, str]) -> Packages:
        """Return what a function imports from the shelf; its packages are in the tier then."""
        self._heeding.pop(function.name, None)  # of what it needed before
        source = function.lock or function.requirements
        if source is None or (function.lock is None and not _has_lines(source)):
            return Packages(*self._python(lambda _: True, function.name))
        reading = {**self._reading(environ), **_own_settings(function)}
        settings = resolve(
            str(function.requirements or "") or None, None, str(function.lock or "") or None, "/", reading
        )
        if function.lock:
            locked = environments.read_lock(settings)
            url = settings.shelf or self._shelf or locked.shelf or default_shelf(self._environ)
            target, python = self._python(lambda one: str(one) in locked.targets, str(source), locked)
            lock = self._kept(function.lock.read_bytes())
        else:
            url = settings.shelf or self._shelf or default_shelf(self._environ)
            lock, locked, target, python = self._resolved(function, settings, url, reading)
        shared = self._tier.ensure(url, reading, locked, str(target), function.name)
        pins, asked = pins_of(shared, locked.targets[str(target)]), self._tier.source(url, reading)
        self._heeding[function.name] = Heeding(function.name, pins, asked, settings, self._say)
        return Packages(target, python, lock, shared, url)

    def _reading(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that the server reads a store with for a function."""
        has_own = any(environ.get(name) != self._environ.get(name) for name in _KEYS)
        kept = list(self._environ.items())
        if has_own:  # none of the server's own ways to credentials
            kept = [(n, v) for n, v in kept if not n.startswith("AWS_") or n in environ]
        plain = {name: value for name, value in kept if not name.startswith("CLOUDIMPORT_")}
        said = {name: self._environ[name] for name in _POLICY if self._environ.get(name)}
        return {**plain, **environ, **said}

    def _resolved(
        self, function: Function, settings: Settings, url: str, environ: Mapping[str, str]
    ) -> tuple[Path, Lock, Target, Interpreter]:
        """Return a lockfile for a function's requirements: what the shelf has for them now."""
        offered = self._targets()
        ref, name = environments.from_shelf(
            self._tier.source(url, environ), settings, [target for target, _ in offered]
        )
        found = parse_file(settings.requirements, lambda path: decode(Path(path).read_bytes()))
        lock = Lock(url, tuple(sorted({one.line for one in found})), {name: ref}, {})
        target, python = next((t, p) for t, p in offered if str(t) == name)
        return self._kept(lock.encode().encode()), lock, target, python

    def _kept(self, lock: bytes) -> Path:
        """Return a file with a lockfile's bytes that every user may read."""
        path = self._cache / "locks" / f"{hashlib.sha256(lock).hexdigest()[:32]}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, lock)
        return path

    def _targets(self) -> list[tuple[Target, Interpreter]]:
        """Return the targets that this machine has an interpreter for, the running version's first."""
        own = running_targets()
        versions = sorted(PYTHONS, key=lambda python: (python != own[0].python, [-part for part in python]))
        found = []
        for python in versions:
            interpreter = find_interpreter(own[0]._replace(python=python), self._pythons)
            if interpreter is not None:
                found += [(target._replace(python=python), interpreter) for target in own]
        return found

    def _python(
        self, fits: Callable[[Target], bool], what: str, locked: Lock | None = None
    ) -> tuple[Target, Interpreter]:
        offered = self._targets()
        for target, interpreter in offered:
            if fits(target):
                return target, interpreter
        had = ", ".join(sorted(locked.targets)) if locked else "any"
        versions = ", ".join(dict.fromkeys(f"{t.python[0]}.{t.python[1]}" for t, _ in offered))
        raise ConfigurationError(
            f"{what} is for {had}, and this machine has CPython {versions}: publish it for one of "
            "these, or name an interpreter with --python"
        )


def _has_lines(path: Path) -> bool:
    lines = path.read_text("utf-8", "replace").splitlines()
    return any(line.strip() and not line.strip().startswith("#") for line in lines)


def _own_settings(function: Function) -> dict[str, str]:
    return {name: value for name, value in function.variables.items() if name.startswith("CLOUDIMPORT_")}


def _mounted(packages: Packages, environ: Mapping[str, str]) -> tuple[list[tuple[Path, str]], dict[str, str]]:
    """Return mounts, and variables that name what is mounted."""
    mounts, variables = [], dict(environ)
    if variables.get("AWS_CA_BUNDLE"):
        mounts.append((Path(variables["AWS_CA_BUNDLE"]), _ROOTS))
        variables["AWS_CA_BUNDLE"] = _ROOTS
    if packages.lock is None or packages.shared is None:
        return mounts, variables
    mounts += [(packages.lock, _LOCK), (packages.shared, _SHARED)]
    url = packages.shelf.removeprefix("file://")
    if "://" not in url:  # a folder of this machine
        mounts.append((Path(url), _STORE))
        url = _STORE
    given = {"CLOUDIMPORT_SHELF": url, "CLOUDIMPORT_LOCK": _LOCK, "CLOUDIMPORT_SHARED": _SHARED}
    # The server heeds them (``Preparer.heed``): a request of each sandbox for that would be one too many.
    given["CLOUDIMPORT_YANKED"] = "ignore"
    return mounts, {"CLOUDIMPORT_CACHE_SIZE": _CACHE_SIZE, **variables, **given}
