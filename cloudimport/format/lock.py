"""``cloudimport.lock``: the small file that pins an environment index (docs/format.md, section 12)."""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.records import FORMAT, MALFORMED, Ref, parse, requirements_digest, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple


class Lock(NamedTuple):
    """A lockfile: normalised requirement lines; per target, the index. ``shelf`` may be ""."""

    shelf: str
    requirements: tuple[str, ...]
    targets: dict[str, Ref]

    def encode(self) -> str:
        """Return the file's text."""
        import json

        record = {
            "format": FORMAT,
            "kind": "lock",
            **({"shelf": self.shelf} if self.shelf else {}),
            "requirements": list(self.requirements),
            "requirements_sha256": requirements_digest(self.requirements),
            "targets": {target: {"index": ref} for target, ref in self.targets.items()},
        }
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def decode(cls, data: str, path: str) -> Lock:
        """Return the lock that ``data`` holds. Raises ConfigurationError that names ``path``."""
        try:
            record = parse(data, "lock", path)
            lines = texts(record["requirements"])
            targets = {target: Ref.parse(row["index"], path) for target, row in record["targets"].items()}
            shelf = text(record.get("shelf", ""))
            if record["requirements_sha256"] != requirements_digest(lines):
                raise FormatError(
                    f"{path}: requirements_sha256 does not match the requirements that it lists"
                )
            return cls(shelf, lines, targets)
        except FormatError as error:
            raise ConfigurationError(f"{error}: make it again with 'shelf publish --lock'") from None
        except MALFORMED as error:
            raise ConfigurationError(
                f"{path} is not a well-formed lockfile ({error!r}): make it again with 'shelf publish --lock'"
            ) from None
