"""A shaped link to a server in a network namespace of its own: what a cold start is measured over.

Needs root: /dev/net/tun, ``ip netns``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: Between a function and S3 in the same region: seconds for a round trip, bits per second.
ROUND_TRIP = 0.015
RATE = 600e6
_HERE, _THERE = "10.73.0.1", "10.73.0.2"
_DEVICE = "shaped0"


@dataclass(frozen=True)
class Traffic:
    """What has crossed the link since it is there, in bytes of IP packets."""

    received: int
    sent: int

    def since(self, before: Traffic) -> Traffic:
        """Return the difference."""
        return Traffic(self.received - before.received, self.sent - before.sent)


@dataclass(frozen=True)
class Link:
    """The link as clients on this side see it."""

    namespace: str
    #: The server's address.
    address: str = _THERE

    def at_server(self, *command: str) -> list[str]:
        """Return a command that runs ``command`` at the other end."""
        return ["ip", "netns", "exec", self.namespace, *command]

    def traffic(self) -> Traffic:
        """Return what this end has received and sent."""
        folder = Path(f"/sys/class/net/{_DEVICE}/statistics")
        return Traffic(*(int((folder / name).read_text()) for name in ("rx_bytes", "tx_bytes")))


def missing() -> str:
    """Return what is missing for a shaped link, "" if nothing is."""
    if os.geteuid() != 0:
        return "root"
    if not os.path.exists("/dev/net/tun"):
        return "/dev/net/tun"
    return ""


@contextmanager
def shaped_link(round_trip: float = ROUND_TRIP, rate: float = RATE) -> Iterator[Link]:
    """Make a link with a round trip of so many seconds and so many bits per second in each direction."""
    link = Link(f"cloudimport-bench-{os.getpid()}")
    relay = Path(__file__).with_name("relay.py")
    _ip("netns", "add", link.namespace)
    try:
        _ip("-n", link.namespace, "link", "set", "lo", "up")
        arguments = (link.namespace, _DEVICE, _HERE, _THERE, str(round_trip / 2), str(rate))
        with subprocess.Popen(
            [sys.executable, "-I", str(relay), *arguments], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                if process.stdout.readline().strip() != "ready":
                    raise OSError("the relay of the shaped link did not start; what it said stands above")
                yield link
            finally:
                process.kill()
    finally:
        _ip("netns", "delete", link.namespace)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
