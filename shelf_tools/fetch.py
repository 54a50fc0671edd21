"""Wheels for pins, downloaded by pip, which runs no package code when it may take wheels only.

pip is used as a command, with the caller's environment and so with the user's indexes,
credentials and certificates. What it downloads is checked again here: name, version, tags, hash.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from cloudimport.errors import CloudImportError, ConfigurationError
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target, normalise_name, normalise_version
from shelf_tools import process
from shelf_tools.limits import FETCH, FETCH_LIMITS, FetchLimits, limited, passed, speaks
from shelf_tools.origins import Origin, named, origins
from shelf_tools.pins import Link, python_full_version

#: Pins for one pip. Measured, 65 pins, 148 MB, 2 cores: 14.1 s with one pip, 7.3 to 8.6 s with batches
#: of 33 to 5 and as many pips as there are cores or more, 19.7 s with one pip for each pin (it takes
#: 0.4 s to start). A small batch shows progress sooner.
BATCH = 8
#: manylinux names from before PEP 600, by glibc version and machine (PEP 513, 571, 599).
_LEGACY = {
    ("x86_64", (2, 5)): "manylinux1",
    ("x86_64", (2, 12)): "manylinux2010",
    ("x86_64", (2, 17)): "manylinux2014",
    ("aarch64", (2, 17)): "manylinux2014",
}
#: The oldest glibc minor version (of 2) that wheels for a machine were ever made for.
_OLDEST = {"x86_64": 5, "aarch64": 17}
#: Settings of pip that would change which file is fetched or where it goes; all others are the user's.
_NOT_OURS = (
    "PLATFORM ABI PYTHON_VERSION IMPLEMENTATION NO_BINARY ONLY_BINARY NO_DEPS DEST REQUIREMENT PYTHON "
    "IGNORE_REQUIRES_PYTHON REQUIRE_VIRTUALENV QUIET VERBOSE LOG PROGRESS_BAR DRY_RUN EDITABLE"
)

#: Hashes that pip enforces; a list may have any of them.
_STRONG = ("sha256", "sha384", "sha512")

OnDone = Callable[[Pin], None]


def _silent(_: object) -> None:
    return


class Wheel(NamedTuple):
    """A downloaded wheel: ``size`` in bytes; ``hashes`` by algorithm, hexadecimal: pip's strong ones.

    ``origin`` is None if pip does not say. ``build`` is the record of how it was built from source, None if
    it was not; ``origin`` is that of the source distribution then.
    """

    path: Path
    filename: str
    hashes: Mapping[str, str]
    size: int
    origin: Origin | None = None
    build: Mapping[str, Any] | None = None

    @property
    def sha256(self) -> str:
        """Its SHA-256, hexadecimal."""
        return self.hashes["sha256"]


class WheelError(CloudImportError):
    """Some pins have no wheel that could be had; ``failures`` are the lines of the text, one a pin."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("\n".join(failures))
        self.failures = tuple(failures)


def fetch(
    requirements: Iterable[Requirement],
    target: Target,
    into: Path,
    *,
    env: Mapping[str, str],
    options: Sequence[str] = (),
    links: Mapping[Pin, Sequence[Link]] = MappingProxyType({}),
    jobs: int | None = None,
    on_done: OnDone = _silent,
    limits: FetchLimits = FETCH_LIMITS,
) -> dict[Pin, Wheel]:
    """Download a wheel for each requirement into the folder ``into`` and return them by pin.

    ``requirements`` are those that hold for the target, one for each pin (``pins.for_target``);
    their hashes are enforced. ``env`` is pip's environment; ``options`` are lines for its
    requirements file that name indexes (``Listed.options``). A pin with ``links`` comes from the wheel there
    that fits best, and from nowhere else. ``jobs`` pips run at once (the
    number of processors, two at least). ``on_done`` is called in this thread. ``limits`` are
    for each pip. Raises WheelError with one line for each pin that failed.
    """
    wanted = tuple(requirements)
    wheels, failures = fetch_some(
        wanted,
        target,
        into,
        env=env,
        options=options,
        links=links,
        jobs=jobs,
        on_done=on_done,
        limits=limits,
    )
    if failures:
        raise WheelError([f"{r.where}: {r.pin}: {failures[r.pin]}" for r in wanted if r.pin in failures])
    return {requirement.pin: wheels[requirement.pin] for requirement in wanted}


