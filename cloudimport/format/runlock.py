"""What ``shelf run`` found for the functions of a file, recorded beside it (docs/running.md). Pure."""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.lock import Lock
from cloudimport.format.records import FORMAT, MALFORMED, Ref, parse, text, texts
from cloudimport.ids import Pin, Target, check_digest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple
else:
    from cloudimport.tuples import NamedTuple


class Found(NamedTuple):
    """What was found for one target: the environment's index, and of each pin the content's digest."""

    environment: Ref
    contents: dict[Pin, str]


class Recorded(NamedTuple):
    """What some functions of the file need, as lines, and what was found, by target."""

    needs: tuple[str, ...]
    targets: dict[str, Found]


class RunLock(NamedTuple):
    """The record of a file. ``shelf`` may be ""."""

    shelf: str
    environments: tuple[Recorded, ...]

    def found(self, needs: tuple[str, ...]) -> dict[str, Found]:
        """Return what was found for these lines, by target."""
        return next((dict(one.targets) for one in self.environments if one.needs == needs), {})

    def lock(self, needs: tuple[str, ...]) -> Lock | None:
        """Return the lock of an environment, None if there is none."""
        found = self.found(needs)
        pins = {str(pin) for one in found.values() for pin in one.contents}
        targets = {target: one.environment for target, one in found.items()}
        return Lock(self.shelf, tuple(sorted(pins)), targets, {}) if found else None

    def encode(self) -> str:
        """Return the file's text, for people to read and to compare."""
        import json

        record = {
            "format": FORMAT,
            "kind": "run-lock",
            **({"shelf": self.shelf} if self.shelf else {}),
            "environments": [
                {
                    "needs": list(one.needs),
                    "targets": {
                        target: {
                            "index": list(found.environment),
                            "contents": {str(pin): found.contents[pin] for pin in sorted(found.contents)},
                        }
                        for target, found in sorted(one.targets.items())
                    },
                }
                for one in sorted(self.environments)
            ],
        }
        return json.dumps(record, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def decode(cls, data: str, path: str) -> RunLock:
        """Return the record that ``data`` holds. Raises ConfigurationError that names ``path``."""
        try:
            record = parse(data, "run-lock", path)
            rows = tuple(
                Recorded(
                    texts(row["needs"]),
                    {str(Target.parse(name)): _found(one, path) for name, one in row["targets"].items()},
                )
                for row in record["environments"]
            )
            return cls(text(record.get("shelf", "")), rows)
        except FormatError as error:
            raise ConfigurationError(f"{error}: remove it, or 'shelf run --update' makes it again") from None
        except MALFORMED as error:
            raise ConfigurationError(
                f"{path} is not a well-formed record of 'shelf run' ({error!r}): remove it, or 'shelf run "
                "--update' makes it again"
            ) from None


def _found(row: dict[str, object], path: str) -> Found:
    contents = row["contents"]
    if not isinstance(contents, dict):
        raise ValueError("contents are not by pin")
    return Found(
        Ref.parse(row["index"], path), {Pin.parse(pin): check_digest(one) for pin, one in contents.items()}
    )
