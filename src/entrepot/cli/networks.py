"""Who may ask, as the configuration says it: networks, "private", "any"."""

from typing import Literal

from entrepot.config.values import Network
from entrepot.dns.settings import private_networks


def allowed(wanted: tuple[Network | str, ...]) -> tuple[Network, ...] | Literal["any"]:
    """The networks."""
    if "any" in wanted:
        return "any"
    networks: dict[Network, None] = {}
    for one in wanted:
        networks.update(dict.fromkeys(private_networks() if isinstance(one, str) else (one,)))
    return tuple(networks)
