"""One worker process: store, upstream client and engine put together inside a mitmproxy master.

Decides the wiring and the life of the process: serve, reload, drain, end. Told what to do by the supervisor: the
settings at start, then one JSON line on standard input for each change; its end means the supervisor has died.
"""

import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mitmproxy.addons import proxyserver
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.layer import NextLayer

from entrepot.addons.front import Front
from entrepot.addons.handler import Handler
from entrepot.addons.mode import RegistryServer
from entrepot.addons.passthrough import PassThrough
from entrepot.addons.pulls import Pulls
from entrepot.addons.tls import ServerContexts
from entrepot.cache.embedded import open_blobs, open_records, protected_by
from entrepot.cache.interface import DigestMismatch
from entrepot.cache.keeper import Keeper
from entrepot.cache.space import Limits
from entrepot.certs.authority import Authority
from entrepot.certs.leaves import LeafIssuer
from entrepot.counters import Counters
from entrepot.engine.access import box_key
from entrepot.engine.engine import Engine
from entrepot.engine.parcel import unpack_failure
from entrepot.engine.policy import Policy
from entrepot.errors import EntrepotError
from entrepot.pulse import beat
from entrepot.registry.catalogue import Catalogue
from entrepot.tasks import spawn
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.remote import Remote
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.sharing import SharedBandwidth
from entrepot.upstream.transfer import Transfer
from entrepot.upstream.transfers import Transfers

type Build = Callable[[Mapping[str, object]], tuple[Catalogue, Policy]]
"""Makes catalogue and policy of a configuration document; given by the command line, which knows both."""

_log = logging.getLogger("entrepot.worker")
IDLE_TIMEOUT: Final = 300  # seconds without a byte on a connection that waits for a request
COUNT_INTERVAL: Final = 1.0  # seconds between writes of the counters
DRAIN_POLL: Final = 0.05  # seconds between looks at what is still under way


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All a worker needs, by value."""

    index: int
    sockets: tuple[int, ...]  # descriptors of listening TCP sockets
    store: Path
    limits: Limits
    certs: Path
    leaf_days: int
    drain: float  # seconds that answers under way may take after SIGTERM
    nameservers: tuple[tuple[str, int], ...]
    own_addresses: frozenset[str]
    own_ports: frozenset[int]  # on these, our own address is a loop; on others it may be a registry of this box
    connect_timeout: float  # seconds
    read_timeout: float  # seconds
    connections: int  # that bring blobs from one registry to this process
    pseudonym: str  # our name in Via
    version: str
    fetcher: Path  # the socket of the fetching process


class Life:
    """Hears from mitmproxy when it accepts; and is the addon that it insists on for choosing layers."""

    name = "nextlayer"

    def __init__(self, ready: asyncio.Event) -> None:
        self._ready = ready

    def running(self) -> None:
        """mitmproxy's hook."""
        self._ready.set()

    def next_layer(self, data: NextLayer) -> None:
        """Ours are chosen when a connection is accepted: nothing leaves a choice."""


