"""Which upstream resolver is asked first, which is down, which leads back to us.

Decides by what the flights report. No socket and no clock here: `now` comes in. The caller's order is the order of
preference, for often only the first resolver knows the site's own names; one that failed goes to the end until it
answers again, and is tried again beside questions that others answer, so nobody waits for it.
"""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from entrepot.dns.settings import private_networks

ATTEMPTS: Final = 3  # packets sent for one question at most
_FIRST_RETRY: Final = 1.0  # seconds until a failed upstream is tried again; doubles, for one lost packet is no outage
_LAST_RETRY: Final = 30.0  # seconds
_PROBE_PAUSE: Final = 60.0  # seconds between two loop probes of one upstream
_LOOP_PAUSE: Final = 300.0  # seconds an upstream that leads back to us is left alone


@dataclass(slots=True, eq=False)
class Upstream:
    """One resolver and how it fares."""

    host: str
    port: int
    private: bool  # inside the site, as far as its address tells
    failures: int = 0  # since its last answer
    retry_at: float = 0.0
    probe_at: float = 0.0  # not to be probed for loops before
    looping_until: float = 0.0

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def bare_host(self) -> str:
        """Without the zone, as the source address of a packet is written."""
        return self.host.partition("%")[0]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def make_upstream(host: str, port: int) -> Upstream:
    """An upstream that has not failed yet."""
    address = ipaddress.ip_address(host.partition("%")[0])
    networks = (network for network in private_networks() if network.version == address.version)
    return Upstream(host, port, any(address in network for network in networks))


class Pool:
    """The upstreams of one configuration."""

    def __init__(self, upstreams: Sequence[tuple[str, int]]) -> None:
        self.all = [make_upstream(host, port) for host, port in upstreams]

    @property
    def any_private(self) -> bool:
        """Is there an upstream that may know private reverse zones?"""
        return any(upstream.private for upstream in self.all)

    def attempts(self, now: float, *, private_only: bool = False) -> list[Upstream]:
        """Whom to ask, in order; one upstream several times if there are too few. Empty: nobody can be asked."""
        usable = [
            upstream
            for upstream in self.all
            if now >= upstream.looping_until and (upstream.private or not private_only)
        ]
        order = sorted(usable, key=lambda upstream: upstream.failures > 0)  # stable: preference within each half
        return (order * ATTEMPTS)[:ATTEMPTS]

    def due(self, now: float, asked: Upstream) -> Upstream | None:
        """An upstream that failed and is to be tried again, beside `asked`; taken for failing until it answers."""
        for upstream in self.all:
            if upstream.failures and upstream is not asked and now >= max(upstream.retry_at, upstream.looping_until):
                self.failed(upstream, now)
                return upstream
        return None

    def worked(self, upstream: Upstream) -> None:
        """It answered."""
        upstream.failures = 0

    def failed(self, upstream: Upstream, now: float) -> None:
        """It did not. Questions that were in flight together count as one failure."""
        if not upstream.failures or now >= upstream.retry_at:
            upstream.failures += 1
            upstream.retry_at = now + _pause(upstream.failures)

    def may_probe(self, upstream: Upstream, now: float) -> bool:
        """True at most once a minute: whether it leads back to us may be tried now."""
        if now < upstream.probe_at:
            return False
        upstream.probe_at = now + _PROBE_PAUSE
        return True

    def looping(self, upstream: Upstream, now: float) -> None:
        """It leads back to us: it is left alone for a while."""
        upstream.looping_until = now + _LOOP_PAUSE


def _pause(failures: int) -> float:
    return float(min(_LAST_RETRY, _FIRST_RETRY * 2 ** min(failures - 1, 10)))
