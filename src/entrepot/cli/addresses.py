"""The addresses of this box, asked of the kernel.

Decides nothing. `/proc` is an argument, so that tests can have networks this machine has not.
"""

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104  # compared, not bound
# Addresses of the documentation prefixes (RFC 5737, RFC 3849): never on this box, so the route to them is the way out.
_ELSEWHERE: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
# An address in the forwarding table, and the line below that says it is one of ours.
_LOCAL: Final = re.compile(r"\|-- ([0-9.]+)\n +/32 host LOCAL")


def local_addresses(proc: Path = PROC) -> list[str]:
    """Every address of this box's interfaces, IPv4 first; link-local IPv6 ones with their zone."""
    found: dict[str, None] = {}
    for address in _LOCAL.findall(_text(proc / "net/fib_trie")):
        found[address] = None
    for line in _text(proc / "net/if_inet6").splitlines():
        match line.split():
            case [packed, _, _, _, _, interface]:
                address = ipaddress.IPv6Address(bytes.fromhex(packed))
                found[f"{address}%{interface}" if address.is_link_local else str(address)] = None
    return list(found)


def outward_address() -> str | None:
    """The address this box has towards its network; no packet is sent. None without a route out."""
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return None


def expanded(addresses: Iterable[str], proc: Path = PROC) -> list[str]:
    """`addresses` with wildcards replaced by what they stand for on this box."""
    local: list[str] | None = None
    found: dict[str, None] = {}
    for address in addresses:
        if address not in WILDCARDS:
            found[address] = None
            continue
        if local is None:
            local = local_addresses(proc)
        found.update(dict.fromkeys(one for one in local if (":" in one) is (":" in address)))
    return list(found)


def shown(address: str, port: int) -> str:
    """ADDRESS:PORT, with brackets around IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
