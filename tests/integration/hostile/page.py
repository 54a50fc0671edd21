"""The sections of docs/security.md that show the corpus and the limits: ``python -m tests.integration.hostile.page``."""

from __future__ import annotations

import re

from tests.integration.hostile.corpus import GROUPS, ROWS
from tests.integration.hostile.row import Row
from tests.integration.overuse import table
from tests.support.children import REPOSITORY

PAGE = REPOSITORY / "docs" / "security.md"
HEADING = "## What was tried"
LIMITS = "### A package for each limit"
_LIMITS = """\
{heading}

Published with the flag as it is given here, which is less than the default so that a test is quick
(`tests/integration/test_limits.py`, which compares the lines; this section is made from there). `…` stands for
what is not always the same: the file and line of the requirement, the wheel's name, *probably*.

"""
_BEGIN = """\
{heading}

{count} packages that do what they should not, published by `shelf publish` in the real sandbox, source
distributions with `--allow-sdist` but for the first one (`tests/integration/hostile`; this section is made
from there, and a test compares them). After each: no process of the run is left, no file outside of the shelf
and no mount has changed, nobody on the machine was reached, no secret is in what was printed or published,
nothing that was on the shelf has changed, and `shelf verify` finds it clean. *Refused*: nothing of the package is published, and its line says why.
*Contained*: it is published as the data that it is, and what it tried did not come about. `…` stands for
the rest of a line.
"""


def section() -> str:
    """Return the section, from its heading on."""
    text = _BEGIN.format(heading=HEADING, count=len(ROWS))
    for title, rows in GROUPS:
        text += f"\n### {title}\n\n| what it does | made as | outcome | what the curator sees |\n|---|---|---|---|\n"
        text += "".join(map(_line, rows))
    return text


def _line(row: Row) -> str:
    seen = [f"`{_escaped(text)}`" for text in row.says]
    outcome = row.outcome + (f": {row.then}" if row.then else "")
    return f"| {row.does} | {row.made} | {outcome} | {'<br>'.join(seen) or 'nothing'} |\n"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").removeprefix("note: ")


def with_sections(page: str) -> str:
    """Return a page with these sections in the place of those that it has.

    A section ends where one of the same or a higher level begins.
    """
    limits = _LIMITS.format(heading=LIMITS) + table()
    for text, end in ((section(), "## "), (limits, "##")):
        heading = text.partition("\n")[0]
        before, found, rest = page.partition(f"\n{heading}\n")
        assert found, f"{PAGE} has no heading {heading!r}"
        after = re.search(rf"^{end}", rest, re.MULTILINE)
        page = f"{before}\n{text}" + (f"\n{rest[after.start() :]}" if after else "")
    return page


def main() -> None:
    """Write the page."""
    PAGE.write_text(with_sections(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
