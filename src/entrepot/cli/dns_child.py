"""The DNS process: the configuration, in the terms of `entrepot.dns`, and the health of the cache beside it.

Decides which names are intercepted: those of the catalogue that the CA can sign for. A name it cannot sign for would
fail at every client, so it is left alone.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Final

from entrepot.certs.authority import Authority
from entrepot.cli.brief import Brief
from entrepot.cli.networks import allowed
from entrepot.cli.orders import follow_orders
from entrepot.cli.probe import Health, handshake, watch
from entrepot.cli.resolving import own_resolver_addresses, resolvers
from entrepot.config.model import Config
from entrepot.config.overrides import catalogue
from entrepot.counters import Counters
from entrepot.dns.responder import Responder
from entrepot.dns.settings import DnsSettings
from entrepot.registry.catalogue import Catalogue
from entrepot.tasks import spawn

_log: Final = logging.getLogger("entrepot.dns")
_COUNT_INTERVAL: Final = 1.0  # seconds between writes of the counters


def dns_settings(config: Config, healthy: Callable[[], bool]) -> DnsSettings:
    """What the responder is told."""
    upstream = resolvers(config.dns.upstream, own_resolver_addresses(config))
    if not upstream:
        _log.warning("no resolver to ask for other names than those of registries: set dns.upstream")
    return DnsSettings(
        intercepts=intercepted(catalogue(config), Authority.load(config.certs.path)),
        advertise=config.advertise.addresses,
        upstream=upstream,
        allow=allowed(config.dns.allow),
        ttl=round(config.dns.ttl),
        fail_open=config.dns.fail_open,
        healthy=healthy,
    )


def intercepted(known: Catalogue, authority: Authority) -> Callable[[str], bool]:
    """Whether a name leads to us."""
    return lambda name: known.match(name) is not None and authority.permits(name)


def probed_name(config: Config) -> str | None:
    """A name the workers have a certificate for."""
    authority = Authority.load(config.certs.path)
    return next((name for name in catalogue(config).names() if authority.permits(name)), None)


class Service:
    """Everything that lives as long as the process."""

    def __init__(self, brief: Brief) -> None:
        self._brief = brief
        self._config = brief.config
        self.health = Health()
        self._name = probed_name(brief.config)
        self._leaving = False
        self.responder = Responder(dns_settings(brief.config, self.healthy))

    def healthy(self) -> bool:
        """Whether clients are to come to this box."""
        return self.health() and not self._leaving

    def leave(self) -> None:
        """The box is going to stop, and DNS steps aside before that. There is no way back."""
        _log.info("this box is going to stop: registry names get their real addresses")
        self._leaving = True

    def reconfigure(self, config: Config) -> None:
        """Raises `EntrepotError`; then nothing has changed."""
        name = probed_name(config)
        self.responder.reconfigure(dns_settings(config, self.healthy))
        self._config, self._name = config, name

    async def probe(self) -> None:
        """One look at the cache. Where there is none on this box, none is missed."""
        if self._brief.probe is not None and self._name is not None and self._config.dns.fail_open:
            await handshake(*self._brief.probe, self._name, self._config.certs.path)

    async def count(self) -> None:
        """Writes the counters beside those of the workers."""
        target = self._config.store.path / "run" / f"dns-{self._brief.index}.json"
        counters = Counters(target, started=time.time())
        while True:
            counters.set(asdict(self.responder.counters))
            with suppress(OSError):  # a full disk costs the statistics, nothing else
                counters.flush()
            await asyncio.sleep(_COUNT_INTERVAL)


async def serve(brief: Brief) -> None:
    """Answers until told to stop; says `ready` when it does."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    service = Service(brief)
    sockets = [socket.socket(fileno=descriptor) for descriptor in brief.sockets]
    beside = [
        spawn(follow_orders(stop, service.reconfigure, _log, service.leave), name="orders"),
        spawn(watch(service.health, service.probe), name="probe"),
        spawn(service.count(), name="counters"),
    ]
    serving = spawn(service.responder.serve(sockets, stop), name="serve", quiet=True)
    loop.call_soon(lambda: print("ready", flush=True))
    try:
        await serving
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await asyncio.sleep(0)  # the transport of our orders closes on the next round


def run(brief: Brief) -> None:
    """Works until told to stop."""
    asyncio.run(serve(brief))
