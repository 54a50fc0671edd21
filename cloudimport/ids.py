"""Identities, parsed once at the edge: names, versions, pins, targets, digests.

Import budget: nothing; ``re`` for versions with more than numbers.
"""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, FormatError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_HEXADECIMAL = "0123456789abcdef"
_SEPARATORS = str.maketrans("_.", "--")

#: PEP 440, appendix B, in the parts that decide the canonical form.
_VERSION = r"""\s*v?
    (?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_n>[0-9]*))?
    (?:-(?P<post_bare>[0-9]+)|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_n>[0-9]*))?
    (?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_n>[0-9]*))?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?
    \s*\Z"""
_PRE = {"alpha": "a", "beta": "b", "preview": "rc", "pre": "rc", "c": "rc"}


def normalise_name(name: str) -> str:
    """Return ``name`` as PEP 503 normalises it. Raises ConfigurationError if it is no name."""
    parts = name.lower().translate(_SEPARATORS).split("-")
    known = name.isascii() and "".join(parts).isalnum() and parts[0] and parts[-1]
    if not known or len(name) > 200:
        raise ConfigurationError(f"{name!r} is not a package name (PEP 508)")
    return "-".join(filter(None, parts))


def normalise_version(version: str) -> str:
    """Return ``version`` in the one form that equal versions share (PEP 440; 1.0 and 1.0.0 are 1).

    As ``packaging.utils.canonicalize_version``. Raises ConfigurationError if it is no version.
    """
    if version.isascii() and len(version) <= 200 and version.replace(".", "").isdigit():
        numbers = version.split(".")
        if all(numbers):  # almost all are no more than that
            return _release(numbers)
    import re

    match = (
        re.match(_VERSION, version, re.VERBOSE | re.IGNORECASE | re.ASCII) if len(version) <= 200 else None
    )
    if match is None:
        raise ConfigurationError(f"{version!r} is not a version (PEP 440)")
    part = match.groupdict()
    out = f"{int(part['epoch'])}!" if part["epoch"] and int(part["epoch"]) else ""
    out += _release(part["release"].split("."))
    if part["pre"]:
        tag = part["pre"].lower()
        out += f"{_PRE.get(tag, tag)}{int(part['pre_n'] or 0)}"
    if part["post_bare"] or part["post"]:
        out += f".post{int(part['post_bare'] or part['post_n'] or 0)}"
    if part["dev"]:
        out += f".dev{int(part['dev_n'] or 0)}"
    if part["local"]:
        pieces = re.split(r"[-_.]", part["local"].lower())
        out += "+" + ".".join(str(int(p)) if p.isdigit() else p for p in pieces)
    return out


def _release(numbers: list[str]) -> str:
    found = [str(int(number)) for number in numbers]
    while len(found) > 1 and found[-1] == "0":
        del found[-1]
    return ".".join(found)


def check_digest(digest: object) -> str:
    """Return ``digest`` if it is 64 lower-case hexadecimal digits; raises FormatError if not."""
    if not isinstance(digest, str) or len(digest) != 64 or digest.strip(_HEXADECIMAL):
        raise FormatError(f"{str(digest)[:80]!r} is not a SHA-256 digest")
    return digest


class Pin(NamedTuple):
    """A normalised ``name==version``. Make one with ``Pin.parse`` or ``Pin.of``."""

    name: str
    version: str

    @classmethod
    def of(cls, name: str, version: str) -> Pin:
        """Return the pin of a name and a version as people write them."""
        return cls(normalise_name(name), normalise_version(version))

    @classmethod
    def parse(cls, text: str) -> Pin:
        """Return the pin that ``name==version`` names. Raises ConfigurationError."""
        name, separator, version = text.partition("==")
        if not separator:
            raise ConfigurationError(f"{text!r} is not a pin: write name==version")
        return cls.of(name.strip(), version.strip())

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


PYTHONS = ((3, 10), (3, 11), (3, 12), (3, 13), (3, 14))
GLIBCS = ((2, 17), (2, 26), (2, 28), (2, 34))
MACHINES = ("x86_64", "aarch64")
_MACHINE_NAMES = {"arm64": "aarch64", "amd64": "x86_64"}


