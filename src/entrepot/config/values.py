"""The words of the configuration: sizes, times, addresses, names. Pure text in, values out.

Each `parse_*` takes the text as written and raises `ValueError` whose message says what is allowed (it ends the
sentence "KEY: VALUE: ..."); each `show_*` gives the text back, so that `parse(show(value)) == value`. Where a text
is written (file, line, variable) is known to the caller only.
"""

import re
from dataclasses import dataclass
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

type Network = IPv4Network | IPv6Network

# Decimal units are what disk makers and network people count in, binary ones what file systems show. "100G" means
# either, depending on whom one asks, so it is refused.
_UNITS: Final = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgtp", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgtp", start=1)},
}
_SHOWN: Final = ("PiB", "TiB", "GiB", "MiB", "KiB", "PB", "TB", "GB", "MB", "kB")
_SIZE: Final = re.compile(r"(\d{1,20}(?:\.\d{1,6})?) ?([kmgtp]?i?b)", re.IGNORECASE | re.ASCII)
_BITS: Final = re.compile(r"(\d{1,20}(?:\.\d{1,6})?) ?([kmg]?)bit", re.IGNORECASE | re.ASCII)
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?%", re.ASCII)
_MILLISECONDS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?(ms|s|m|h|d)", re.ASCII)
_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_BRACKETED: Final = re.compile(r"\[([^\[\]]+)\](?::(\d{1,5}))?", re.ASCII)
_PORTED: Final = re.compile(r"([^:\[\]]+):(\d{1,5})", re.ASCII)
_URL: Final = re.compile(r"(https?)://([^/?#]*)/?", re.IGNORECASE)

ALLOWED_SIZE: Final = 'a size with its unit, such as "100GiB", "500MB" or "0"'
ALLOWED_DURATION: Final = 'a time with its unit, such as "250ms", "30s", "5m", "24h" or "7d"'
ALLOWED_ENDPOINT: Final = 'an IP address with an optional port, such as "1.2.3.4", "1.2.3.4:5353" or "[::1]:53"'
ALLOWED_NETWORK: Final = '"private", "any" or a network such as "10.0.0.0/8"'
ALLOWED_NAME: Final = 'a host name such as "quay.io"'
ALLOWED_URL: Final = 'an address such as "https://registry.example" or "http://10.0.0.5:5000", without path or user'


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the file system that holds the store."""

    percent: float
    """Above 0, at most 100."""

    def of(self, total: int) -> int:
        """The share of `total` bytes, in bytes."""
        return int(total * self.percent / 100)


type Size = int | Share
"""Bytes, or a share of the disk."""


def in_bytes(size: Size, disk: int) -> int:
    """`size` in bytes on a file system of `disk` bytes."""
    return size.of(disk) if isinstance(size, Share) else size


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a DNS server listens."""

    address: str
    """IPv4 or IPv6, without brackets."""
    port: int = 53

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_bytes(text: str) -> int:
    """Bytes; "0" needs no unit."""
    if text.strip() == "0":
        return 0
    if (found := _SIZE.fullmatch(text.strip())) is None or (unit := _UNITS.get(found[2].lower())) is None:
        raise ValueError(f"must be {ALLOWED_SIZE}")
    return int(Decimal(found[1]) * unit)


def show_bytes(size: int) -> str:
    """The shortest text that gives `size` back exactly."""
    if size == 0:
        return "0"
    for unit in _SHOWN:
        if size % (scale := _UNITS[unit.lower()]) == 0:
            return f"{size // scale}{unit}"
    return f"{size}B"


def parse_size(text: str) -> Size:
    """Bytes, or a share of the disk."""
    if (found := _SHARE.fullmatch(text.strip())) is not None and 0 < (percent := float(found[1])) <= 100:
        return Share(percent)
    try:
        return parse_bytes(text)
    except ValueError:
        raise ValueError(f'must be {ALLOWED_SIZE}, or a share of the disk, such as "60%"') from None


def show_size(size: Size) -> str:
    """The text of a size or share."""
    return f"{size.percent:g}%" if isinstance(size, Share) else show_bytes(size)