def fetch_some(
    wanted: Sequence[Requirement],
    target: Target,
    into: Path,
    *,
    env: Mapping[str, str],
    options: Sequence[str] = (),
    links: Mapping[Pin, Sequence[Link]] = MappingProxyType({}),
    jobs: int | None = None,
    on_done: OnDone = _silent,
    limits: FetchLimits = FETCH_LIMITS,
) -> tuple[dict[Pin, Wheel], dict[Pin, str]]:
    """Download as ``fetch`` does; return the wheels, and by pin why there is none."""
    fetcher = _Fetcher(target, into, _environment(env), tuple(options), links, limits)
    into.mkdir(parents=True, exist_ok=True)
    wheels: dict[Pin, Wheel] = {}
    failures: dict[Pin, str] = {}
    with ThreadPoolExecutor(jobs or max(2, os.cpu_count() or 2), "fetch") as pool:
        running: set[Future[_Outcome]] = {pool.submit(fetcher.batch, batch) for batch in _batches(wanted)}
        try:
            for finished in as_completed(running):
                outcome = finished.result()
                failures.update(outcome.failures)
                for pin, wheel in outcome.wheels.items():
                    wheels[pin] = wheel
                    on_done(pin)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return wheels, failures


def digests(path: Path) -> dict[str, str]:
    """Return a file's hashes by algorithm, hexadecimal: those that a list may have."""
    return _digests(path, _STRONG)


def platforms(target: Target) -> list[str]:
    """Return the platform tags that ``target`` accepts, best first (PEP 600 and its forerunners)."""
    out = []
    for minor in range(target.glibc[1], _OLDEST[target.machine] - 1, -1):
        out.append(f"manylinux_2_{minor}_{target.machine}")
        legacy = _LEGACY.get((target.machine, (2, minor)))
        out += [f"{legacy}_{target.machine}"] if legacy else []
    return [*out, f"linux_{target.machine}"]


def tags(target: Target) -> frozenset[Tag]:
    """Return the wheel tags that ``target`` accepts (PEP 425)."""
    return frozenset(ordered_tags(target))


def ordered_tags(target: Target) -> list[Tag]:
    """Return the wheel tags that ``target`` accepts, best first."""
    where = platforms(target)
    own = cpython_tags(target.python, [target.interpreter], where)
    return list(dict.fromkeys([*own, *compatible_tags(target.python, target.interpreter, where)]))


class _Outcome(NamedTuple):
    wheels: dict[Pin, Wheel]
    failures: dict[Pin, str]


def _batches(requirements: Sequence[Requirement]) -> list[tuple[Requirement, ...]]:
    """Return batches for pip, which wants a hash for every line or for none."""
    hashed = [r for r in requirements if r.hashes]
    bare = [r for r in requirements if not r.hashes]
    return [tuple(group[at : at + BATCH]) for group in (hashed, bare) for at in range(0, len(group), BATCH)]


def _environment(env: Mapping[str, str]) -> dict[str, str]:
    dropped = {f"PIP_{name}" for name in _NOT_OURS.split()}
    kept = {name: value for name, value in env.items() if name not in dropped}
    return {**kept, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "LC_ALL": "C.UTF-8"}


