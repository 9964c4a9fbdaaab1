"""The listening sockets: which there are to be, whether they can be had, what to do if not.

The supervisor binds them all and children inherit them, so that a child that dies leaves connections waiting instead of
refused. A first bind without SO_REUSEPORT finds ports that are in use: with it the kernel would let two Entrepots of
one user share a port, each with half of the connections.

Decides: falling back to 8443 and 5353 without the right to low ports; stepping around systemd-resolved's stub on
127.0.0.53; leaving out "::" where there is no IPv6; doing without the web page where its port cannot be had. Everything
else is a `PortProblem` that says who is in the way.
"""

import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from entrepot.cli.addresses import PROC, local_addresses, shown
from entrepot.cli.holders import Holder, Transport, holders
from entrepot.config.model import Listen
from entrepot.errors import EntrepotError

type Service = Literal["https", "dns", "web"]
type Bind = Callable[[str, int, Transport], None]
"""Raises the `OSError` that binding would."""

_log: Final = logging.getLogger("entrepot.supervisor")

STUBS: Final = frozenset(("127.0.0.53", "127.0.0.54"))  # systemd-resolved's own listeners
UNPRIVILEGED: Final[dict[Service, int]] = {"https": 8443, "dns": 5353}
_TRANSPORTS: Final[dict[Service, tuple[Transport, ...]]] = {"https": ("tcp",), "dns": ("udp", "tcp"), "web": ("tcp",)}
_NO_IPV6: Final = frozenset((errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL))
_BACKLOG: Final = 4096  # connections that wait while a worker restarts; net.core.somaxconn cuts it
_STUB_OFF: Final = (
    "mkdir -p /etc/systemd/resolved.conf.d && "
    "printf '[Resolve]\\nDNSStubListener=no\\n' > /etc/systemd/resolved.conf.d/entrepot.conf",
    "systemctl restart systemd-resolved",
)


class PortProblem(EntrepotError):
    """A port cannot be had; the message says who has it and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is listened on. A port of 0 is off."""

    https: tuple[str, ...]
    https_port: int
    dns: tuple[str, ...]
    dns_port: int
    notes: tuple[str, ...] = ()
    """What was done otherwise than configured, a line each."""
    web: tuple[str, ...] = ()
    web_port: int = 0


def try_bind(address: str, port: int, transport: Transport) -> None:
    """Binds as anybody who wants the port alone does, and lets go of it. Raises `OSError`."""
    with _socket(address, transport) as sock:
        if transport == "tcp":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are nobody's
        sock.bind(_sockaddr(address, port))
        if transport == "tcp":
            sock.listen(1)  # two sockets may be bound to an address; only one may listen


