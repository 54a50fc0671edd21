"""``status.json``: which builds were yanked, and why (docs/format.md, section 4); no I/O.

Import budget: nothing of its own.
"""

from __future__ import annotations

from cloudimport.errors import ConfigurationError, FormatError
from cloudimport.format.records import FORMAT, MALFORMED, canonical, parse, text
from cloudimport.ids import Pin

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NamedTuple
else:
    from cloudimport.tuples import NamedTuple

#: Characters of a reason, at the most.
REASON = 500
_UNSAID = "without a reason"


class Status(NamedTuple):
    """The yanked pins of a shelf with their reasons; ``record`` is all of what was read."""

    yanked: dict[Pin, str]
    record: dict[str, Any]

    @classmethod
    def empty(cls) -> Status:
        """Return the status of a new shelf."""
        return cls({}, {"format": FORMAT, "kind": "status", "yanked": {}})

    @classmethod
    def decode(cls, data: bytes, what: str) -> Status:
        """Return the status that ``data`` holds. Raises FormatError naming ``what``."""
        record = parse(data, "status", what)
        try:
            yanked = {
                _pin(name, version): reason_of(text(reason)) or _UNSAID
                for name, versions in record["yanked"].items()
                for version, reason in versions.items()
            }
        except MALFORMED as error:
            raise FormatError(f"{what} is not a well-formed status: {error!r}") from None
        return cls(yanked, record)

    def encode(self) -> bytes:
        """Return the status' canonical bytes; what was read besides ``yanked`` stays."""
        rows: dict[str, dict[str, str]] = {}
        for pin, reason in self.yanked.items():
            rows.setdefault(pin.name, {})[pin.version] = reason
        return canonical({**self.record, "yanked": rows})

    def among(self, pins: Iterable[Pin]) -> dict[Pin, str]:
        """Return those of ``pins`` that are yanked, with their reasons."""
        return {pin: self.yanked[pin] for pin in pins if pin in self.yanked}


def _pin(name: str, version: str) -> Pin:
    pin = Pin.of(name, version)
    if pin != (name, version):
        raise ValueError(f"{name}=={version} is not in its normal form")
    return pin


def reason_of(reason: str) -> str:
    """Return a reason as one line that can be printed: whoever may write to the shelf may have written it."""
    return "".join(c if c.isprintable() else " " for c in " ".join(reason.split()))[:REASON]


def check_reason(reason: str) -> str:
    """Return the reason that a curator gives. Raises ConfigurationError if it is none, or too long."""
    found = " ".join(reason.split())
    if not found or found != reason_of(found):
        raise ConfigurationError(f"a reason is one line of 1 to {REASON} printable characters")
    return found
