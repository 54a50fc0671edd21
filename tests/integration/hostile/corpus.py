"""All rows, in the order of the page."""

from __future__ import annotations

from tests.integration.hostile import archives, imports, metadata, takeovers
from tests.integration.hostile.row import Row

#: Titles of groups with their rows.
GROUPS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("What an archive holds", archives.ROWS),
    ("What a package says that it is", metadata.ROWS),
    ("What a package does while it is imported", imports.ROWS),
    ("What an installer or a build could do", takeovers.ROWS),
)
ROWS = tuple(row for _, rows in GROUPS for row in rows)
