"""One site folder out of several installed trees, and a bytecode folder beside it, for a trace.

Folders are new and files are hard links (copies, where nothing keeps code from writing to them):
events of inotify go by folder, so traces that run at the same time and share a dependency do not
see each other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from shelf_tools.collect import code_file
from shelf_tools.interpreters import Interpreter
from shelf_tools.sandbox import Sandbox

SITE = PurePosixPath("/site")
PYC = PurePosixPath("/pyc")
#: PEP 552: hash-based, not checked: the source is never read to see whether the bytecode is fresh.
_UNCHECKED_HASH = (0b01).to_bytes(4, "little") + bytes(8)


@dataclass(frozen=True)
class View:
    """Where things lie.

    ``owners`` maps each path in ``site`` to the distribution that owns it, ``sources`` each path
    below ``bytecode`` to the source that it is compiled from.
    """

    site: Path
    bytecode: Path
    mounts: dict[PurePosixPath, Path]
    owners: dict[str, str]
    sources: dict[str, str]


@contextmanager
def open_view(
    packages: Mapping[str, tuple[Path, Path | None]], interpreter: Interpreter, sandbox: Sandbox, beside: Path
) -> Iterator[View]:
    """Make a view of ``packages`` (tree and code by name) in a temporary folder of ``beside``.

    Where two packages have the same path, the first by name owns it (docs/format.md, section 10).
    """
    with tempfile.TemporaryDirectory(dir=beside, prefix="view-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        site, pyc = Path(folder, "site"), Path(folder, "pyc")
        _make_folder(site)
        _make_folder(pyc)
        mounts = {SITE: site, PYC: pyc}
        # sys.pycache_prefix mirrors absolute paths, so it depends on where the site folder is seen.
        bytecode = pyc / sandbox.resolve(SITE, mounts).relative_to("/")
        _make_folder(bytecode)
        owners: dict[str, str] = {}
        sources: dict[str, str] = {}
        for name in sorted(packages):
            tree, code = packages[name]
            # Without a sandbox, what a package writes into its own folder would be published.
            for path in _link_tree(tree, site, owners, shutil.copy if sandbox.name == "none" else _link):
                owners[path] = name
                if code is not None and path.endswith(".py"):
                    _add_code(code, path, bytecode, interpreter, sources)
        yield View(site, bytecode, mounts, owners, sources)


def _link_tree(
    tree: Path, site: Path, taken: Mapping[str, str], put: Callable[[str, Path], object]
) -> Iterator[str]:
    """Link (``put``) a tree's files into ``site``; yield their paths."""
    for folder, _, names in os.walk(tree):
        below = os.path.relpath(folder, tree)
        target = site if below == "." else site / below
        try:
            _make_folder(target)
        except (FileExistsError, NotADirectoryError):
            continue
        for name in names:
            path = name if below == "." else f"{below}/{name}"
            if path not in taken and not os.path.isdir(target / name):
                put(os.path.join(folder, name), target / name)
                yield path


def _make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that the sandbox's user can read whatever the curator's umask."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def _link(source: str, target: Path) -> None:
    """Link a file, or copy it where the file system cannot."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy(source, target, follow_symlinks=False)


def _add_code(
    code: Path, path: str, bytecode: Path, interpreter: Interpreter, sources: dict[str, str]
) -> None:
    """Write the unchecked-hash pyc of one source, if it has code and its name is not too long."""
    place = path[: -len(".py")] + f".{interpreter.cache_tag}.pyc"
    try:
        data = code_file(code, path).read_bytes()
        _make_folder((bytecode / place).parent)
        (bytecode / place).write_bytes(bytes.fromhex(interpreter.magic) + _UNCHECKED_HASH + data)
        (bytecode / place).chmod(0o644)
    except OSError:
        return
    sources[place] = path
