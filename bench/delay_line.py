"""A wire that takes its time: what goes in at one end comes out at the other so many seconds later.

The kernel's own (netem) is not in every kernel; this is two TUN devices and a queue between them. Packets pass as the
sender's TCP made them, up to 64 KiB at once, so that a process in Python is fast enough: a few per cent of a core at
100 MB/s. It delays; it drops only what finds the queue full; rates are `tc`'s to set on the devices.

    python -P bench/delay_line.py PID-OF-ONE-MACHINE PID-OF-THE-OTHER DEVICE SECONDS

Makes a device of that name in the network of each machine, prints `ready` and runs until standard input ends.
"""

import fcntl
import os
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Final

_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h
_TUNSETOFFLOAD: Final = 0x400454D0
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_IFF_VNET_HDR: Final = 0x4000  # every packet comes with what is left to do to it: cutting, checksum
_OFFLOADS: Final = 0x01 | 0x02 | 0x04  # checksum, TCP over IPv4, TCP over IPv6
PACKET: Final = 1 << 17  # bytes, more than any
LIMIT: Final = 64 << 20  # bytes on the way in one direction
BATCH: Final = 64  # packets of one direction in a row


class Direction:
    """From the device that `source` stands for to that of `target`."""

    def __init__(self, source: int, target: int, delay: float) -> None:
        self.source, self._target, self._delay = source, target, delay
        self._queue: deque[tuple[float, bytes]] = deque()
        self._held = 0

    def take(self) -> None:
        """What has been sent."""
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, PACKET)
            except BlockingIOError:
                return
            if self._held < LIMIT:
                self._queue.append((time.monotonic() + self._delay, packet))
                self._held += len(packet)

    def give(self) -> None:
        """What has been under way for long enough."""
        now = time.monotonic()
        while self._queue and self._queue[0][0] <= now:
            _, packet = self._queue.popleft()
            self._held -= len(packet)
            with suppress(OSError):  # the device is down or full: lost, as on any wire
                os.write(self._target, packet)

    @property
    def due(self) -> float:
        """When `give` has something to do, in seconds of time.monotonic()."""
        return self._queue[0][0] if self._queue else float("inf")


def device(pid: int, name: str) -> int:
    """A new TUN device in the network of the process `pid`; this process is in that network afterwards."""
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    os.setns(network, os.CLONE_NEWNET)
    os.close(network)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR))
    fcntl.ioctl(descriptor, _TUNSETOFFLOAD, _OFFLOADS)
    return descriptor


def run(one: int, other: int, delay: float) -> None:
    """Until standard input ends."""
    directions = Direction(one, other, delay), Direction(other, one, delay)
    stop, sources = sys.stdin.fileno(), {each.source: each for each in directions}
    while True:
        wait = min(each.due for each in directions) - time.monotonic()
        ready, _, _ = select.select([*sources, stop], [], [], None if wait == float("inf") else max(0.0, wait))
        for descriptor in ready:
            if descriptor == stop:
                return
            sources[descriptor].take()
        for each in directions:
            each.give()


def main() -> None:
    one, other, name, delay = sys.argv[1:]
    devices = device(int(one), name), device(int(other), name)
    with suppress(OSError):  # a wire does not wait for a processor
        os.nice(-15)
    print("ready", flush=True)
    run(*devices, float(delay))


if __name__ == "__main__":
    main()
