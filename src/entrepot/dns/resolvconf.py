"""The system's resolvers as upstreams (resolv.conf(5)).

Decides which of them are usable: in order, each once, never ourselves. The text comes in as an argument; only the
file behind systemd-resolved's stub is read here, because whether it is needed is found here.
"""

import ipaddress
from collections.abc import Collection
from pathlib import Path
from typing import Final

_PORT: Final = 53
_STUBS: Final = frozenset(("127.0.0.53", "127.0.0.54"))  # systemd-resolved's own listeners


def system_upstreams(
    resolv_conf_text: str, own_addresses: Collection[str], stub_conf: Path | None = None
) -> list[tuple[str, int]]:
    """The resolvers that `resolv_conf_text` names, without those at `own_addresses` (as (address, 53)).

    systemd-resolved's stub is replaced by the resolvers behind it, read from `stub_conf` (normally
    /run/systemd/resolve/resolv.conf): the stub would ask us, once we are what the system resolves with. Without that
    file the stub is used as it stands.
    """
    own = {_bare(address) for address in own_addresses}
    found: dict[str, None] = {}  # an ordered set
    for address in _nameservers(resolv_conf_text):
        behind = _behind(stub_conf) if address in _STUBS else []
        found.update(dict.fromkeys(behind or [address]))
    return [(address, _PORT) for address in found if _bare(address) not in own]


def _behind(stub_conf: Path | None) -> list[str]:
    try:
        text = stub_conf.read_text(encoding="utf-8", errors="replace") if stub_conf else ""
    except OSError:
        return []
    return [address for address in _nameservers(text) if address not in _STUBS]


def _nameservers(text: str) -> list[str]:
    """Lines that do not name an address are skipped, as the C library skips them."""
    found = []
    for line in text.splitlines():
        match line.partition("#")[0].partition(";")[0].split():
            case ["nameserver", address, *_] if _normal(address):
                found.append(address)
    return found


def _normal(address: str) -> str:
    """One spelling per address, its zone kept; empty if it is none."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return ""


def _bare(address: str) -> str:
    """The same without its zone: an own link-local address is ours on whatever interface it is named."""
    return _normal(address).partition("%")[0]
