"""Unprivileged uids for sandboxes that root starts: one for each run at a time.

The kernel counts processes per uid, and two runs of one uid could signal each other. Slots are
folders with a lock that the kernel drops when its holder dies, so publishers do not share a uid.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cloudimport.errors import ConfigurationError

#: 60578 to 61183 is the range below 65536 that nobody hands out (systemd, "Users, Groups, UIDs and
#: GIDs on systemd Systems"); a container may have no uids above 65535.
FIRST_UID = 60600
COUNT = 256
FOLDER = Path("/run/cloudimport")
#: Seconds to wait for a free slot: longer than any run of publishing may take.
PATIENCE = 3600.0

#: In a mount namespace of its own: a folder of the slot becomes a tmpfs, each source is bound into
#: it, and the rest of the command runs. All of it is gone when the last process is.
_BIND = """\
set -e
cd /
mount -t tmpfs -o mode=0711,size=1m,nosuid,nodev tmpfs "$1"
shift
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mkdir "$2"; else : > "$2"; fi
  mount --bind "$1" "$2"
  shift 2
done
shift
exec "$@"
"""


@dataclass(frozen=True)
class Slot:
    """A uid, held by this process alone, and the folder to bind sources in."""

    uid: int
    staging: Path

    def launcher(self, mounts: Mapping[PurePosixPath, Path]) -> tuple[list[str], dict[PurePosixPath, Path]]:
        """Return a command prefix that becomes the slot's uid, and where its sources are seen from there."""
        staged = {inside: self.staging / str(number) for number, inside in enumerate(mounts)}
        pairs: list[str] = []
        for inside, outside in mounts.items():
            pairs += [str(outside.resolve()), str(staged[inside])]
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            _BIND,
            "sh",
            str(self.staging),
        ]
        command += [*pairs, "--", "setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        return [*command, "--no-new-privs"], staged


@contextmanager
def take(patience: float = PATIENCE) -> Iterator[Slot]:
    """Hold a free slot; wait when all are taken.

    Raises ConfigurationError when the folder cannot be written or no slot becomes free in ``patience``
    seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        for number in range(COUNT):
            descriptor = _lock(number)
            if descriptor is None:
                continue
            try:
                yield Slot(FIRST_UID + number, FOLDER / str(number))
            finally:
                os.close(descriptor)
            return
        if time.monotonic() > deadline:
            raise ConfigurationError(f"all {COUNT} sandbox uids are in use (locks in {FOLDER})")
        time.sleep(0.1)


def _lock(number: int) -> int | None:
    """Return a descriptor that holds the slot's lock, or None if another process holds it."""
    folder = FOLDER / str(number)
    try:
        for made in (FOLDER, folder):
            made.mkdir(exist_ok=True)
            made.chmod(0o711)  # whatever the umask: the slot's uid passes through
        descriptor = os.open(
            FOLDER / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
    except OSError as error:
        raise ConfigurationError(f"sandbox slots cannot be kept in {FOLDER}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
