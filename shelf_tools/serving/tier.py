"""The cache tier that the sandboxes of a host share: the server fills it, they see it read-only.

It has the packs and indexes that functions' lockfiles name, each checked by its digest. Functions that read a
shelf with the same credentials share one (an access domain); others have one of their own, since a folder
cannot tell them apart. It is bounded: what no function needs any more makes room.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cloudimport.errors import CloudImportError
from cloudimport.format.lock import Lock
from cloudimport.sources.base import Source
from cloudimport.sources.config import SourceConfig
from cloudimport.sources.counting import Counting
from cloudimport.sources.opening import open_bare
from cloudimport.sources.retrying import Retrying
from shelf_tools.mirror import Wanted, fill, needed
from shelf_tools.serving import domains

#: What says who reads: who has the same may read the same.
_IDENTITY = (
    # With a secret that is wrong, nothing may be read; one that was corrected is another one.
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN"),
    *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"),
)


class TierError(CloudImportError):
    """The shared cache cannot hold what a function needs."""


class Traffic(NamedTuple):
    """What the server has read from the stores: requests, bytes, and objects that came into the tier."""

    requests: int
    bytes: int
    objects: int


class _Domain:
    """One access domain on one shelf: a folder, a source that counts, and who may fill it now."""

    def __init__(self, folder: Path, url: str, environ: Mapping[str, str]) -> None:
        self.folder = folder
        config = SourceConfig(environ=environ)
        self.counting = Counting(open_bare(url, config))
        self.source: Source = Retrying(self.counting, config.attempts, config.deadline)
        self.lock = threading.Lock()
        self.whole: dict[tuple[str, str], tuple[str, ...]] = {}
        #: What functions need, by name.
        self.needs: dict[str, tuple[str, ...]] = {}
        self.objects = 0
        self._held: int | None = None

    def hold(self) -> None:
        """Make the folder, if that was not done, and keep it from being removed. Raises OSError."""
        if self._held is None:
            self._held = domains.hold(self.folder)

    def close(self) -> None:
        """Let go of connections and of the folder."""
        self.source.close()
        if self._held is not None:
            os.close(self._held)
            self._held = None


class Tier:
    """Tiers below ``folder``, of ``most_bytes`` each at the most. May be used by several threads.

    Where all together have more, those that no server uses any more are removed.
    """

    def __init__(self, folder: Path, most_bytes: int, running: Callable[[], set[str]] = set) -> None:
        """``running`` returns the names of functions that have sandboxes: what these need goes last."""
        self._running = running
        self._folder = folder
        self._most = most_bytes
        self._domains: dict[str, _Domain] = {}
        self._lock = threading.Lock()
        #: How many objects made room for others: what was whole may not be so any more.
        self.removed = 0

    def source(self, url: str, environ: Mapping[str, str]) -> Source:
        """Return what reads a shelf with the credentials of ``environ``, and is counted."""
        return self._domain(url, environ).source

    def ensure(self, url: str, environ: Mapping[str, str], locked: Lock, target: str, name: str = "") -> Path:
        """Return the folder that has all that a lockfile needs for a target, filled if it was not.

        ``name`` is the function that needs it.

        Many may ask at once: one fills, the others wait. Raises TierError, a FetchError, FormatError or
        OSError.
        """
        domain = self._domain(url, environ)
        wanted = (locked.targets[target].digest, target)
        with domain.lock:
            if wanted not in domain.whole:
                domain.hold()
                with _alone(domain.folder):
                    for left in domain.folder.rglob(".tmp-*"):  # by a server that was killed
                        left.unlink(missing_ok=True)
                    objects = list(needed(domain.source, locked, [target], domain.folder))
                    self._make_room(domain, objects)
                    done = fill(domain.folder, objects, _nobody, _nobody)
                domain.objects += done.copied
                domain.whole[wanted] = tuple(one.key for one in objects)
                domains.remove_unused(self._folder, self._most)
            domain.needs[name] = domain.whole[wanted]
        return domain.folder

    def traffic(self) -> Traffic:
        """Return what was read from the stores so far."""
        with self._lock:
            ours = list(self._domains.values())
        counted = [(one.counting.requests, one.counting.bytes, one.objects) for one in ours]
        return (
            Traffic(*(sum(column) for column in zip(*counted, strict=True))) if counted else Traffic(0, 0, 0)
        )

    def close(self) -> None:
        """Let go of connections."""
        with self._lock:
            for domain in self._domains.values():
                domain.close()

    def _domain(self, url: str, environ: Mapping[str, str]) -> _Domain:
        said = "\0".join((url, *(environ.get(name, "") for name in _IDENTITY)))
        name = hashlib.sha256(said.encode()).hexdigest()[:24]
        with self._lock:
            if name not in self._domains:
                self._domains[name] = _Domain(self._folder / name, url, environ)
            return self._domains[name]

    def _make_room(self, domain: _Domain, objects: list[Wanted]) -> None:
        """Remove what is not needed now until what is missing fits: oldest first, what others run with last.

        Raises TierError.
        """
        needs = {one.key: max(0, one.size) for one in objects}
        if sum(needs.values()) > self._most:
            raise TierError(
                f"the shared cache may hold {self._most} bytes, and {sum(needs.values())} are needed: "
                "give 'shelf serve' a larger --tier-size"
            )
        held = {path: path.stat() for path in domains.files(domain.folder)}
        total = sum(found.st_size for found in held.values())
        total += sum(size for key, size in needs.items() if domain.folder / key not in held)
        live = {domain.folder / key for key in needs}
        running = self._running()
        others = {domain.folder / key for name in running for key in domain.needs.get(name, ())}
        for path in sorted(held, key=lambda path: (path in others, held[path].st_mtime)):
            if total <= self._most:
                break
            if path not in live:
                path.unlink(missing_ok=True)
                self.removed += 1
                total -= held[path].st_size
                key = path.relative_to(domain.folder).as_posix()
                domain.whole = {one: keys for one, keys in domain.whole.items() if key not in keys}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other servers from filling a folder meanwhile. Raises OSError."""
    with open(folder / domains.FILLING, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _nobody(_: object) -> None:
    return
