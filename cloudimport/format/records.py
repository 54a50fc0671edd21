"""What all records have in common, and the pointer of an environment; no I/O.

docs/format.md, sections 2, 5 and 9. Import budget: nothing; ``hashlib`` on first use.
"""

from __future__ import annotations

import sys

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format import jsontext
from cloudimport.ids import Target, check_digest, normalise_name, normalise_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NamedTuple

    from cloudimport.format.signing import Signature
else:
    from cloudimport.tuples import NamedTuple

try:  # CPython's own; by its one name of this version, since looking for others asks every path hook
    _builtin: Any = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256
except ImportError:
    _builtin = None
FORMAT = 1
#: Plain bytes of a block, at the most (docs/format.md, section 6).
BLOCK_SIZE = 4 << 20
#: Up to so many bytes loading OpenSSL (2 ms) costs more than its SHA-256 saves.
_SMALL = 16 << 10


def canonical(value: object) -> bytes:
    """Return ``value`` as canonical JSON (docs/format.md, section 2)."""
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256(data: bytes | memoryview) -> str:
    """Return the SHA-256 of ``data``, hexadecimal."""
    digest: str = _sha256(len(data))(data).hexdigest()
    return digest


def _sha256(size: int) -> Any:
    if _builtin is not None and size <= _SMALL:
        return _builtin
    import hashlib

    return hashlib.sha256


def requirements_digest(lines: Iterable[str]) -> str:
    """Return the requirements digest of normalised lines (docs/format.md, section 9)."""
    return sha256("".join(line + "\n" for line in sorted(set(lines))).encode())


def parse(data: bytes | str, kind: str, what: str) -> dict[str, Any]:
    """Return the record that ``data`` holds. Raises FormatError naming ``what``."""
    try:
        value = jsontext.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not JSON: {error}") from None
    if not isinstance(value, dict) or value.get("kind") != kind:
        raise FormatError(f"{what} is not a cloudimport {kind} record")
    version = value.get("format")
    if type(version) is not int or version < 1:
        raise FormatError(f"{what} has no format version")
    if version > FORMAT:
        raise FormatError(
            f"{what} has format {version}, this cloudimport reads up to {FORMAT}: upgrade cloudimport"
        )
    return value


#: Plain bytes of a record, at the most (docs/format.md, section 2).
RECORD_SIZE = 256 << 20


def is_size(value: object) -> bool:
    """Whether ``value`` is a size that a record object can have."""
    return type(value) is int and 0 <= value <= RECORD_SIZE


#: What a field of the wrong type or shape raises where it is first used (RecursionError: JSON
#: nested too deep).
MALFORMED = (
    KeyError,
    TypeError,
    ValueError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    ConfigurationError,
)
#: The largest integer of canonical JSON (docs/format.md, section 2).
_LARGEST = (1 << 53) - 1


def integers(values: object, below: int = _LARGEST + 1) -> list[int]:
    """Return ``values`` if it is a list of integers from 0 to ``below`` - 1. Raises ValueError.

    ``True`` and ``1.0`` are no integers: records that differ must not read as the same one.
    """
    if not isinstance(values, list) or not set(map(type, values)) <= {int}:
        raise ValueError("not a list of integers")
    if values and not 0 <= min(values) <= max(values) < below:
        raise ValueError(f"a number is not from 0 to {below - 1}")
    return values


def integer(value: object, below: int = _LARGEST + 1) -> int:
    """Return ``value`` if it is an integer from 0 to ``below`` - 1. Raises ValueError."""
    return integers([value], below)[0]


def text(value: object) -> str:
    """Return ``value`` if it is a string that has a UTF-8 form. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:100]!r} is not a string")
    value.encode()
    return value


def texts(values: object) -> tuple[str, ...]:
    """Return a list of strings as a tuple. Raises ValueError."""
    if not isinstance(values, list):
        raise ValueError("not a list of strings")
    return tuple(map(text, values))


def one_of(value: object, known: Iterable[str]) -> str:
    """Return ``value`` if it is one of ``known``. Raises ValueError."""
    if text(value) not in known:
        raise ValueError(f"{str(value)[:100]!r} is not one of {', '.join(known)}")
    return text(value)


def identity(name: object, version: object, target: object) -> tuple[str, str, str]:
    """Return the three that make a key if each is in its normal form.

    Raises ValueError or ConfigurationError.
    """
    found = text(name), text(version), text(target)
    if found != (normalise_name(found[0]), normalise_version(found[1]), str(Target.parse(found[2]))):
        raise ValueError(f"{found} is not in its normal form")
    return found


def check_magic(magic: object) -> str:
    """Return a pyc magic number (4 bytes, hexadecimal), or "" for none. Raises ValueError."""
    found = text(magic)
    if len(found) not in (0, 8) or not set(found) <= set("0123456789abcdef"):
        raise ValueError(f"{found[:20]!r} is not a pyc magic number")
    return found


class Ref(NamedTuple):
    """A reference to a record object: digest of its plain bytes, stored and plain size in bytes.

    The stored size is advice: the same record may be stored by another zstd.
    """

    digest: str
    stored: int
    size: int

    @classmethod
    def parse(cls, value: object, what: str) -> Ref:
        """Return the reference in a record's field. Raises FormatError."""
        if not (isinstance(value, list) and len(value) == 3 and all(is_size(n) for n in value[1:])):
            raise FormatError(f"{what} is not a reference of digest, stored size and plain size")
        return cls(check_digest(value[0]), value[1], value[2])


