"""A worker that has things fetched: what the fetching process is told, and what it has of its own (DESIGN rule 2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.engine.errand_bench import BIG, PRIVATE, Bench, blob, errand_bench, manifest, settled
from tests.engine.test_engine import content
from tests.fakes.registry import Fault

from entrepot.cache.blobs import FileBlobs
from entrepot.cache.memory import MemoryRecords
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Refused
from entrepot.engine.parcel import pack_failure, unpack, unpack_failure
from entrepot.engine.policy import Policy
from entrepot.tasks import spawn
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.fetcher import Fetcher
from entrepot.upstream.remote import Remote
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.source import Source
from entrepot.upstream.transfers import Transfers


@dataclass
class Fetching:
    """A fetching process that can be ended, as if killed, and started again."""

    worker: Bench
    folder: Path
    orders: list[str] = field(default_factory=list)
    transfers: Transfers = field(init=False)

    async def start(self) -> None:
        clock = self.worker.clock
        self._client = UpstreamClient(
            ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=clock)
        )
        store = FileBlobs(self.folder)
        self.transfers = Transfers(store)
        records = MemoryRecords(clock)
        self._engine = Engine(store, records, self._client, self.transfers, key=b"k" * 32, policy=Policy(), clock=clock)
        self._stop = asyncio.Event()
        ready = asyncio.Event()
        fetcher = Fetcher(self.transfers, self._source, pack_failure, self._grant, mine=Refused)
        serving = fetcher.serve(self.folder / "sock", ready.set, self._stop, 0.0)
        self._serving = spawn(serving, name="fetching process")
        await ready.wait()

    async def end(self) -> None:
        self._stop.set()
        await self._serving
        await self.transfers.close()
        await self._engine.close()
        await self._client.aclose()

    def _source(self, order: Mapping[str, object]) -> Source:
        self.orders.append(json.dumps(order))
        return self._engine.source(unpack(order, lambda name: self.worker.known))

    async def _grant(self, registry: str, wanted: int) -> int:
        return wanted


@asynccontextmanager
async def fetching(folder: Path) -> AsyncIterator[Fetching]:
    remote = Remote(folder / "sock", unpack_failure, patience=20.0)
    async with errand_bench(folder, store=FileBlobs(folder), remote=remote) as worker:
        made = Fetching(worker, folder)
        await made.start()
        try:
            yield made
        finally:
            await settled()
            await made.end()


@pytest.mark.parametrize("dies", [False, True])
async def test_a_transfer_outlives_the_token_that_began_it(tmp_path: Path, *, dies: bool) -> None:
    """And so does a client, also of the process that fetches for it."""
    async with fetching(tmp_path) as process:
        bench = process.worker
        token = await bench.log_in("ann", PRIVATE)
        for reference in ("1", bench.private.manifest):
            await bench.get(manifest(PRIVATE, reference), token)
        digest, hold = bench.private.layers[1], asyncio.Event()
        bench.registry.faults.append(Fault(str(digest), hold=hold, hold_after=len(BIG) // 2, cut_after=0))
        answer = await bench.ask("GET", blob(PRIVATE, digest), token)
        assert (answer.status, answer.verdict) == (200, "miss")
        while (running := process.transfers.running(digest)) is None or len(running._sources) < 2:
            await asyncio.sleep(0.001)
        bench.registry.revoke("ann")
        if dies:
            await process.end()
            await process.start()
        hold.set()
        assert await content(answer) == BIG[::-1]
        assert bench.registry.by("box") == [f"GET {blob(PRIVATE, digest)}"]
        told = "\n".join(process.orders)
        assert '"asks": "box"' in told
        for secret in ("box-password", *(one for one, (user, _) in bench.registry.issued.items() if user == "box")):
            assert secret not in told
        assert json.loads(process.orders[-1])["headers"] == [
            pair for pair in json.loads(process.orders[0])["headers"] if pair[0] != "Authorization"
        ]