class _Planner:
    """Goes through the ports; each may change what is listened on and add a note."""

    def __init__(self, bind: Bind, proc: Path) -> None:
        self._bind = bind
        self._proc = proc
        self.notes: list[str] = []

    def usable(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Without "::" where the box has no IPv6 and there is IPv4 beside it."""
        if "::" not in addresses or len(addresses) == 1:
            return tuple(addresses)
        try:
            self._bind("::", 0, "tcp")
        except OSError as failure:
            if failure.errno in _NO_IPV6:
                self.notes.append("no IPv6 on this box: not listening on [::]")
                return tuple(address for address in addresses if address != "::")
        return tuple(addresses)

    def service(self, service: Service, addresses: tuple[str, ...], port: int) -> tuple[tuple[str, ...], int]:
        """The addresses and the port to bind. Raises `PortProblem`."""
        if port == 0:
            return (), 0
        try:
            return self._claim(service, addresses, port), port
        except PermissionError:
            other = UNPRIVILEGED[service]
            if port >= 1024:
                raise PortProblem(f"cannot listen on port {port} ({service}): permission denied") from None
        try:
            claimed = self._claim(service, addresses, other)
        except PermissionError:
            raise PortProblem(f"cannot listen on port {other} ({service}): permission denied") from None
        self.notes.append(
            f"no right to port {port} ({service}): listening on {other} instead, where clients do not look; "
            "run as root or with CAP_NET_BIND_SERVICE"
        )
        return claimed, other

    def web(self, addresses: tuple[str, ...], port: int) -> tuple[tuple[str, ...], int]:
        """As `service`, but what cannot be had is done without: nobody's pulls need it."""
        if port == 0:
            return (), 0
        try:
            return self._claim("web", addresses, port), port
        except PermissionError:
            self.notes.append(f"no right to port {port} (web): no web page and no metrics; set another [listen] web")
        except PortProblem as refusal:
            self.notes.append(f"no web page and no metrics: {refusal}")
        return (), 0

    def _claim(self, service: Service, addresses: tuple[str, ...], port: int) -> tuple[str, ...]:
        """Raises `PermissionError`, `PortProblem`."""
        claimed: list[str] = []
        for address in addresses:
            for transport in _TRANSPORTS[service]:
                try:
                    self._bind(address, port, transport)
                except PermissionError:
                    raise
                except OSError as failure:
                    if failure.errno == errno.EADDRINUSE and service == "dns" and address == "0.0.0.0":  # noqa: S104
                        claimed += self._beside_the_stub(port, transport)
                        break
                    raise PortProblem(self._refusal(service, address, port, transport, failure)) from None
            else:
                claimed.append(address)
        return tuple(dict.fromkeys(claimed))

    def _beside_the_stub(self, port: int, transport: Transport) -> tuple[str, ...]:
        """The IPv4 addresses of this box one by one, if systemd-resolved's stub alone is in the way."""
        found = [
            one for kind in _TRANSPORTS["dns"] for one in holders(port, kind, self._proc) if ":" not in one.address
        ]
        addresses = tuple(one for one in local_addresses(self._proc) if ":" not in one and one not in STUBS)
        if not found or not addresses or any(one.address not in STUBS for one in found):
            raise PortProblem(_in_use("dns", "0.0.0.0", port, _in_the_way(found, "0.0.0.0")))  # noqa: S104
        for address in addresses:
            for kind in _TRANSPORTS["dns"]:
                try:
                    self._bind(address, port, kind)
                except OSError as failure:
                    raise PortProblem(self._refusal("dns", address, port, kind, failure)) from None
        self.notes.append(
            f"systemd-resolved has port {port} on 127.0.0.53: listening on {', '.join(addresses)} instead of 0.0.0.0; "
            "restart when the addresses of this box change"
        )
        return addresses

    def _refusal(self, service: Service, address: str, port: int, transport: Transport, failure: OSError) -> str:
        if failure.errno == errno.EADDRINUSE:
            found = holders(port, transport, self._proc)
            return _in_use(service, address, port, _in_the_way(found, address))
        where = f"cannot listen on {shown(address, port)} ({service})"
        if failure.errno == errno.EADDRNOTAVAIL:
            return f"{where}: no interface of this box has that address; set [listen] address"
        return f"{where}: {(failure.strerror or str(failure)).lower()}"


def _in_the_way(found: Sequence[Holder], address: str) -> Holder | None:
    """The holder that keeps `address` from us: an equal address, or a wildcard on either side."""
    same_family = [one for one in found if (":" in one.address) is (":" in address)] or list(found)
    exact = [one for one in same_family if one.address == address]
    return next(iter(exact or same_family), None)


def _in_use(service: Service, address: str, port: int, holder: Holder | None) -> str:
    whose = f"in use by {holder}" if holder else "in use"
    text = f"port {port} ({service}) is {whose}"
    if holder and (holder.address in STUBS or (holder.command or "").startswith("systemd-resolve")):
        return f"{text}: run `{_STUB_OFF[0]}`, then `{_STUB_OFF[1]}`"
    if address in {"0.0.0.0", "::"} and holder and holder.address != address:  # noqa: S104
        return f"{text}: stop it, list other addresses in [listen] address, or set another port in [listen] {service}"
    return f"{text}: stop it, or set another port in [listen] {service}"


def plan(listen: Listen, *, bind: Bind = try_bind, proc: Path = PROC) -> Plan:
    """What to listen on. Raises `PortProblem`."""
    planner = _Planner(bind, proc)
    addresses = planner.usable(listen.address)
    https, https_port = planner.service("https", addresses, listen.https)
    dns, dns_port = planner.service("dns", addresses, listen.dns)
    web, web_port = planner.web(addresses, listen.web)
    return Plan(https, https_port, dns, dns_port, tuple(planner.notes), web, web_port)


@dataclass(frozen=True, slots=True)
class Sockets:
    """What is bound. They stay open here while children come and go."""

    https: tuple[tuple[socket.socket, ...], ...]
    """A socket for each address, for each worker."""
    dns: tuple[socket.socket, ...]
    web: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """From now on the kernel refuses connections, once the children have closed theirs too."""
        for sock in (*(sock for worker in self.https for sock in worker), *self.dns, *self.web):
            sock.close()


def bind_all(wanted: Plan, workers: int) -> Sockets:
    """Binds what is planned. Raises `PortProblem`, `entrepot.dns.sockets.CannotListen`."""
    https: list[tuple[socket.socket, ...]] = []
    if wanted.https_port:
        https = [
            tuple(_listening("https", address, wanted.https_port) for address in wanted.https) for _ in range(workers)
        ]
    dns: Sequence[socket.socket] = ()
    if wanted.dns_port:
        from entrepot.dns.sockets import bind  # noqa: PLC0415  # not needed where DNS is off

        dns = bind(wanted.dns, wanted.dns_port)
    web = tuple(_listening("web", address, wanted.web_port) for address in wanted.web)
    return Sockets(tuple(https), tuple(dns), web)


def _listening(service: Service, address: str, port: int) -> socket.socket:
    sock = _socket(address, "tcp")
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(_sockaddr(address, port))
        sock.listen(_BACKLOG)
    except OSError as failure:
        sock.close()
        raise PortProblem(f"cannot listen on {shown(address, port)} ({service}): {failure.strerror}") from failure
    return sock


def _socket(address: str, transport: Transport) -> socket.socket:
    kind = socket.SOCK_STREAM if transport == "tcp" else socket.SOCK_DGRAM
    if ":" not in address:
        return socket.socket(socket.AF_INET, kind)
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    return sock


def _sockaddr(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    bare, _, zone = address.partition("%")
    if ":" not in address:
        return bare, port
    return bare, port, 0, socket.if_nametoindex(zone) if zone else 0
