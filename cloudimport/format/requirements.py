"""Requirement files: lines of pins to normalised requirement lines and their digest.

The same reader serves the runtime (which finds an environment by the digest) and the curator.
It reads what pip documents as the requirements file format, in the part that pins need.
Import budget: ``re``; ``os`` is passed in by the caller as ``read``.
"""

from __future__ import annotations

import re

from cloudimport.errors import ConfigurationError
from cloudimport.ids import Pin, normalise_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple

_LINE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[(?P<extras>[^\]]*)\])?\s*"
    r"(?P<rest>[^;\s][^;]*)?(?:;\s*(?P<marker>.+))?\Z"
)
_PINNED = re.compile(r"==\s*(?P<version>[^\s,*=<>~]+)\s*\Z")
_HASH = re.compile(r"\s--hash(?:=|\s)\s*(?P<value>\S+)")
#: pip's strong hashes, with their number of hexadecimal digits.
_HASHES = {"sha256": 64, "sha384": 96, "sha512": 128}
_COMMENT = re.compile(r"(^|\s)#.*$")
_OPTION = re.compile(r"(?P<option>--[a-z][a-z-]*|-[A-Za-z])(?:\s*=\s*|\s*)(?P<value>.*)\Z")

_MARKER_TOKEN = re.compile(r"""(?P<literal>"[^"]*"|'[^']*')|[()]|[<>=!~]+|[^\s()<>=!~"']+|\s+|.""", re.ASCII)


class Requirement(NamedTuple):
    """One pinned line.

    ``hashes`` are ``sha256:<hex>`` (or sha384, sha512); ``where`` is ``file:line``, for messages.
    """

    pin: Pin
    extras: tuple[str, ...]
    marker: str
    hashes: tuple[str, ...]
    where: str

    @property
    def line(self) -> str:
        """The normalised requirement line (docs/format.md, section 9)."""
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.pin.name}{extras}=={self.pin.version}{marker}"


def decode(data: bytes) -> str:
    """Return a requirements file's text: UTF-8, or UTF-16 or -32 with a byte order mark.

    PowerShell writes the latter. Raises UnicodeDecodeError.
    """
    mark, encoding = _encoding(data)
    return data[len(mark) :].decode(encoding)


def encoding_of(data: bytes) -> str:
    """Return the encoding of a requirements file, by its byte order mark."""
    return _encoding(data)[1]


def _encoding(data: bytes) -> tuple[bytes, str]:
    return next((found for found in _MARKS if data.startswith(found[0])), (b"", "utf-8"))


#: Byte order marks; those of UTF-32 first, since UTF-16's are their beginnings.
_MARKS = (
    (b"\xff\xfe\0\0", "utf-32-le"),
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
    (b"\xef\xbb\xbf", "utf-8"),
)


def parse_file(path: str, read: Callable[[str], str]) -> list[Requirement]:
    """Return the pins of a requirements file and of those that it includes.

    ``read`` returns a file's text (see ``decode``) and raises OSError. Raises ConfigurationError
    with **all** errors, one a line, each with file and line number.
    """
    errors: list[str] = []
    found = collect(path, read, errors, [])
    if errors:
        raise ConfigurationError("\n".join(errors))
    return found


def collect(
    path: str, read: Callable[[str], str], errors: list[str], options: list[str]
) -> list[Requirement]:
    """Return the pins as ``parse_file``, but add the errors to ``errors`` and go on.

    To ``options`` go pip's options that matter to a publisher, one a line: which indexes to use, and
    ``-c FILE`` for each file of constraints.
    """
    found = _Reader(read, errors, options).file(path, path, ())
    _refuse_conflicts(found, errors)
    return found


def parse_lines(lines: Iterable[str], where: str = "requirements") -> list[Requirement]:
    """Return the pins of ``lines``; errors as ``parse_file``. Includes are refused."""
    errors: list[str] = []
    found = _Reader(_no_includes, errors, []).text("\n".join(lines), where, ())
    _refuse_conflicts(found, errors)
    if errors:
        raise ConfigurationError("\n".join(errors))
    return found


def _no_includes(path: str) -> str:
    raise OSError(f"{path}: includes are read from files only")


def logical_lines(text: str) -> list[tuple[int, str]]:
    """Return (line number, line), continuation lines joined and comments removed."""
    out: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        start = start or number
        bare = _COMMENT.sub("", line)
        if bare.endswith("\\"):
            pending += bare[:-1] + " "
            continue
        out.append((start, (pending + bare).strip()))
        pending, start = "", 0
    if pending.strip():
        out.append((start, pending.strip()))
    return [(number, line) for number, line in out if line]


def without_hashes(line: str) -> str:
    """Return a logical line without its ``--hash`` options."""
    return _HASH.sub("", line).strip()


