"""``relay.py NAMESPACE DEVICE HERE THERE DELAY RATE``: a link with delay and a rate to a network namespace.

Two TUN devices, one in the namespace it is started in and one in NAMESPACE, and this process between
them: what one is given, the other gets DELAY seconds later, RATE bits a second at the most, in each
direction. All of it is delayed: handshakes and acknowledgements too, as on a real path. Needs root.
Runs until it is killed; the devices go with it. Prints ``ready`` once packets flow.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque

#: <linux/if_tun.h>
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
#: Large packets: half the work for the relay; the figures hold for streams, which fill any packet.
_MTU = 9000
#: Seconds of data that wait for their turn before packets are dropped, as a router's queue holds.
_QUEUE_SECONDS = 0.05
#: Packets that are read in a row before others get their turn.
_BURST = 64


class Direction:
    """Packets on their way from one device to the other."""

    def __init__(self, source: int, target: int, delay: float, bytes_per_second: float) -> None:
        self.source, self._target = source, target
        self._delay, self._rate = delay, bytes_per_second
        self._free_at = 0.0
        self._packets: deque[tuple[float, bytes]] = deque()

    def take(self) -> None:
        """Read what the source has been given; what finds the queue full is lost."""
        for _ in range(_BURST):
            try:
                packet = os.read(self.source, 1 << 16)
            except BlockingIOError:
                return
            now = time.monotonic()
            begins = max(now, self._free_at)
            if begins - now > _QUEUE_SECONDS:
                continue
            self._free_at = begins + len(packet) / self._rate
            self._packets.append((self._free_at + self._delay, packet))

    def deliver(self) -> float:
        """Hand over what is due; return the seconds until more is, a second at the most."""
        while self._packets:
            left = self._packets[0][0] - time.monotonic()
            if left > 0:
                return min(left, 1.0)
            try:
                os.write(self._target, self._packets.popleft()[1])
            except OSError:
                pass  # the other device's queue is full: lost, as on any path
        return 1.0


def make_device(name: str) -> int:
    """Make a TUN device in this process's namespace; return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def enter(descriptor: int) -> None:
    """Go to another network namespace. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, 0) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def main() -> None:
    """Make the link and carry packets."""
    namespace, device, here, there = sys.argv[1:5]
    delay, rate = float(sys.argv[5]), float(sys.argv[6]) / 8
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    near = make_device(device)
    enter(os.open(f"/run/netns/{namespace}", os.O_RDONLY | os.O_CLOEXEC))
    far = make_device(device)
    enter(home)
    for place, own, peer in (((), here, there), (("-n", namespace), there, here)):
        for command in (
            f"address add {own} peer {peer} dev {device}",
            f"link set {device} mtu {_MTU} txqueuelen 10000 up",
        ):
            subprocess.run(["ip", *place, *command.split()], check=True)
    directions = (Direction(near, far, delay, rate), Direction(far, near, delay, rate))
    print("ready", flush=True)
    timeout = 1.0
    while True:
        readable = select.select([near, far], [], [], timeout)[0]
        for direction in directions:
            if direction.source in readable:
                direction.take()
        timeout = min(direction.deliver() for direction in directions)


if __name__ == "__main__":
    main()
