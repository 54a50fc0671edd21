"""The record of whence a build came and how it was made (docs/format.md, section 8), and the policy on it."""

from __future__ import annotations

import platform
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

from cloudimport import __version__
from cloudimport.errors import ConfigurationError
from cloudimport.format.requirements import Requirement
from cloudimport.ids import Pin, Target
from shelf_tools import process
from shelf_tools.attestations import AttestationError, Attested, refresh, verify
from shelf_tools.fetch import Wheel
from shelf_tools.limits import Limits
from shelf_tools.pins import select

if TYPE_CHECKING:
    from shelf_tools.listings import Listings

#: What ``--require-attestation`` takes for every pin.
ALL = "all"
_FLAG = "--require-attestation"
#: Hashes of a list that an error has in full.
_NAMED = 3
#: Distributions whose versions are recorded: what touched the bytes.
_TOOLS = (
    "backports.zstd",
    "installer",
    "packaging",
    "pip",
    "pyelftools",
    "pypi-attestations",
    "sigstore",
    "uv",
)


class Whence(NamedTuple):
    """What an index says of a wheel, or of the source distribution that it was built from: upload time ("" if
    not known), attestations that were checked, and what is wrong with those that were refused.
    """

    uploaded: str = ""
    attested: tuple[Attested, ...] = ()
    refused: str = ""


def required(names: Iterable[str], pins: Iterable[Pin]) -> frozenset[Pin]:
    """Return the pins that must be attested: ``all``, or names. Raises ConfigurationError."""
    listed = tuple(pins)
    wanted = tuple(names)
    return frozenset(listed) if ALL in wanted else select(wanted, listed, _FLAG)


class Examiner:
    """Asks whence wheels came; used by several threads."""

    def __init__(
        self, environ: Mapping[str, str], options: Sequence[str], required_pins: frozenset[Pin]
    ) -> None:
        self._environ, self._options = environ, options
        self._required = required_pins
        self._listings: Listings | None = None
        self._lock = threading.Lock()
        self._noted: set[str] = set()

    def examine(self, pin: Pin, wheel: Wheel) -> tuple[Whence, list[str]]:
        """Return whence a wheel came, and notes. Raises ConfigurationError if the policy refuses it."""
        notes: list[str] = []
        whence, why = self._look(wheel, notes)
        if pin in self._required and (not whence.attested or whence.refused):
            raise ConfigurationError(f"{pin}: {_FLAG}: {why}")
        return whence, [note for note in notes if self._is_new(note)]

    def check_published(self, pin: Pin, target: str, record: Mapping[str, Any]) -> None:
        """Check the record of a build that is on the shelf. Raises ConfigurationError if the policy does not
        take it.
        """
        if pin in self._required and not record.get("attestations"):
            raise ConfigurationError(
                f"{pin}: {_FLAG}: for {target} it is on the shelf already, without an attestation that was "
                "checked: publish to a shelf that does not have it"
            )

    def is_required(self, pin: Pin) -> bool:
        """Whether a pin must be attested."""
        return pin in self._required

    def _look(self, wheel: Wheel, notes: list[str]) -> tuple[Whence, str]:
        """Return whence a wheel came, or what it was built from, and why that is not attested."""
        origin, (filename, digest) = wheel.origin, _uploaded_file(wheel)
        if origin is None:
            return Whence(), f"pip does not say where {filename} came from"
        if not origin.page:
            return Whence(), (
                f"the list names {filename} by its URL, and no index (packages.index) that would know "
                "its attestations"
            )
        if not origin.is_remote:
            return Whence(), f"{filename} came from {origin.page}, which has no attestations"
        from shelf_tools.listings import NoJsonError, UnknownError

        listings = self._asked()
        try:
            listed = listings.listed(origin, filename, digest)
        except UnknownError as error:
            if not isinstance(error, NoJsonError):
                notes.append(f"when it was uploaded, and by whom, is not known: {error}")
            return Whence(), str(error)
        if not listed.provenance:
            return Whence(listed.uploaded), f"{origin.page} has no attestation for {filename}"
        try:
            data = listings.provenance(listed.provenance)
        except UnknownError as error:
            notes.append(f"its attestations are not known: {error}")
            return Whence(listed.uploaded), str(error)
        stale = refresh()
        if stale:
            notes.append(f"attestations are checked with the roots of the last time: {stale}")
        try:
            return Whence(listed.uploaded, verify(data, filename, digest)), ""
        except AttestationError as error:
            why = f"the attestations of {filename} are refused: {error}"
            notes.append(why)
            return Whence(listed.uploaded, (), str(error)), why

    def _asked(self) -> Listings:
        from shelf_tools.listings import Listings

        with self._lock:
            if self._listings is None:
                self._listings = Listings(self._environ, self._options)
            return self._listings

    def _is_new(self, note: str) -> bool:
        """Whether a note was not made before: an index that is away is so for every pin."""
        with self._lock:
            new = note not in self._noted
            self._noted.add(note)
        return new