class Target(NamedTuple):
    """Interpreter and platform that a build is for (docs/format.md, section 3)."""

    python: tuple[int, int]
    glibc: tuple[int, int]
    machine: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Return the target that ``text`` or an alias names. Raises ConfigurationError."""
        alias, _, name = text.removeprefix("lambda-python3.").partition("-")
        if text.startswith("lambda-python3.") and _is_number(alias) and name:
            python, machine = (3, int(alias)), _MACHINE_NAMES.get(name, name)
            return cls._checked(text, python, (2, 26) if python[1] < 12 else (2, 34), machine)
        interpreter, _, platform = text.partition("-")
        system, _, rest = platform.partition("_")
        minor = interpreter.removeprefix("cp3").removesuffix("t")
        if not (interpreter.startswith("cp3") and _is_number(minor) and system.isalpha() and rest):
            raise ConfigurationError(
                f"{text!r} is not a target: write cp312-manylinux_2_28_x86_64 or lambda-python3.12-arm64"
            )
        if interpreter.endswith("t"):
            raise ConfigurationError(f"{text}: free-threaded interpreters are not supported")
        if system != "manylinux":
            raise ConfigurationError(f"{text}: {system} is not supported, only manylinux (glibc)")
        major, _, rest = rest.partition("_")
        glibc_minor, _, machine = rest.partition("_")
        if not (_is_number(major) and _is_number(glibc_minor)):
            raise ConfigurationError(f"{text!r} names no C library version")
        target = cls._checked(text, (3, int(minor)), (int(major), int(glibc_minor)), machine)
        if str(target) != text:
            raise ConfigurationError(f"{text!r} is not a target: write {target}")
        return target

    @classmethod
    def _checked(cls, text: str, python: tuple[int, int], glibc: tuple[int, int], machine: str) -> Target:
        for value, known, what in ((python, PYTHONS, "Python"), (glibc, GLIBCS, "glibc")):
            if value not in known:
                listed = ", ".join(f"{a}.{b}" for a, b in known)
                raise ConfigurationError(f"{text}: {what} {value[0]}.{value[1]} is not one of {listed}")
        if machine not in MACHINES:
            raise ConfigurationError(f"{text}: machine {machine!r} is not one of {', '.join(MACHINES)}")
        return cls(python, glibc, machine)

    @property
    def interpreter(self) -> str:
        """The interpreter tag, such as ``cp312``."""
        return f"cp{self.python[0]}{self.python[1]}"

    @property
    def extension_suffixes(self) -> tuple[str, ...]:
        """Suffixes of extension modules, as ``importlib.machinery.EXTENSION_SUFFIXES`` has them there."""
        tag = f"cpython-{self.python[0]}{self.python[1]}-{self.machine}-linux-gnu"
        return (f".{tag}.so", ".abi3.so", ".so")

    def __str__(self) -> str:
        return f"{self.interpreter}-manylinux_{self.glibc[0]}_{self.glibc[1]}_{self.machine}"


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def running_targets() -> list[Target]:
    """Return the targets that this interpreter can use, best first.

    Raises ConfigurationError on a platform that has none (musl, free-threaded, not Linux).
    """
    import os
    import sys

    if sys.implementation.name != "cpython" or not sys.platform.startswith("linux"):
        raise ConfigurationError(
            f"{sys.implementation.name} on {sys.platform} is not supported: CPython on Linux is"
        )
    if "t" in sys.abiflags:
        raise ConfigurationError("free-threaded interpreters are not supported")
    try:
        library = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        library = ""
    if not library.startswith("glibc "):
        raise ConfigurationError("this C library is not glibc: musl builds are not supported")
    major, minor = library.split()[1].split(".")[:2]
    version = (int(major), int(minor))
    machine = os.uname().machine
    python = (sys.version_info[0], sys.version_info[1])
    if python not in PYTHONS or machine not in MACHINES:
        raise ConfigurationError(f"Python {python[0]}.{python[1]} on {machine} is not a supported target")
    return [Target(python, glibc, machine) for glibc in reversed(GLIBCS) if glibc <= version]
