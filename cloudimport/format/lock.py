"""``cloudimport.lock``: the small file that pins an environment index (docs/format.md, section 12)."""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.keys import build_prefix
from cloudimport.format.records import (
    FORMAT,
    MALFORMED,
    Ref,
    identity,
    integer,
    integers,
    parse,
    requirements_digest,
    text,
    texts,
)
from cloudimport.ids import check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    from cloudimport.format.signing import Signature
else:
    from cloudimport.tuples import NamedTuple

#: More blocks than any build has, and more bytes than one read asks for.
_BLOCKS, _RANGE = 1 << 20, 64 << 20


class BootRange(NamedTuple):
    """One ranged read of a boot image: a part's name, version and digest, and which bytes of it.

    ``runs``: which blocks of the build these are, one frame after the other, as first number and count.
    """

    name: str
    version: str
    digest: str
    start: int
    length: int
    runs: tuple[int, ...]

    def key(self, target: str) -> str:
        """Return the part's key."""
        return build_prefix(self.name, self.version, target) + f"boot-{self.digest}"

    def blocks(self) -> list[int]:
        """Return the numbers of the blocks."""
        pairs = zip(self.runs[::2], self.runs[1::2], strict=True)
        return [number for first, count in pairs for number in range(first, first + count)]

    @classmethod
    def parse(cls, row: list[object], target: str) -> BootRange:
        """Return a row of a lockfile. Raises ValueError, FormatError or ConfigurationError."""
        name, version, digest, start, length, runs = row
        names = identity(name, version, target)[:2]
        numbers = integers(runs, _BLOCKS)
        if len(numbers) % 2 or not numbers or sum(numbers[1::2]) > _BLOCKS:
            raise ValueError("runs of blocks come in twos")
        place = integer(start), integer(length, _RANGE)
        return cls(*names, check_digest(digest), *place, tuple(numbers))


class Lock(NamedTuple):
    """A lockfile: normalised requirement lines; per target, the index, and a boot image if there is one.

    ``shelf`` may be "". ``roots`` are public keys of which one must have signed it; ``signatures`` are on all
    else that it says.
    """

    shelf: str
    requirements: tuple[str, ...]
    targets: dict[str, Ref]
    boots: dict[str, tuple[BootRange, ...]]
    roots: tuple[str, ...] = ()
    signatures: tuple[Signature, ...] = ()

    def encode(self) -> str:
        """Return the file's text."""
        import json

        record = {
            "format": FORMAT,
            "kind": "lock",
            **({"shelf": self.shelf} if self.shelf else {}),
            "requirements": list(self.requirements),
            "requirements_sha256": requirements_digest(self.requirements),
            "targets": {
                target: {"index": ref, **({"boot": [f"boot {target}"]} if self.boots.get(target) else {})}
                for target, ref in self.targets.items()
            },
            **({"roots": list(self.roots)} if self.roots else {}),
            **({"signatures": self.signatures} if self.signatures else {}),
        }
        found = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        for target, boot in self.boots.items():  # a row a line
            rows = (json.dumps(row, separators=(",", ":"), ensure_ascii=False) for row in boot)
            found = found.replace(f'"boot {target}"', ",\n    ".join(rows))
        return found

    @classmethod
    def decode(cls, data: str, path: str) -> Lock:
        """Return the lock that ``data`` holds. Raises ConfigurationError that names ``path``."""
        try:
            record = parse(data, "lock", path)
            lines = texts(record["requirements"])
            targets = {target: Ref.parse(row["index"], path) for target, row in record["targets"].items()}
            boots = {
                target: tuple(BootRange.parse(ranges, target) for ranges in row["boot"])
                for target, row in record["targets"].items()
                if row.get("boot")
            }
            shelf = text(record.get("shelf", ""))
            if record["requirements_sha256"] != requirements_digest(lines):
                raise FormatError(
                    f"{path}: requirements_sha256 does not match the requirements that it lists"
                )
            return cls(shelf, lines, targets, boots, *_signing(record, path))
        except FormatError as error:
            raise ConfigurationError(f"{error}: make it again with 'shelf publish --lock'") from None
        except MALFORMED as error:
            raise ConfigurationError(
                f"{path} is not a well-formed lockfile ({error!r}): make it again with 'shelf publish --lock'"
            ) from None


def _signing(record: dict[str, Any], path: str) -> tuple[tuple[str, ...], tuple[Signature, ...]]:
    """Return the roots and signatures of a lockfile. Raises ValueError or ConfigurationError."""
    if "roots" not in record and "signatures" not in record:
        return (), ()
    from cloudimport.format.signing import parse_keys, parse_signatures

    roots = parse_keys(texts(record.get("roots", [])), path)
    if "roots" in record and not roots:
        raise ValueError("roots without a key")
    return roots, parse_signatures(record.get("signatures", []))