class _Reader:
    """Reads a file and its includes; what goes wrong is collected."""

    def __init__(self, read: Callable[[str], str], errors: list[str], options: list[str]) -> None:
        self._read = read
        self._errors = errors
        self._options = options

    def file(self, path: str, where: str, above: tuple[str, ...]) -> list[Requirement]:
        """Return the pins of a file; ``where`` names it, or the line that includes it."""
        if path in above:
            self._errors.append(f"{where}: {path} includes itself")
            return []
        try:
            text = self._read(path)
        except (OSError, UnicodeError) as error:
            said = where if where == path else f"{where}: {path}"
            self._errors.append(f"{said}: cannot be read: {getattr(error, 'strerror', None) or error}")
            return []
        return self.text(text, path, (*above, path))

    def text(self, text: str, path: str, above: tuple[str, ...]) -> list[Requirement]:
        """Return the pins of a file's text."""
        found: list[Requirement] = []
        for number, line in logical_lines(text.removeprefix("\ufeff")):
            where = f"{path}:{number}"
            try:
                if line.startswith("-"):
                    found += self._option(line, path, where, above)
                else:
                    found.append(_parse_requirement(line, where))
            except ConfigurationError as error:
                self._errors.append(f"{where}: {error}")
        return found

    def _option(self, line: str, path: str, where: str, above: tuple[str, ...]) -> list[Requirement]:
        """Return what an include brings, or nothing. Raises ConfigurationError for what is not known."""
        match = _OPTION.match(line)
        option = match["option"] if match else line
        value = match["value"].strip().strip("\"'") if match else ""
        if option in ("-r", "--requirement"):
            return self.file(beside(path, value), where, above)
        if option in ("-e", "--editable"):
            raise ConfigurationError("editable requirements cannot be published: pin a released version")
        if option not in (*_INDEXES, *_CONSTRAINTS, *_IGNORED):
            raise ConfigurationError(f"option {option} is not known")
        if option in _CONSTRAINTS:
            self._options.append(f"-c {beside(path, value)}")
        if option in _INDEXES:
            links = option in ("-f", "--find-links") and "://" not in value
            value = beside(path, value) if links else value
            self._options.append(f"{option} {value}".strip())
        return []


def beside(path: str, included: str) -> str:
    """Return the path of a file that the file at ``path`` names."""
    folder = path.rpartition("/")[0]
    # pip puts a variable of the environment in the place of ${NAME}.
    return f"{folder}/{included}" if folder and not included.startswith(("/", "${")) else included


#: Options that say where packages come from: they matter to the publisher, not to a pin.
_INDEXES = ("-i", "--index-url", "--extra-index-url", "--no-index", "-f", "--find-links", "--trusted-host")
_CONSTRAINTS = ("-c", "--constraint")
#: Options that make no difference to pins, of which wheels are taken.
_IGNORED = (
    "--no-binary",
    "--only-binary",
    "--prefer-binary",
    "--require-hashes",
    "--pre",
    "--use-feature",
)


def _parse_requirement(line: str, where: str) -> Requirement:
    hashes = tuple(sorted({_hash(match["value"]) for match in _HASH.finditer(line)}))
    line = without_hashes(line)
    if " --" in line:
        raise ConfigurationError(f"{line!r}: the only option of a requirement that is known is --hash")
    match = _LINE.match(line)
    if match is None or " @ " in line or "://" in line:
        raise ConfigurationError(f"{line!r} is not a pinned requirement: write name==version")
    rest = (match["rest"] or "").strip()
    pinned = _PINNED.match(rest)
    if pinned is None:
        said = f"{rest!r} is a range" if rest else "it has no version"
        raise ConfigurationError(f"{match['name']}: {said}: pin it as {match['name']}==VERSION")
    asked = [extra.strip() for extra in (match["extras"] or "").split(",")]
    extras = tuple(sorted({normalise_name(extra) for extra in asked if extra}))
    pin = Pin.of(match["name"], pinned["version"])
    return Requirement(pin, extras, _marker(match["marker"]), hashes, where)


def _hash(value: str) -> str:
    algorithm, _, digest = value.lower().partition(":")
    if len(digest) != _HASHES.get(algorithm) or not re.fullmatch("[0-9a-f]+", digest):
        raise ConfigurationError(
            f"--hash={value} is not a sha256, sha384 or sha512 hash: write sha256:DIGITS"
        )
    return f"{algorithm}:{digest}"


def _marker(text: str | None) -> str:
    """Return a marker's tokens (PEP 508) joined by single spaces, literals in ``"`` where they can be."""
    tokens = []
    for match in _MARKER_TOKEN.finditer(text or ""):
        literal = match["literal"]
        if literal is not None and '"' not in literal[1:-1]:
            tokens.append(f'"{literal[1:-1]}"')
        else:
            tokens.append(match[0].strip())
    return " ".join(token for token in tokens if token).replace("( ", "(").replace(" )", ")")


def _refuse_conflicts(found: list[Requirement], errors: list[str]) -> None:
    """Two unconditional pins of one name must agree; markers may choose between several."""
    first: dict[str, Requirement] = {}
    for requirement in found:
        if requirement.marker:
            continue
        other = first.setdefault(requirement.pin.name, requirement)
        if other.pin.version != requirement.pin.version:
            errors.append(f"{requirement.where}: {requirement.pin} contradicts {other.pin} at {other.where}")
