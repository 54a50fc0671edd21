"""Differences that are known and documented: read from exceptions.toml, never from a probe."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypedDict

from tests.conformance.groups import read_toml
from tests.conformance.running import Outcome
from tests.support.children import REPOSITORY

_FILE = Path(__file__).parent / "exceptions.toml"


class Entry(TypedDict):
    """One exception; ``package`` and ``items`` are patterns, ``test`` is a test's path and name."""

    package: str
    behaviour: str
    items: list[str]
    reason: str
    test: str


@dataclass
class Excepted:
    """The exceptions, and how many items each was needed for."""

    entries: list[Entry]
    used: dict[int, int] = field(default_factory=dict)

    def apply(self, package: str, behaviour: str, outcome: Outcome) -> None:
        """Take the differences that are excepted out of an outcome."""
        for number, entry in enumerate(self.entries):
            if not fnmatchcase(package, entry["package"]) or entry["behaviour"] != behaviour:
                continue
            for item in [i for i in outcome.differing if any(fnmatchcase(i, p) for p in entry["items"])]:
                del outcome.differing[item]
                outcome.excepted += 1
                self.used[number] = self.used.get(number, 0) + 1

    def unused(self) -> list[str]:
        """Return exceptions that nothing needed."""
        return [
            f"{e['package']}: {e['behaviour']}" for at, e in enumerate(self.entries) if at not in self.used
        ]


def read_exceptions(path: Path = _FILE) -> Excepted:
    """Read the exceptions; each has to name a test that is there."""
    entries = read_toml(path).get("exception", [])
    assert isinstance(entries, list)
    for entry in entries:
        assert set(entry) == set(Entry.__annotations__), f"{path}: {entry}"
        file, _, name = entry["test"].partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text(), f"{path}: there is no test {entry['test']}"
    return Excepted(entries)
