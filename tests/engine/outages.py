"""A bench whose registry can go away, for several engines that share what they know."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from tests.engine.test_engine import ACCEPT, Clock, content
from tests.fakes.images import Image, push_image
from tests.fakes.registry import FakeRegistry, running

from entrepot.cache.memory import MemoryBlobs, MemoryRecords
from entrepot.engine.engine import Engine
from entrepot.engine.messages import Answer, PullRequest
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, Registry, RegistryOverride
from entrepot.registry.routes import parse_target
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.transfers import Transfers

REPOSITORY = "org/app"
TAGS = f"/v2/{REPOSITORY}/tags/list"
MANIFEST = f"/v2/{REPOSITORY}/manifests/1"


@dataclass
class Worker:
    """One process of the box: an engine of its own over the records of all."""

    engine: Engine
    known: Registry

    async def ask(self, method: str, target: str, *headers: tuple[str, str]) -> Answer:
        route = parse_target(target)
        assert route is not None
        verb: Literal["GET", "HEAD"] = "HEAD" if method == "HEAD" else "GET"
        return await self.engine.answer(PullRequest(verb, self.known, route, Headers(headers), "192.0.2.1"))

    async def get(self, target: str, *headers: tuple[str, str]) -> tuple[Answer, bytes]:
        answer = await self.ask("GET", target, ACCEPT, *headers)
        return answer, await content(answer)

    def is_down(self) -> bool:
        return self.engine.health.is_down(self.known.upstream)

    async def knows_that_it_is_out(self) -> None:
        """Returns when a probe has found that nobody is there."""
        await _until(lambda: self.engine.health.is_out(self.known.upstream))

    async def knows_that_it_is_well(self) -> None:
        await _until(lambda: not self.is_down())

    def has_no_patience(self) -> None:
        """A client's patience ends when it begins."""

        async def end(seconds: float) -> None:
            pass

        self.engine._lists._patience = Patience(self.engine.health, end)


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class Box:
    registry: FakeRegistry
    cdn: FakeRegistry
    clock: Clock
    image: Image
    records: MemoryRecords
    blobs: MemoryBlobs
    workers: list[Worker] = field(default_factory=list)

    @property
    def one(self) -> Worker:
        return self.workers[0]

    async def goes_down(self) -> None:
        """Nobody listens any more, and the first worker has found out."""
        await self.registry.connections.unplug()
        answer, _ = await self.one.get(f"/v2/{REPOSITORY}/manifests/never-heard-of")
        assert answer.status == 502
        await self.one.knows_that_it_is_out()
        self.registry.forget()


@asynccontextmanager
async def box(workers: int = 1) -> AsyncIterator[Box]:
    """`REPOSITORY` has one image. Timeouts are short, so that what hangs ends."""
    async with running() as registry, running() as cdn, AsyncExitStack() as stack:
        clock = Clock()
        records, blobs = MemoryRecords(clock), MemoryBlobs(clock)
        made = Box(registry, cdn, clock, push_image(registry, REPOSITORY), records, blobs)
        found = Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream=registry.url)])
        for _ in range(workers):
            client = UpstreamClient(
                ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=clock)
            )
            transfers = Transfers(blobs)
            policy = Policy(tag=60.0, access=300.0, prefetch=False)
            engine = Engine(blobs, records, client, transfers, key=b"k" * 32, policy=policy, clock=clock)
            made.workers.append(Worker(engine, found.registries()[0]))
            for end in (client.aclose, engine.close, transfers.close):
                stack.push_async_callback(end)
        yield made
