"""The resolvers a configuration means: those it lists, and for "auto" the system's, never ourselves.

Decides where the system keeps them. What is usable of them is `entrepot.dns.resolvconf`'s decision.
"""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from entrepot.cli.addresses import PROC, expanded
from entrepot.config.model import Config
from entrepot.config.values import Endpoint
from entrepot.dns.resolvconf import system_upstreams

RESOLV_CONF: Final = Path("/etc/resolv.conf")
BEHIND_STUB: Final = Path("/run/systemd/resolve/resolv.conf")
_DNS: Final = 53  # resolv.conf knows no other port


def resolvers(
    wanted: Iterable[Endpoint | str],
    own: Collection[str],
    *,
    resolv_conf: Path = RESOLV_CONF,
    behind_stub: Path = BEHIND_STUB,
) -> tuple[tuple[str, int], ...]:
    """(address, port) in order of preference. `own`: the addresses on whose port 53 we answer ourselves."""
    found: dict[tuple[str, int], None] = {}
    for one in wanted:
        if isinstance(one, Endpoint):
            found[one.address, one.port] = None
            continue
        try:
            text = resolv_conf.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        found.update(dict.fromkeys(system_upstreams(text, own, behind_stub)))
    return tuple(found)


def own_resolver_addresses(config: Config, proc: Path = PROC) -> list[str]:
    """The addresses on whose port 53 our responder answers."""
    return expanded(config.listen.address, proc) if config.listen.dns == _DNS else []
