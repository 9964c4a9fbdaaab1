"""Sockets for the servers, and the local address behind each packet (ip(7), RFC 3542 6).

Decides how sockets are set up. A socket bound to a wildcard address does not know where its packets were sent to;
the kernel says so beside each packet (IP_PKTINFO), and the same note on the reply makes it leave from that address:
clients drop replies from another one.
"""

import errno
import ipaddress
import logging
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from entrepot.errors import EntrepotError

_log: Final = logging.getLogger("entrepot.dns")

type Ancillary = list[tuple[int, int, bytes]]

_IP_PKTINFO: Final = 8  # linux/in.h; not in every Python's socket module
_IPV6_RECVPKTINFO: Final = 49  # linux/in6.h
_IPV6_PKTINFO: Final = 50
_PKTINFO4: Final = struct.Struct("=i4s4s")  # interface, local address to send from, address in the header
_PKTINFO6: Final = struct.Struct("=16sI")  # address, interface
ANCILLARY_SIZE: Final = 64  # bytes: room for either note, with its header

_BACKLOG: Final = 128  # TCP connections waiting to be accepted
_BUFFER: Final = 1 << 20  # bytes; some 1,000 queries can wait while one is answered (the default holds 250)
_TRIES: Final = 16  # for a port that is free on every address, when any will do


class CannotListen(EntrepotError):
    """A port could not be taken; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Where a packet was sent to."""

    address: str
    interface: int  # its index; 0 = unknown
    source: Ancillary  # what makes a reply leave from there


def bind(addresses: Sequence[str], port: int) -> list[socket.socket]:
    """A UDP and a listening TCP socket for each address, all on one port; port 0: one that is free on all of them.

    Raises CannotListen, with nothing left open. "::" takes IPv6 only, and is left out where the box has no IPv6 and
    something else is listened on.
    """
    for _ in range(_TRIES - 1 if port == 0 else 0):
        with suppress(CannotListen):
            return _bind_all(addresses, 0)
    return _bind_all(addresses, port)


def _bind_all(addresses: Sequence[str], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for address in addresses:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                try:
                    bound.append(_bind(address, port, kind))
                except OSError as failure:
                    if address == "::" and len(addresses) > 1 and failure.errno in _NO_IPV6:
                        _log.info("no IPv6 on this box: not listening on [::]")
                        break
                    raise CannotListen(_advice(address, port, failure)) from failure
                port = bound[-1].getsockname()[1]
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    return bound


_NO_IPV6: Final = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))


def _advice(address: str, port: int, failure: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "another resolver has it; stop it (systemd-resolved: DNSStubListener=no) or set listen.dns",
        errno.EACCES: "run as root or with CAP_NET_BIND_SERVICE, or set listen.dns to a port above 1023",
        errno.EADDRNOTAVAIL: "no interface has this address; set listen.address",
    }.get(failure.errno or 0, "set listen.address and listen.dns")
    return f'cannot listen on "{address}" port {port}: {failure.strerror or failure}: {advice}'


def _bind(address: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """Raises OSError."""
    bare, _, zone = address.partition("%")
    try:
        version = ipaddress.ip_address(bare).version
    except ValueError:
        raise OSError(errno.EINVAL, "not an IP address") from None
    sock = socket.socket(socket.AF_INET6 if version == 6 else socket.AF_INET, kind)
    try:
        sock.setblocking(False)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Only here: over UDP it would let somebody else take the port from under us.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            _prepare(sock)
        scope = socket.if_nametoindex(zone) if zone else 0
        sock.bind((bare, port, 0, scope) if version == 6 else (bare, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _prepare(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # the kernel gives what its limit allows


def arrival(note: tuple[int, int, bytes]) -> Arrival | None:
    """What the kernel said beside a packet; None if it is no such note, or the packet went to a group.

    The interface is left out of the reply's note, so that the reply takes the box's own route back, which need not
    be the way the query came; except for IPv6 link-local addresses, which mean nothing without one.
    """
    match note:
        case (socket.IPPROTO_IP, kind, data) if kind == _IP_PKTINFO and len(data) == _PKTINFO4.size:
            index, local, _ = _PKTINFO4.unpack(data)
            source = _PKTINFO4.pack(0, local, bytes(4))
            return Arrival(socket.inet_ntoa(local), index, [(socket.IPPROTO_IP, _IP_PKTINFO, source)])
        case (socket.IPPROTO_IPV6, kind, data) if kind == _IPV6_PKTINFO and len(data) == _PKTINFO6.size:
            local, index = _PKTINFO6.unpack(data)
            address = ipaddress.IPv6Address(local)
            if address.is_multicast:
                return None
            source = _PKTINFO6.pack(local, index if address.is_link_local else 0)
            return Arrival(str(address), index, [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, source)])
    return None