def _uploaded_file(wheel: Wheel) -> tuple[str, str]:
    """Return name and SHA-256 of the file that somebody has uploaded: of what is built, its source's."""
    if wheel.build is None:
        return wheel.filename, wheel.sha256
    return wheel.build["sdist"]["name"], wheel.build["sdist"]["sha256"]


def check_wheel(record: Mapping[str, Any], requirement: Requirement, target: Target) -> None:
    """Check by a published build's record that the list has a hash of the wheel, or the source distribution,
    that it was made of.

    A requirement without hashes takes any. Raises ConfigurationError that names both.
    """
    if not requirement.hashes:
        return
    made = [record.get("wheel"), (record.get("build") or {}).get("sdist")]
    hashes = [
        f"{name}:{file[name]}"
        for file in made
        if isinstance(file, dict)
        for name in ("sha256", "sha384", "sha512")
        if name in file
    ]
    if set(hashes) & set(requirement.hashes):
        return
    wanted = " or ".join(requirement.hashes[:_NAMED])
    if len(requirement.hashes) > _NAMED:
        wanted += f" or one of {len(requirement.hashes) - _NAMED} more"
    was = f"{made[0].get('name')} with {hashes[0]}" if hashes and isinstance(made[0], dict) else ""
    raise ConfigurationError(
        f"{requirement.where}: {requirement.pin} for {target} is on the shelf and was made of "
        f"{was or 'a wheel of which there is no record'}; the list asks for {wanted}: take that wheel's hash "
        "into the list, or remove the build"
    )


def record(
    wheel: Wheel,
    whence: Whence,
    sandbox: str,
    limits: Mapping[str, Limits],
    tools: Mapping[str, Any],
    trace: Any,
) -> dict[str, Any]:
    """Return the record of a build that is made now."""
    origin = wheel.origin
    came = {
        **({"url": origin.url} if origin else {}),
        **({"index": origin.page} if origin and origin.page else {}),
        **({"uploaded": whence.uploaded} if whence.uploaded else {}),
    }
    build = dict(wheel.build) if wheel.build else {}
    if build:
        build["sdist"] = {**build["sdist"], **came}
    attested = [{"publisher": one.publisher, "predicates": list(one.predicates)} for one in whence.attested]
    return {
        "format": 1,
        "kind": "provenance",
        "wheel": {
            "name": wheel.filename,
            **wheel.hashes,
            "size": wheel.size,
            **({} if build else came),
        },
        **({"attestations": attested} if attested else {}),
        **({"attestations_refused": whence.refused} if whence.refused else {}),
        "sandbox": sandbox,
        "limits": {stage: vars(found) for stage, found in limits.items()},
        **({"build": build} if build else {}),
        "tools": dict(tools),
        "trace": trace,
        "published": int(time.time()),
    }


def tools(sandbox: str, interpreter: object, level: int) -> dict[str, Any]:
    """Return the versions of what a build is made with."""
    return {
        "cloudimport": __version__,
        "python": sys.version.split()[0],
        "interpreter": str(interpreter or ""),
        "level": level,
        "kernel": platform.release(),
        **({"bubblewrap": _bubblewrap()} if sandbox == "bubblewrap" else {}),
        **{name: found for name in _TOOLS if (found := _version(name))},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@lru_cache(maxsize=1)
def _bubblewrap() -> str:
    """Return the version of bubblewrap, "" if it does not say."""
    try:
        said = process.run(["bwrap", "--version"], timeout=20.0).stdout.decode("utf-8", "replace").split()
    except process.ProcessError:
        return ""
    return said[-1] if said else ""