def check_path(path: object, what: str) -> str:
    """Return ``path`` if docs/format.md, section 5 allows it. Raises FormatError naming ``what``."""
    if not isinstance(path, str):
        raise FormatError(f"{what}: path {str(path)[:200]!r} is not allowed")
    parts = path.split("/")
    bad = (
        not path
        or any(
            part in ("", ".", "..", "__pycache__") or len(part.encode("utf-8", "surrogatepass")) > 255
            for part in parts
        )
        or any(ord(c) < 32 or ord(c) == 127 or c == "\\" or 0xD800 <= ord(c) < 0xE000 for c in path)
        or len(path.encode("utf-8", "surrogatepass")) > 1024
    )
    if bad:
        raise FormatError(f"{what}: path {path[:200]!r} is not allowed")
    return path


#: Extents, flattened: block, offset, length, block, offset, length, ...
Extents = tuple[int, ...]


def check_extents(row: Extents | list[int], sizes: Sequence[int], what: str) -> None:
    """Check one flattened row of extents against the blocks' plain sizes. Raises FormatError."""
    if len(row) % 3:
        raise FormatError(f"{what}: extents come in threes")
    for at in range(0, len(row), 3):
        block, offset, length = row[at : at + 3]
        if not (0 <= block < len(sizes) and offset >= 0 and length > 0 and offset + length <= sizes[block]):
            raise FormatError(f"{what}: an extent does not lie in its block: {row[at : at + 3]}")


_TARGET_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_-")


class EnvironmentPointer(NamedTuple):
    """``envs/<requirements digest>.json``: environment indexes per target (docs/format.md, section 9).

    ``history`` has, per target, the indexes that were replaced: deployed lockfiles pin them. ``signatures``
    are on the indexes that the targets have now.
    """

    requirements: tuple[str, ...]
    targets: dict[str, Ref]
    history: dict[str, tuple[Ref, ...]]
    signatures: dict[str, tuple[Signature, ...]] = {}  # noqa: RUF012 (nobody changes a record)

    def encode(self) -> bytes:
        """Return the pointer's canonical bytes."""
        targets = {
            target: {
                "index": ref,
                "history": list(self.history.get(target, ())),
                **({"signatures": self.signatures[target]} if self.signatures.get(target) else {}),
            }
            for target, ref in self.targets.items()
        }
        return canonical(
            {
                "format": FORMAT,
                "kind": "environment",
                "requirements": list(self.requirements),
                "targets": targets,
            }
        )

    @classmethod
    def decode(cls, data: bytes, what: str) -> EnvironmentPointer:
        """Return the pointer that ``data`` holds. Raises FormatError."""
        record = parse(data, "environment", what)
        try:
            rows = {_target(t): row for t, row in record["targets"].items()}
            targets = {t: Ref.parse(row["index"], f"{what}: {t}") for t, row in rows.items()}
            history = {
                t: tuple(Ref.parse(old, f"{what}: {t}") for old in row.get("history", []))
                for t, row in rows.items()
            }
            signatures = {t: signatures_of(row) for t, row in rows.items() if "signatures" in row}
            return cls(texts(record["requirements"]), targets, history, signatures)
        except MALFORMED as error:
            raise FormatError(f"{what} is not a well-formed environment: {error!r}") from None

    def merged(self, target: str, ref: Ref, signatures: tuple[Signature, ...] = ()) -> EnvironmentPointer:
        """Return this pointer with ``target``'s index set to ``ref`` and the one it had kept as history."""
        old = self.targets.get(target)
        kept = self.history.get(target, ())
        if old is not None and old.digest not in {r.digest for r in kept} | {ref.digest}:
            kept = (*kept, old)
        kept = tuple(r for r in kept if r.digest != ref.digest)
        return EnvironmentPointer(
            self.requirements,
            {**self.targets, target: ref},
            {**self.history, target: kept},
            {**self.signatures, target: signatures},
        )


def signatures_of(record: dict[str, Any]) -> tuple[Signature, ...]:
    """Return the signatures in a record, none if it has no such key. Raises ValueError."""
    if "signatures" not in record:
        return ()
    from cloudimport.format.signing import parse_signatures

    return parse_signatures(record["signatures"])


def _target(value: str) -> str:
    """Return a target's name if it can be one, of a later Python too: nobody picks what they do not know.

    Aliases are names for people and stand in no record. Raises ValueError.
    """
    if len(value) > 100 or not value.startswith("cp") or set(value) - _TARGET_CHARACTERS:
        raise ValueError(f"{value!r} is not a target in its normal form")
    return value