class _Fetcher:
    """Runs pip for batches; safe to be used by several threads."""

    def __init__(
        self,
        target: Target,
        into: Path,
        env: dict[str, str],
        options: tuple[str, ...],
        links: Mapping[Pin, Sequence[Link]],
        limits: FetchLimits,
    ) -> None:
        self._target = target
        self._tags = {tag: at for at, tag in enumerate(ordered_tags(target))}
        self._links = links
        self._into = into
        self._env = env
        self._options = options
        self._limits = limits

    def batch(self, batch: Sequence[Requirement]) -> _Outcome:
        """Fetch a batch. If pip fails, halve it until what fails is one pin, and say why."""
        unfit = {one.pin: self._unfit(one) for one in batch if self._unfit(one)}
        found = self._fetch([one for one in batch if one.pin not in unfit])
        return _Outcome(found.wheels, {**found.failures, **unfit})

    def _unfit(self, one: Requirement) -> str:
        """Return why none of the wheels that the list names for a pin will do, or ""."""
        links = self._links.get(one.pin, ())
        if not links or self._link(one):
            return ""
        return _no_wheel([link.filename for link in links], self._target, one.pin.name)

    def _link(self, one: Requirement) -> Link | None:
        """Return the best of the wheels that the list names for a pin."""
        found = [
            (min(rank), at, link)
            for at, link in enumerate(self._links.get(one.pin, ()))
            if link.is_wheel
            and (
                rank := [
                    self._tags[tag] for tag in parse_wheel_filename(link.filename)[3] if tag in self._tags
                ]
            )
        ]
        return min(found)[2] if found else None

    def _fetch(self, batch: Sequence[Requirement]) -> _Outcome:
        if not batch:
            return _Outcome({}, {})
        try:
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=self._into) as folder:
                finished = self._pip(batch, Path(folder))
                if finished.returncode == 0:
                    return self._take(batch, Path(folder))
        except process.ProcessTimeout:
            return _all(batch, passed("wall_seconds", self._limits, FETCH))
        except process.ProcessError as error:
            return _all(batch, str(error))
        general = _general(finished)
        if general:
            return _all(batch, general)
        if len(batch) == 1:
            link = self._link(batch[0])
            gone = _refused(link, finished) if link else ""
            asked = batch[0]._replace(hashes=link.hashes) if link else batch[0]
            return _all(batch, gone or explain(asked, self._target, finished, self._limits))
        middle = len(batch) // 2
        first, second = self._fetch(batch[:middle]), self._fetch(batch[middle:])
        return _Outcome({**first.wheels, **second.wheels}, {**first.failures, **second.failures})

    def _pip(self, batch: Sequence[Requirement], folder: Path) -> process.Finished:
        listed = folder / "requirements.txt"
        listed.write_text("\n".join([*self._options, *map(self._line, batch)]) + "\n", encoding="utf-8")
        # -I: neither the current folder nor PYTHONPATH can put other code in pip's place.
        argv = [*limited(self._limits), sys.executable, "-I", "-m", "pip", "download", "--progress-bar=off"]
        argv += ["--no-deps", "--only-binary=:all:", "--implementation=cp"]
        argv += [f"--python-version={python_full_version(self._target)}"]
        argv += [f"--abi={abi}" for abi in (self._target.interpreter, "abi3", "none")]
        argv += [f"--platform={platform}" for platform in platforms(self._target)]
        argv += [f"--dest={folder / 'wheels'}", f"--requirement={listed}", f"--log={folder / 'log'}"]
        # What pip skips, and why, is what an error has to tell; it says so at this level only.
        argv += ["-vv"] if len(batch) == 1 else []
        if batch[0].hashes:
            argv.append("--require-hashes")
        # What a pip that is killed leaves goes with the folder.
        return process.run(argv, timeout=self._limits.wall_seconds, env={**self._env, "TMPDIR": str(folder)})

    def _line(self, one: Requirement) -> str:
        """Return a pin as a line for pip."""
        link = self._link(one)
        what = f"{one.pin.name} @ {link.url}" if link else str(one.pin)
        return " ".join([what, *(f"--hash={value}" for value in (link or one).hashes)])

    def _take(self, batch: Sequence[Requirement], folder: Path) -> _Outcome:
        """Check what pip left and move it to its place."""
        outcome = _Outcome({}, {})
        found: dict[Pin, Path] = {}
        for path in sorted((folder / "wheels").iterdir()):
            pin = _pin_of(path.name)
            if pin is not None:
                found[pin] = path
        for one in batch:
            try:
                outcome.wheels[one.pin] = self._checked(one, found)
            except ConfigurationError as error:
                outcome.failures[one.pin] = str(error)
        known = _origins(folder / "log", [wheel.filename for wheel in outcome.wheels.values()])
        wheels = {pin: one._replace(origin=known.get(one.filename)) for pin, one in outcome.wheels.items()}
        for one in batch:
            link = self._link(one)
            if link and one.pin in wheels:  # of these pip says nothing
                wheels[one.pin] = wheels[one.pin]._replace(origin=named(link.url, link.page))
        return _Outcome(wheels, outcome.failures)

    def _checked(self, one: Requirement, found: Mapping[Pin, Path]) -> Wheel:
        """Return the wheel in its place. Raises ConfigurationError with the reason."""
        path = found.get(one.pin)
        if path is None:
            others = ", ".join(sorted(other.name for other in found.values()))
            raise ConfigurationError(f"no wheel of that name and version was downloaded, but {others}")
        if self._tags.keys().isdisjoint(parse_wheel_filename(path.name)[3]):
            raise ConfigurationError(f"{path.name} is not for {self._target}")
        found_hashes = digests(path)
        if one.hashes and not any(f"{name}:{digest}" in one.hashes for name, digest in found_hashes.items()):
            raise ConfigurationError(_mismatch(one, path.name, found_hashes["sha256"]))
        kept = self._into / path.name
        os.replace(path, kept)
        kept.chmod(0o644)  # a sandbox of another uid reads it, whatever the curator's umask
        return Wheel(kept, path.name, found_hashes, kept.stat().st_size)


