"""Publishing what is installed beside the tests: real packages without an index or a sandbox."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

from shelf_tools.indexing import Built
from tests.support.shelves import MadeShelf

#: requests and what it needs: sources, data, and an extension module where charset-normalizer has one.
REQUESTS = ("requests", "urllib3", "idna", "certifi", "charset-normalizer")


def files_of(name: str) -> dict[str, str | bytes]:
    """Return an installed distribution's files as it was published: no bytecode, no scripts."""
    found: dict[str, str | bytes] = {}
    for file in distribution(name).files or ():
        path = Path(str(file.locate()))
        text = file.as_posix()
        if not text.startswith("..") and "__pycache__" not in text and path.is_file():
            found[text] = path.read_bytes()
    return found


def publish_installed(shelf: MadeShelf, *names: str) -> dict[str, Built]:
    """Publish installed distributions, every source of each in its lead."""
    built = {}
    for name in names:
        files = files_of(name)
        opened = [(path, True) for path in sorted(files) if path.endswith(".py")]
        version = distribution(name).version
        built[name] = shelf.add(name, version, files, opened=opened, with_metadata=False)
    return built


def requests_shelf(folder: Path) -> MadeShelf:
    """Return a new shelf below ``folder`` with requests and what it needs, and their environment."""
    (folder / "work").mkdir()
    made = MadeShelf(folder / "work")
    publish_installed(made, *REQUESTS)
    made.environment()
    return made
