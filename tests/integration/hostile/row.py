"""A row of the corpus: a package, what it does, and what a curator must see."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.wheels import build_wheel

REFUSED, CONTAINED = "refused", "contained"


@dataclass(frozen=True)
class Place:
    """Where a package is made, and what hostile code is told of the machine, to make it easy for it."""

    folder: Path
    words: Mapping[str, str]

    def code(self, text: str) -> str:
        """Return ``text`` with each ``@WORD@`` replaced."""
        return re.sub(r"@([A-Z]+)@", lambda found: self.words[found[1]], text)


@dataclass(frozen=True)
class Row:
    """One package, or a few that belong together.

    ``make`` writes its files into a place's folder and returns the pins to publish. ``made`` says how, for
    people. ``outcome``: refused (nothing of it is published) or contained (it is published, and has done
    nothing else). ``says``: what the curator sees, ``…`` for anything within a line; ``then`` says for
    people what becomes of it where no line does. ``limits`` are flags with values, smaller than the default ones so that
    a row is quick; ``allow_sdist``: it may be built from source. ``installer`` is a script in place of the
    one that installs wheels in the sandbox: what an installer that a wheel has taken over could do.
    """

    name: str
    does: str
    outcome: str
    says: tuple[str, ...]
    make: Callable[[Place, str], list[str]]
    made: str = "wheel"
    then: str = ""
    limits: Mapping[str, str] = field(default_factory=dict)
    installer: str = ""
    allow_sdist: bool = False

    def flags(self) -> list[str]:
        """Return what the publisher is told besides."""
        given = [part for name, value in self.limits.items() for part in (f"--{name}", value)]
        return [*given, *(["--allow-sdist", self.name] if self.allow_sdist else [])]

    def missing(self, said: str) -> list[str]:
        """Return which of ``says`` are in no line of what was said."""
        return [text for text in self.says if not re.search(pattern(text), said)]


def pattern(text: str) -> str:
    """Return the regular expression of a text in which ``…`` stands for anything within a line."""
    return "[^\n]*".join(map(re.escape, text.split("…")))


def wheel(files: Mapping[str, str | bytes], **options: object) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel of ``files`` that is called as its row; ``NAME`` in paths is its name."""

    def make(place: Place, name: str) -> list[str]:
        spelt = name.replace("-", "_")
        members = {
            path.replace("NAME", spelt): place.code(data) if isinstance(data, str) else data
            for path, data in files.items()
        }
        texts = {
            key: place.code(value).replace("NAME", name) if isinstance(value, str) else value
            for key, value in options.items()
        }
        build_wheel(place.folder, name, "1.0", members, **texts)  # type: ignore[arg-type]
        return [f"{name}==1.0"]

    return make


def imported(code: str, **others: str) -> Callable[[Place, str], list[str]]:
    """Return how to make a wheel with one module, ``code``, and ``others``."""
    return wheel({"NAME.py": code, **{f"{name}.py": text for name, text in others.items()}})