def _all(batch: Sequence[Requirement], reason: str) -> _Outcome:
    return _Outcome({}, {one.pin: reason for one in batch})


def _pin_of(filename: str) -> Pin | None:
    """Return the pin of a wheel's file name, or None if it is none."""
    try:
        name, version, _, _ = parse_wheel_filename(filename)
    except (InvalidWheelFilename, InvalidVersion):
        return None
    return Pin(normalise_name(name), normalise_version(str(version)))


def _digests(path: Path, algorithms: Iterable[str]) -> dict[str, str]:
    hashes = {name: hashlib.new(name) for name in algorithms}
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            for one in hashes.values():
                one.update(chunk)
    return {name: one.hexdigest() for name, one in hashes.items()}


def _origins(log: Path, filenames: Sequence[str]) -> Mapping[str, Origin]:
    try:
        with open(log, encoding="utf-8", errors="replace") as lines:
            return origins(lines, filenames)
    except OSError:
        return {}


_HOST = re.compile(r"[a-z]+://(?:[^@/\s,]*@)?([^/\s,]+)")
#: The last try of pip's session, and what it says when it was told to try once only.
_BROKEN = re.compile(
    r"(?:total=0,.*after connection broken by|: connection error:|the ssl certificate)(?P<why>.*)"
)
_CAUSE = re.compile(
    r"\[Errno -?[0-9]+\] ([A-Za-z ]+)|(certificate verify failed)|(timed? ?out)", re.IGNORECASE
)
_DENIED = re.compile(r"Could not fetch URL .*?: (40[137]) |ERROR: HTTP error (40[137]) ")
_FAULT = re.compile(r"ERROR: HTTP error (5[0-9][0-9]) |too many (5[0-9][0-9]) error responses")
_STATUS = re.compile(r"ERROR: HTTP error ([45][0-9][0-9]) ")
_CREDENTIALS = re.compile(r"(?<=://)[^/@]*@")
#: Begins where a name can begin only: from every character on, a long line would take hours.
_FILE = re.compile(
    r"(?<![A-Za-z0-9._+!%-])([A-Za-z0-9][A-Za-z0-9._+!%-]*(?:\.whl|\.tar\.gz|\.zip))(?:#|\s|$)"
)
_PYTHON = re.compile(r"Link requires a different Python \(\S+ not in: '(?P<wanted>[^']*)'\): (?P<url>\S+)")
_PACKAGE_PYTHON = re.compile(r"requires a different Python: \S+ not in '([^']*)'")
_INVALID = re.compile(r"has invalid metadata: (?P<why>.+)")
_INCONSISTENT = re.compile(
    r"has inconsistent (?P<field>\w+): expected '[^']*', but metadata has '(?P<got>[^'\n]*)"
)
#: Characters of a line of pip's that are looked at: it quotes metadata, which may be of any length.
_LONGEST_LINE = 4000
_GOT = re.compile(r"Got\s+([0-9a-f]{64,128})")


def _said(finished: process.Finished) -> str:
    text = (finished.stdout + b"\n" + finished.stderr).decode("utf-8", "replace")
    return "\n".join(line[:_LONGEST_LINE] for line in text.split("\n"))


def _general(finished: process.Finished) -> str:
    """Return why pip can fetch nothing at all, or ""."""
    said = _said(finished)
    if "No module named pip" in said:
        return f"pip is not installed for {sys.executable}: run '{sys.executable} -m ensurepip'"
    return _unreachable(said)


def _unreachable(said: str) -> str:
    """Return that an index cannot be reached, with the cause and the configured indexes, or ""."""
    broken = _BROKEN.search(said)
    if broken is None:
        return ""
    cause = _CAUSE.search(broken["why"])
    because = f" ({next(filter(None, cause.groups())).strip().lower()})" if cause else ""
    line = next((line for line in said.splitlines() if line.startswith("Looking in indexes:")), "")
    hosts = ", ".join(dict.fromkeys(_HOST.findall(line)))
    return f"the package index cannot be reached{because}" + (f": {hosts}" if hosts else "")