class Worker:
    """Owns everything that lives as long as the process."""

    def __init__(self, settings: WorkerSettings, catalogue: Catalogue, policy: Policy) -> None:
        self.settings = settings
        self.resolver = Resolver(
            settings.nameservers,
            lambda: settings.own_addresses,
            clock=time.monotonic,
            own_ports=settings.own_ports,
        )
        self.client = UpstreamClient(
            ClientSettings(
                settings.connect_timeout,
                settings.read_timeout,
                f"1.1 {settings.pseudonym}",
                f"entrepot/{settings.version}",
                0,
            ),
            self.resolver,
        )
        self.records = open_records(settings.store)
        self.blobs = open_blobs(settings.store, settings.limits, protected=protected_by(self.records))
        run = settings.store / "run"
        run.mkdir(mode=0o700, exist_ok=True)
        self.counters = Counters(run / f"proxy-{settings.index}.json", started=time.time())
        remote = Remote(settings.fetcher, unpack_failure)
        self.transfers = Transfers(
            self.blobs, connections=settings.connections, on_end=self._transferred, remote=remote
        )
        self.engine = Engine(
            self.blobs,
            self.records,
            self.client,
            self.transfers,
            key=box_key(settings.store / "key"),
            policy=policy,
            bandwidth=SharedBandwidth(remote),
        )
        self._contexts = ServerContexts()
        self.pulls = Pulls(
            self.engine,
            catalogue,
            self._contexts,
            self.counters,
            self.records.version,
            pseudonym=settings.pseudonym,
        )
        via = f"1.1 {settings.pseudonym}"
        self.through = PassThrough(catalogue, self.resolver, self.counters, via=via, changed=self.engine.changed)
        self.reconfigure(catalogue, policy)

    def reconfigure(self, catalogue: Catalogue, policy: Policy) -> None:
        """From the next connection, or request, on; what is under way is not touched.

        The CA is read again too: it may have been rotated. Raises `CertsError`, and then changes nothing.
        """
        authority = Authority.load(self.settings.certs)
        leaves = LeafIssuer(authority, days=self.settings.leaf_days, clock=lambda: datetime.now(UTC))
        self._contexts.use(leaves, lambda name: catalogue.match(name) is not None and authority.permits(name))
        self.pulls.use(catalogue)
        self.through.catalogue = catalogue
        self.engine.reconfigure(policy)
        self.engine.reception.realms.intercepts = lambda name: catalogue.match(name) is not None

    def _transferred(self, transfer: Transfer) -> None:
        self.counters.add("bytes_upstream", transfer.received)
        if isinstance(transfer.error, DigestMismatch):
            self.counters.add("transfers_wrong")
            spawn(self.engine.conduct.wrong_bytes(transfer.origin.name, str(transfer.digest)), name="conduct")
        elif transfer.error is not None:
            self.counters.add("transfers_failed")
        else:
            self.counters.add("transfers_ok")

    async def serve(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Accepts until `stop`, then drains."""
        options = Options(
            mode=["registry:" + ",".join(map(str, self.settings.sockets))], http2=False, tcp_timeout=IDLE_TIMEOUT
        )
        master = Master(options)
        # For add-ons of old: a wake-up of the loop and a walk over all add-ons for every line that is logged.
        master._legacy_log_events.uninstall()
        server = proxyserver.Proxyserver()
        master.addons.add(Life(ready), server, self.pulls, self.through)
        options.update(connection_strategy="lazy", validate_inbound_headers=True)
        running = spawn(master.run(), name="mitmproxy")
        counting = spawn(self._count(), name="counters")
        keeping = spawn(Keeper(self.blobs).run(), name="keeper")
        try:
            stopping = spawn(stop.wait(), name="stop")
            await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
            await self._drain(server)
        finally:
            master.shutdown()
            await running
            counting.cancel()
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            await self.close()

    async def _drain(self, server: proxyserver.Proxyserver) -> None:
        self.pulls.draining = True
        self.pulls.ready.clear()
        instances = [one for one in server.servers if isinstance(one, RegistryServer)]
        for instance in instances:
            if instance.is_running:
                await instance.stop()

        def left() -> list[Handler | Front]:
            handlers = [one for one in server.connections.values() if isinstance(one, Handler)]
            return [*handlers, *(front for one in instances for front in one.fronts)]

        deadline = time.monotonic() + self.settings.drain
        while (connections := left()) and time.monotonic() < deadline:
            for connection in connections:
                if not connection.busy:
                    connection.end()
            await asyncio.sleep(DRAIN_POLL)
        if connections:
            _log.warning("drain: %d connections broken off", len(connections))
        for connection in connections:
            connection.end()
        await asyncio.sleep(0)

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(COUNT_INTERVAL)
            self.flush()

    def flush(self) -> None:
        """Writes the counters, and what upstream says of our quotas as `quota_<registry>_<what>`."""
        quotas = self.engine.quotas.snapshot(time.time())
        self.counters.show(
            {f"quota_{name}_{key}": value for name, numbers in quotas.items() for key, value in numbers.items()}
        )
        with suppress(OSError):  # a full disk costs the statistics, nothing else
            self.counters.flush()

    async def close(self) -> None:
        await self.transfers.close()
        await self.engine.close()
        await self.client.aclose()
        self.flush()
        self.blobs.close()
        await self.records.close()


async def follow_orders(worker: Worker, stop: asyncio.Event, build: Build) -> None:
    """Reads the supervisor's lines until it is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 22)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if isinstance(order, Mapping) and "reload" in order:
            try:
                worker.reconfigure(*build(order["reload"]))
            except EntrepotError as refusal:
                _log.error("configuration not reloaded: %s", refusal)
            else:
                _log.info("configuration reloaded")
    stop.set()


async def main(settings: WorkerSettings, document: Mapping[str, object], build: Build) -> None:
    """Runs one worker; prints `ready` on standard output when it accepts, and then that it lives."""
    stop, ready = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    worker = Worker(settings, *build(document))
    orders = spawn(follow_orders(worker, stop, build), name="orders")
    serving = spawn(worker.serve(ready, stop), name="serve", quiet=True)
    announced = spawn(ready.wait(), name="ready")
    await asyncio.wait([announced, serving], return_when=asyncio.FIRST_COMPLETED)
    if ready.is_set():
        print("ready", flush=True)
    beating = spawn(beat(), name="pulse")
    await serving
    for task in (orders, beating):
        task.cancel()


def run(settings: WorkerSettings, document: Mapping[str, object], build: Build) -> None:
    """Blocks until told to stop."""
    asyncio.run(main(settings, document, build))