def parse_rate(text: str) -> int:
    """Bytes per second: a size, or bits as lines are sold in, with or without "/s"."""
    amount = text.strip().removesuffix("/s")
    if (found := _BITS.fullmatch(amount)) is not None:
        bits = Decimal(found[1]) * 1000 ** " kmg".index(found[2].lower() or " ")
        return max(1, int(bits / 8)) if bits else 0  # a fraction of a byte is not "no limit"
    try:
        return parse_bytes(amount)
    except ValueError:
        raise ValueError('must be a rate, such as "500Mbit", "10MB/s", or "0" for no limit') from None


def show_rate(rate: int) -> str:
    """The text of a rate."""
    return f"{show_bytes(rate)}/s" if rate else "0"


def parse_duration(text: str) -> float:
    """Seconds, to the millisecond; "0" needs no unit."""
    if text.strip() == "0":
        return 0.0
    if (found := _DURATION.fullmatch(text.strip())) is None:
        raise ValueError(f"must be {ALLOWED_DURATION}")
    return round(Decimal(found[1]) * _MILLISECONDS[found[2]]) / 1000


def show_duration(seconds: float) -> str:
    """In the largest unit of which `seconds` is a whole number."""
    milliseconds = round(seconds * 1000)
    if milliseconds == 0:
        return "0s"
    unit = next(unit for unit, scale in _MILLISECONDS.items() if milliseconds % scale == 0)
    return f"{milliseconds // _MILLISECONDS[unit]}{unit}"


def parse_address(text: str) -> str:
    """An IP address in canonical form."""
    try:
        return str(ip_address(text.strip().removeprefix("[").removesuffix("]")))
    except ValueError:
        raise ValueError('must be an IP address, such as "10.0.0.5" or "::"') from None


def parse_endpoint(text: str) -> Endpoint:
    """An IP address and a port, 53 if none is given."""
    text = text.strip()
    found = _BRACKETED.fullmatch(text) or _PORTED.fullmatch(text)
    host, port = (found[1], found[2]) if found else (text, None)
    try:
        address = str(ip_address(host))
    except ValueError:
        raise ValueError(f"must be {ALLOWED_ENDPOINT}") from None
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    return Endpoint(address, 53 if port is None else int(port))


def parse_network(text: str) -> str | Network:
    """ "private", "any", or a network. Host bits set are refused: it is nearly always a slip."""
    text = text.strip()
    if text in {"private", "any"}:
        return text
    try:
        return ip_network(text)
    except ValueError:
        pass
    try:
        meant = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"must be {ALLOWED_NETWORK}") from None
    raise ValueError(f'has host bits set; did you mean "{meant}"?')


def parse_host(text: str) -> str:
    """A host name in lower case without trailing dot; an IP address is none."""
    host = text.strip().lower().removesuffix(".")
    labels = host.split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError(f"must be {ALLOWED_NAME}")
    return host


def parse_registry(text: str) -> str:
    """What images are called by: "quay.io", "registry.example:5000"; or a family of registries: "*.azurecr.io"."""
    name = text.strip().lower()
    try:
        if name.startswith("*."):
            stars = len(name) - len(name.lstrip("*."))
            return name[:stars] + parse_host(name[stars:])
        return _authority(name, addresses=False)
    except ValueError:
        raise ValueError(f'must be {ALLOWED_NAME}, "registry.example:5000" or "*.azurecr.io"') from None


def _authority(text: str, *, addresses: bool) -> str:
    """HOST or HOST:PORT, and where `addresses` are allowed ADDRESS or [ADDRESS] for HOST, in lower case."""
    host, colon, port = text.lower().rpartition(":")
    if not colon or "]" in port:
        host, port = text.lower(), ""
    elif not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError("must have a port from 1 to 65535")
    try:
        host = parse_host(host)
    except ValueError:
        if not addresses:
            raise
        address = ip_address(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
        if (address.version == 6) is not host.startswith("["):
            raise ValueError("must have brackets around an IPv6 address, and only there") from None
        host = f"[{address}]" if address.version == 6 else str(address)
    return f"{host}:{port}" if port else host


def parse_url(text: str) -> str:
    """scheme://host[:port]. A user or password in it would end up in logs, a path would be lost: both are refused."""
    if (found := _URL.fullmatch(text.strip())) is None:
        raise ValueError(f"must be {ALLOWED_URL}")
    try:
        return f"{found[1].lower()}://{_authority(found[2], addresses=True)}"
    except ValueError:
        raise ValueError(f"must be {ALLOWED_URL}") from None
