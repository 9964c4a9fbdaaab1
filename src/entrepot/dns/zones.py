"""Special names (RFC 6303, 6761, 7686, 9462): what is answered here and never asked of the Internet.

Decides by name and type alone. Kept short on purpose: `.local`, `.test`, `.internal` and `home.arpa` are forwarded,
because the site's own resolver, our upstream, may well know them.
"""

from dataclasses import dataclass
from typing import Final, Literal

from entrepot.dns.wire import TYPE_A, TYPE_AAAA, TYPE_PTR

type Labels = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Special:
    """What a special name gets: addresses, a pointer to localhost, NODATA, NXDOMAIN, or private upstreams only."""

    what: Literal["addresses", "localhost", "no_data", "no_name", "private"]
    zone: Labels  # whose SOA a negative answer carries
    values: tuple[str, ...] = ()


def _name(text: str) -> Labels:
    return tuple(text.encode("ascii").split(b"."))


_LOCALHOST: Final = _name("localhost")
_LOOPBACK: Final = {TYPE_A: ("127.0.0.1",), TYPE_AAAA: ("::1",)}
_POINTERS: Final = frozenset((_name("1.0.0.127.in-addr.arpa"), _name("1" + ".0" * 31 + ".ip6.arpa")))

# Nothing is there, and asking would only tell others what was asked for.
_NOWHERE: Final = frozenset(
    _name(zone)
    for zone in (
        "invalid",  # RFC 6761 6.4
        "onion",  # RFC 7686 2: a Tor name that slipped out
        # Browsers look it up before they move to DNS over HTTPS on their own, which would go around the cache;
        # NXDOMAIN tells them not to. Users who switched DoH on themselves are not overruled.
        "use-application-dns.net",
        "0.in-addr.arpa",
        "127.in-addr.arpa",
        "255.255.255.255.in-addr.arpa",
        "0" + ".0" * 31 + ".ip6.arpa",
        "1" + ".0" * 31 + ".ip6.arpa",
    )
)

# RFC 9462: a forwarder that passed this on would let clients discover the upstream's DoH and leave us for it.
_RESOLVER: Final = _name("resolver.arpa")

# Reverse zones of addresses that mean something only inside a site (RFC 6303 4.1-4.6, RFC 7793).
_PRIVATE: Final = frozenset(
    _name(zone)
    for zone in (
        "10.in-addr.arpa",
        "168.192.in-addr.arpa",
        "254.169.in-addr.arpa",
        *(f"{n}.172.in-addr.arpa" for n in range(16, 32)),
        *(f"{n}.100.in-addr.arpa" for n in range(64, 128)),
        "c.f.ip6.arpa",
        "d.f.ip6.arpa",
        *(f"{digit}.e.f.ip6.arpa" for digit in "89ab"),
    )
)


def special(labels: Labels, rtype: int) -> Special | None:
    """None: an ordinary name."""
    if labels[-1:] == _LOCALHOST:
        values = _LOOPBACK.get(rtype)
        return Special("addresses", _LOCALHOST, values) if values else Special("no_data", _LOCALHOST)
    if labels in _POINTERS and rtype == TYPE_PTR:
        return Special("localhost", labels)
    for start in range(len(labels)):
        zone = labels[start:]
        if zone in _NOWHERE:
            # The top of a zone exists, as RFC 6303 has it; only the canary must not.
            return Special("no_data" if start == 0 and labels[-1] == b"arpa" else "no_name", zone)
        if zone == _RESOLVER:
            return Special("no_data", zone)
        if zone in _PRIVATE:
            return Special("private", zone)
    return None
