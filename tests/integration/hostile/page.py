"""The section of docs/security.md that shows the corpus: ``python -m tests.integration.hostile.page``."""

from __future__ import annotations

import re

from tests.integration.hostile.corpus import GROUPS, ROWS
from tests.integration.hostile.row import Row
from tests.support.children import REPOSITORY

PAGE = REPOSITORY / "docs" / "security.md"
HEADING = "## What was tried"
_BEGIN = """\
{heading}

{count} packages that do what they should not, published by `shelf publish` in the real sandbox
(`tests/integration/hostile`; this section is made from there, and a test compares them). After each: no
process of the run is left, no file outside of the shelf and no mount has changed, nobody on the machine was
reached, no secret is in what was printed or published, nothing that was on the shelf has changed, and
`shelf verify` finds it clean. *Refused*: nothing of the package is published, and its line says why.
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


def with_section(page: str) -> str:
    """Return a page with this section in the place of the one that it has, or at its end."""
    found = re.search(rf"^{HEADING}$.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    if found is None:
        return f"{page.rstrip()}\n\n{section()}"
    rest = page[found.end() :]
    return page[: found.start()] + section() + ("\n" if rest else "") + rest


def main() -> None:
    """Write the page."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else "# Security\n"
    PAGE.write_text(with_section(text), encoding="utf-8")


if __name__ == "__main__":
    main()