def _refused(link: Link, finished: process.Finished) -> str:
    """Return that the server of a link does not give it out, or cannot be reached, or ""."""
    said = _said(finished)
    status, cause = _STATUS.search(said), _CAUSE.search(said)
    if _GOT.search(said) or not (status or cause):
        return ""
    why = (
        f"HTTP {status[1]}" if status else next(filter(None, cause.groups())).strip().lower() if cause else ""
    )
    return f"{_CREDENTIALS.sub('', link.url)} cannot be fetched ({why})"


def explain(
    one: Requirement, target: Target, finished: process.Finished, limits: FetchLimits = FETCH_LIMITS
) -> str:
    """Return in one line why pip, run with ``-vv`` for one requirement, found no wheel for it."""
    said = _said(finished)
    got = _GOT.search(said)
    if got and one.hashes:
        file = next((name for name in _files(said, one.pin.name) if _pin_of(name) == one.pin), "the wheel")
        return _mismatch(one, file, got[1])
    files = _files(said, one.pin.name)
    ours = [name for name in files if files[name] == one.pin.version]
    python = _wanted_python(ours, said)
    if python:
        return f"needs Python {python}, the target has {target.python[0]}.{target.python[1]}"
    metadata = _wrong_metadata(said)
    if metadata and ours:
        return metadata
    if ours and "No matching distribution" in said:
        return _no_wheel(ours, target, one.pin.name)
    if _BROKEN.search(said):
        return _unreachable(said)
    for pattern, what in ((_DENIED, "refuses access"), (_FAULT, "answers with an error")):
        match = pattern.search(said)
        if match and not files:
            return f"the package index {what} (HTTP {match[1] or match[2]})"
    if files and "No matching distribution" in said:
        newest = sorted({Version(version) for version in files.values()}, reverse=True)[:5]
        return f"there is no such version; the newest are {', '.join(map(str, newest))}"
    if "No matching distribution" in said:
        return "no package of this name is known to the package index"
    return _failed(finished, limits)


def _wrong_metadata(said: str) -> str:
    """Return what pip says is wrong with a wheel's METADATA, or ""."""
    other, invalid = _INCONSISTENT.search(said), _INVALID.search(said)
    if other:
        return f"the wheel's METADATA has another {other['field'].lower()}: {other['got'][:100]!r}"
    return f"its metadata is not valid: {invalid['why'].strip()[:300]}" if invalid else ""


def _failed(finished: process.Finished, limits: FetchLimits) -> str:
    """Return why pip itself ended."""
    for field in ("memory_bytes", "file_bytes"):
        if speaks(finished.reason(), field):
            return passed(field, limits, FETCH)
    return f"pip failed: {finished.reason()}"


def _mismatch(one: Requirement, filename: str, got: str) -> str:
    allowed = " or ".join(value.partition(":")[2] for value in one.hashes)
    return f"{filename} does not have the hash in the list: expected {allowed}, got {got}"


def _files(said: str, name: str) -> dict[str, str]:
    """Return the file names of a package that pip mentions, with their versions."""
    out: dict[str, str] = {}
    for filename in dict.fromkeys(_FILE.findall(said)):
        filename = filename.replace("%2B", "+").replace("%21", "!")
        try:
            wheel = filename.endswith(".whl")
            found, version = parse_wheel_filename(filename)[:2] if wheel else parse_sdist_filename(filename)
        except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
            continue
        if found == name:
            out[filename] = normalise_version(str(version))
    return out


def _wanted_python(files: Sequence[str], said: str) -> str:
    """Return the Requires-Python that the target does not meet, from METADATA or the index, or ""."""
    package = _PACKAGE_PYTHON.search(said)
    links = (m["wanted"] for m in _PYTHON.finditer(said) if any(name in m["url"] for name in files))
    return package[1] if package else next(links, "")


def _no_wheel(files: Sequence[str], target: Target, name: str) -> str:
    """Say what there is instead of a wheel for the target."""
    build = f"--allow-sdist {name} builds it in the sandbox"
    wheels = [file for file in files if file.endswith(".whl")]
    if not wheels:
        return f"there is no wheel of this version, only a source distribution: {build}"
    # Those that differ only by interpreter or by the C library's version come first.
    known = sorted({"-".join(name[:-4].split("-")[-3:]) for name in wheels})
    own = target.interpreter
    known.sort(
        key=lambda tag: ("manylinux" not in tag, not tag.endswith(target.machine), not tag.startswith(own))
    )
    more = f" and {len(known) - 6} more" if len(known) > 6 else ""
    source = f"; there is a source distribution: {build}" if len(wheels) < len(files) else ""
    return f"there is no wheel for {target}; there are wheels for {', '.join(known[:6])}{more}{source}"
