"""The cache's folder of environments and packs that sandboxes of this machine read (``<cache>/run``)."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cloudimport.cache.folder import open_folder
from cloudimport.environments import keep_index
from cloudimport.errors import CloudImportError, FormatError
from cloudimport.events import Counters
from cloudimport.format import keys
from cloudimport.format.records import Ref, sha256
from cloudimport.settings import Settings
from shelf_tools.compressing import compress, decompress_record
from shelf_tools.mirror import make_folders
from shelf_tools.swap import write_bytes

#: zstd level of an index that stays on this machine, or goes once over the line.
_LEVEL = 12
#: What was used longest ago goes until the folder has this share of its bound.
_LOW_WATER = 0.8


class Depot:
    """The cache's folder of environments and packs for sandboxes, bounded in bytes, shared by processes."""

    def __init__(self, settings: Settings) -> None:
        """Make the folder. Raises ConfigurationError or OSError."""
        self.cache_root = open_folder(settings.cache)
        self.folder = Path(self.cache_root, "run", "objects")
        self._bound = settings.cache_bytes
        self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others from taking anything away; what is too much goes first, unless others are at work."""
        with open(self.folder.parent / ".in-use", "ab") as lock:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._prune()
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Have an error of the disk name the folder, and what can be done."""
        try:
            yield
        except OSError as error:
            raise CloudImportError(
                f"{self.folder}: {error.strerror or error}: set CLOUDIMPORT_CACHE to a folder with more room"
            ) from error

    def _prune(self) -> None:
        """Remove what was used longest ago, and what a killed process left half-written."""
        found = []
        for path in self.folder.rglob("*"):
            with suppress(OSError):
                if path.name.startswith("."):
                    path.unlink()
                elif path.is_file():
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        size = sum(one[1] for one in found)
        if size <= self._bound:
            return
        for _, freed, path in sorted(found):
            if size <= self._bound * _LOW_WATER:
                return
            with suppress(OSError):
                path.unlink()
                size -= freed

    def index(self, ref: Ref) -> bytes | None:
        """Return an index as it is stored, None if it is not there, or not whole."""
        try:
            data = (self.folder / keys.environment_index(ref.digest)).read_bytes()
            return data if sha256(decompress_record(data, "index")) == ref.digest else None
        except (OSError, FormatError):
            return None

    def keep(self, plain: bytes) -> tuple[Ref, bytes]:
        """Keep an index, for sandboxes and for this user's processes; return it as it is stored."""
        data = compress(plain, _LEVEL)
        ref = Ref(sha256(plain), len(data), len(plain))
        path = self.folder / keys.environment_index(ref.digest)
        with self.telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data)
            for folder in (path.parent, self.folder):
                folder.chmod(0o755)  # whatever the umask: a sandbox has a user of its own
        keep_index(self.cache_root, ref, plain, Counters())
        return ref, data

    def show(self, folder: Path, wanted: Iterable[str]) -> None:
        """Put objects, by their keys, into a folder for a sandbox; it has no others. Raises OSError."""
        with self.telling():
            for key in wanted:
                make_folders(folder, key)
                try:
                    os.link(self.folder / key, folder / key)
                except OSError:  # not every file system has links
                    shutil.copy(self.folder / key, folder / key)
