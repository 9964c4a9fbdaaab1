"""What the responder is told, and who may ask it.

Decides which values make sense; where they come from is `config`'s concern, what follows from them the responder's.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

from entrepot.errors import EntrepotError

type Network = ipaddress.IPv4Network | ipaddress.IPv6Network

AUTO: Final = "auto"
_LONGEST_TTL: Final = 86_400  # seconds; clients that hold our address for longer than a day cannot be helped
_REMEMBERED: Final = 4_096  # askers whose verdict is remembered: more than a network of build hosts has


class InvalidDnsSettings(EntrepotError, ValueError):
    """A value of `DnsSettings` makes no sense; the message quotes it."""


def private_networks() -> tuple[Network, ...]:
    """RFC 1918, ULA, loopback and link-local: who may ask by default."""
    return tuple(
        ipaddress.ip_network(text)
        for text in (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "fc00::/7",
            "::1/128",
            "fe80::/10",
        )
    )


def _always() -> bool:
    return True


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """Everything the responder does depends on these; replaced as a whole by `Responder.reconfigure`."""

    intercepts: Callable[[str], bool]  # is this name ours? asked with lower case, no trailing dot
    advertise: tuple[str, ...] = (AUTO,)  # addresses to answer with; "auto" = the one the query came in on
    upstream: tuple[tuple[str, int], ...] = ()  # (address, port) in order of preference; none = SERVFAIL
    allow: tuple[Network, ...] | Literal["any"] = field(default_factory=private_networks)  # who may ask
    ttl: int = 30  # seconds an answer of ours lives, negative ones too; 0 = not at all
    fail_open: bool = True  # forward intercepted names while not `healthy()`
    healthy: Callable[[], bool] = _always  # asked at every wake-up: must return at once

    def __post_init__(self) -> None:
        """Raises InvalidDnsSettings."""
        for text in self.advertise:
            if text != AUTO and not _is_address(text):
                raise InvalidDnsSettings(f'cannot advertise "{text}": give an IP address or "{AUTO}"')
        if not self.advertise:
            raise InvalidDnsSettings(f'no address to advertise: give one or "{AUTO}"')
        for host, port in self.upstream:
            if not _is_address(host) or not 0 < port < 65536:
                raise InvalidDnsSettings(f'cannot ask "{host}" port {port}: give the address of a resolver')
        if not 0 <= self.ttl <= _LONGEST_TTL:
            raise InvalidDnsSettings(f"cannot use a ttl of {self.ttl} seconds: give 0 to {_LONGEST_TTL}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


class AccessList:
    """Who may ask. Remembers its verdicts, since the same few hosts ask all day."""

    def __init__(self, allow: tuple[Network, ...] | Literal["any"]) -> None:
        self._allow = allow
        self._known: dict[str, bool] = {}

    def admits(self, address: str) -> bool:
        """False for what is no address, too."""
        verdict = self._known.get(address)
        if verdict is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            verdict = self._known[address] = self._decide(address)
        return verdict

    def _decide(self, address: str) -> bool:
        if self._allow == "any":
            return True
        try:
            asker = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(asker, ipaddress.IPv6Address) and asker.ipv4_mapped:
            asker = asker.ipv4_mapped
        return any(asker in network for network in self._allow if network.version == asker.version)
