"""The box's own addresses, asked of the kernel (Linux; elsewhere the answers are "unknown").

Decides nothing. `Interfaces` is the port the responder uses, so tests can have networks this machine has not.
"""

import fcntl
import ipaddress
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h: the primary IPv4 address of an interface
_IFREQ: Final = struct.Struct("16s24x")  # linux/if.h, struct ifreq: the name, then room for what comes back
_ADDRESS_AT: Final = 20  # in it: 16 bytes of name, 2 of family, 2 of port


class Interfaces(Protocol):
    """What the responder wants to know of the box."""

    def ipv4_beside(self, address: str, index: int) -> str | None:
        """The IPv4 address of the interface that has this IPv6 address, or else of the interface with this index."""

    def is_local(self, address: str) -> bool:
        """Does a packet to this address stay on the box?"""


class SystemInterfaces:
    """The real ones."""

    def __init__(self, if_inet6: Path = Path("/proc/net/if_inet6")) -> None:
        self._if_inet6 = if_inet6

    def ipv4_beside(self, address: str, index: int) -> str | None:
        """By owner first: a query from the box itself to its outer address comes in on the loopback interface."""
        name = self._owner(address)
        if name is None:
            try:
                name = socket.if_indextoname(index)
            except (OSError, OverflowError):
                return None
        return _primary_ipv4(name)

    def is_local(self, address: str) -> bool:
        """The kernel lets a socket be bound to its own addresses only, all of 127.0.0.0/8 included."""
        bare, _, zone = address.partition("%")
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        with suppress(OSError, ValueError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            if family == socket.AF_INET6:
                probe.bind((bare, 0, 0, socket.if_nametoindex(zone) if zone else 0))
            else:
                probe.bind((bare, 0))
            return True
        return False

    def _owner(self, address: str) -> str | None:
        """The interface that has this IPv6 address; link-local ones may be on several, so they have no owner."""
        wanted = ipaddress.IPv6Address(address.partition("%")[0])
        if wanted.is_link_local:
            return None
        try:
            lines = self._if_inet6.read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        packed = wanted.packed.hex()
        for line in lines:
            match line.split():
                case [found, _, _, _, _, name] if found == packed:
                    return name
        return None


def _primary_ipv4(name: str) -> str | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, _SIOCGIFADDR, _IFREQ.pack(name.encode()))
    except OSError:  # the interface is gone, or has no IPv4
        return None
    return socket.inet_ntoa(answer[_ADDRESS_AT : _ADDRESS_AT + 4])
