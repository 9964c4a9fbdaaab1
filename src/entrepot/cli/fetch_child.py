"""The fetching process: all transfers of the box, told by the workers what to fetch.

It has the store, the client and the engine as a worker has them, but no clients of its own and no TLS to speak: what it
asks upstream is in the name of those whose requests the workers pass on.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from entrepot import __version__
from entrepot.cache.embedded import open_blobs, open_records, protected_by
from entrepot.cache.interface import DigestMismatch, StoreError
from entrepot.cache.space import Limits
from entrepot.cli.brief import Brief
from entrepot.cli.decisions import decisions, loop_addresses
from entrepot.cli.last_transfers import LastTransfers
from entrepot.cli.orders import follow_orders
from entrepot.cli.places import fetch_socket
from entrepot.cli.resolving import own_resolver_addresses, resolvers
from entrepot.config.model import Config
from entrepot.counters import Counters
from entrepot.engine.access import box_key
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Refused
from entrepot.engine.parcel import pack_failure, unpack
from entrepot.tasks import spawn
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.fetcher import Fetcher
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.source import Source
from entrepot.upstream.transfer import Transfer
from entrepot.upstream.transfers import Transfers

_log: Final = logging.getLogger("entrepot.fetch")
_COUNT_INTERVAL: Final = 1.0  # seconds between writes of the counters
_EXPIRE_INTERVAL: Final = 300.0  # seconds between removals of records that have ended


class Service:
    """Everything that lives as long as the process."""

    def __init__(self, brief: Brief) -> None:
        config = self._config = brief.config
        store, upstream = config.store, config.upstream
        own = loop_addresses(config)
        nameservers = resolvers(upstream.resolvers, own_resolver_addresses(config))
        ports = frozenset({config.listen.https})
        resolver = Resolver(nameservers, lambda: own, clock=time.monotonic, own_ports=ports)
        timeouts = upstream.connect_timeout, upstream.read_timeout
        settings = ClientSettings(*timeouts, f"1.1 {brief.marker}", f"entrepot/{__version__}", 0)
        self._client = UpstreamClient(settings, resolver)
        self._records = open_records(store.path)
        limits = Limits(size=store.size, min_free=store.min_free)
        self._blobs = open_blobs(store.path, limits, protected=protected_by(self._records))
        run = store.path / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        self._counters = Counters(run / f"fetch-{brief.index}.json", started=time.time())
        self._last = LastTransfers(run)
        self._transfers = Transfers(self._blobs, connections=upstream.connections, on_end=self._transferred)
        self._catalogue, policy = decisions(config)
        self._engine = Engine(
            self._blobs,
            self._records,
            self._client,
            self._transfers,
            key=box_key(store.path / "key"),
            policy=replace(policy, workers=1),  # the caps are the box's, and they are all held here
        )
        self._fetcher = Fetcher(self._transfers, self._source, pack_failure, self._grant, mine=Refused)

    def _source(self, order: Mapping[str, object]) -> Source:
        return self._engine.source(unpack(order, self._catalogue.registry))

    async def _grant(self, registry: str, wanted: int) -> int:
        known = self._catalogue.registry(registry)
        return wanted if known is None else await self._engine.grant(known, wanted)

    def _transferred(self, transfer: Transfer) -> None:
        self._last.add(transfer, now=time.time(), seconds=time.monotonic() - transfer.began)
        self._counters.add("bytes_upstream", transfer.received)
        if isinstance(transfer.error, DigestMismatch):
            self._counters.add("transfers_wrong")
            spawn(self._engine.conduct.wrong_bytes(transfer.origin.name, str(transfer.digest)), name="conduct")
        elif transfer.error is not None:
            self._counters.add("transfers_failed")
        else:
            self._counters.add("transfers_ok")

    def reconfigure(self, config: Config) -> None:
        """Raises `EntrepotError`; then nothing has changed."""
        self._catalogue, policy = decisions(config)
        self._engine.reconfigure(replace(policy, workers=1))

    async def count(self) -> None:
        """Writes the counters beside those of the workers."""
        while True:
            await asyncio.sleep(_COUNT_INTERVAL)
            self._flush()

    async def expire(self) -> None:
        """Removes records that have ended: tokens, grants and checks come and go with every pull."""
        while True:
            await asyncio.sleep(_EXPIRE_INTERVAL)
            with suppress(StoreError):  # next time
                if removed := await self._records.expire():
                    _log.debug("removed %d records that have ended", removed)

    def _flush(self) -> None:
        with suppress(OSError):  # a full disk costs the statistics, nothing else
            self._counters.flush()
            self._last.flush()

    async def serve(self, stop: asyncio.Event) -> None:
        """Takes orders until told to stop, then ends what the workers still wait for."""
        path = fetch_socket(self._config.store.path)
        await self._fetcher.serve(path, lambda: print("ready", flush=True), stop, self._config.listen.drain)

    async def close(self) -> None:
        await self._transfers.close()
        await self._engine.close()
        await self._client.aclose()
        self._flush()
        self._blobs.close()
        await self._records.close()


async def serve(brief: Brief) -> None:
    """Fetches until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    service = Service(brief)
    beside = [
        spawn(follow_orders(stop, service.reconfigure, _log), name="orders"),
        spawn(service.count(), name="counters"),
        spawn(service.expire(), name="expiry"),
    ]
    try:
        await service.serve(stop)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await service.close()


def run(brief: Brief) -> None:
    """Works until told to stop."""
    asyncio.run(serve(brief))
