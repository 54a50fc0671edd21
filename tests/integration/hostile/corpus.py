"""All rows, in the order of the page, and which of them are tried in every run of the tests."""

from __future__ import annotations

from tests.integration.hostile import archives, builds, imports, metadata, takeovers
from tests.integration.hostile.row import Row

#: Titles of groups with their rows.
GROUPS: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("What an archive holds", archives.ROWS),
    ("What a package says that it is", metadata.ROWS),
    ("What a package does while it is imported", imports.ROWS),
    ("What a build from source does", builds.ROWS),
    ("What an installer that was taken over could do", takeovers.ROWS),
)
ROWS = tuple(row for _, rows in GROUPS for row in rows)

#: A sample of a minute: each kind of threat with the rows that are tried for it; all others are ``long``.
SAMPLE: dict[str, tuple[str, ...]] = {
    "network access": ("network", "build-network"),
    "reading /etc/shadow and the curator's home": ("reads",),
    "the curator's environment and credentials": ("environment",),
    "writing outside": ("writes", "install-wheel"),
    "fork bomb": ("fork-bomb",),
    "memory bomb": ("memory-bomb",),
    "disk bomb: bytes, inodes, sparse files": ("disk-bomb", "inodes", "sparse"),
    "zip bomb": ("zip-bomb",),
    "endless build": ("build-endless",),
    "daemon that outlives the build": ("build-daemon",),
    "`..` and absolute names in the archive and in RECORD": ("dotdot", "absolute", "record-dotdot"),
    "symlink and hardlink escapes": ("symlink-through", "out-hardlink"),
    "setuid files, device nodes, fifo": ("setuid", "devices"),
    "case-colliding and very long names": ("case", "long-name"),
    "very many files": ("many-files-few",),
    "non-UTF-8 names": ("not-utf8", "not-utf8-flag"),
    "RECORD that lies about hashes": ("record-lies",),
    "`.pth` with code": ("pth",),
    "`.data` scripts that overwrite others": ("same-script",),
    "name or metadata of another package": ("other-name", "two-infos", "build-other-name"),
    "two distributions that ship the same file": ("aaa-same-file",),
    "hanging when the sandbox is detected": ("hangs",),
    "a source distribution that nobody allowed": ("source-only",),
}
