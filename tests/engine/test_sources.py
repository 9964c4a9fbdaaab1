"""What a transfer asks of a registry: where redirects led, when ranges are asked, what wrong bytes change."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from tests.fakes.registry import CHALLENGE, FakeRegistry, Fault, running

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.conduct import MEMORY, Conduct
from entrepot.engine.messages import PullRequest, Refused
from entrepot.engine.sources import BlobSource
from entrepot.engine.upstreams import Upstreams
from entrepot.headers import Headers
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.registry.routes import BlobRoute
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Quotas
from entrepot.upstream.resolver import Resolver

CONTENT = random.Random(5).randbytes(100_000)


class Bench:
    def __init__(self, registry: FakeRegistry, cdn: FakeRegistry, client: UpstreamClient) -> None:
        self.registry, self.cdn, self.now = registry, cdn, 1000.0
        self.digest = registry.push_blob("org/app", CONTENT)
        cdn.push_blob("org/app", CONTENT)
        registry.redirects, registry.cdn = True, cdn.url
        self.records = MemoryRecords(lambda: self.now)
        self.conduct = Conduct(self.records, lambda: self.now)
        self.bandwidth = Bandwidth()
        self._upstreams = Upstreams(
            client, Health(self.records, client.probe), Quotas(), self.bandwidth, self.conduct, lambda: self.now
        )

    def source(self, credential: str = "good") -> BlobSource:
        catalogue = Catalogue([]).with_overrides([RegistryOverride("registry.test", upstream=self.registry.url)])
        found = catalogue.match("registry.test")
        assert found is not None
        headers = Headers([("Authorization", f"Bearer {credential}")])
        route = BlobRoute("org/app", self.digest)
        return BlobSource(self._upstreams, PullRequest("GET", found.registry, route, headers, "127.0.0.1"))

    def asked(self) -> tuple[list[str], list[str]]:
        """What registry and CDN were asked since the last call."""
        found = [seen.path for seen in self.registry.seen], [seen.path for seen in self.cdn.seen]
        self.registry.forget()
        self.cdn.forget()
        return found


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as registry, running() as cdn:
        client = UpstreamClient(
            ClientSettings(2.0, 2.0, "1.1 entrepot-test", None, 0), Resolver([], lambda: (), clock=lambda: 0.0)
        )
        yield Bench(registry, cdn, client)
        await client.aclose()


async def read(source: BlobSource, offset: int, stop: int | None = None) -> bytes:
    async with source.open(offset, stop) as opened:
        assert opened.start == offset
        assert opened.total == len(CONTENT)
        assert opened.ranges
        return b"".join([chunk async for chunk in opened.chunks])


async def test_ranges_go_straight_to_where_the_redirect_led(bench: Bench) -> None:
    source = bench.source()
    assert await read(source, 0) == CONTENT
    registry, cdn = bench.asked()
    assert (len(registry), len(cdn)) == (1, 1)
    assert await read(source, 10, 20) == CONTENT[10:20]
    assert await read(source, 500) == CONTENT[500:]
    registry, cdn = bench.asked()
    assert (len(registry), len(cdn)) == (0, 2)


async def test_no_credential_goes_there(bench: Bench) -> None:
    """DESIGN rule 2."""
    source = bench.source()
    await read(source, 0)
    await read(source, 10)
    assert [seen.authorized for seen in bench.registry.seen] == [True]
    assert [seen.authorized for seen in bench.cdn.seen] == [False, False]


async def test_an_expired_address_is_asked_for_anew(bench: Bench) -> None:
    source = bench.source()
    await read(source, 0)
    bench.asked()
    bench.cdn.faults.append(Fault("/cdn/", status=403))
    assert await read(source, 77) == CONTENT[77:]
    registry, cdn = bench.asked()
    assert (len(registry), len(cdn)) == (1, 2)
    await read(source, 78)
    assert bench.asked()[0] == []


async def test_a_fetch_from_the_start_asks_the_registry(bench: Bench) -> None:
    """After wrong bytes the second try may be led elsewhere."""
    source = bench.source()
    await read(source, 0)
    bench.asked()
    await read(source, 0)
    assert len(bench.asked()[0]) == 1


async def test_a_redirect_within_the_registry_is_followed_anew_each_time(bench: Bench) -> None:
    """Its target may want the credential."""
    bench.registry.cdn = ""
    source = bench.source()
    await read(source, 0)
    bench.asked()
    await read(source, 5)
    assert len(bench.asked()[0]) == 2


async def test_a_refusal_is_upstreams_own(bench: Bench) -> None:
    bench.registry.private.add("org/app")
    with pytest.raises(Refused) as refused:
        await read(bench.source("bad"), 0)
    answer = refused.value.answer
    assert (answer.status, answer.headers.get("www-authenticate")) == (401, CHALLENGE.format(name="org/app"))


async def test_many_answers_of_one_source_are_open_at_once(bench: Bench) -> None:
    source = bench.source()
    await read(source, 0)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(source.open(n, n + 10)) for n in range(1, 5)]
        pieces = [b"".join([chunk async for chunk in one.chunks]) for one in reversed(opened)]
    assert pieces == [CONTENT[n : n + 10] for n in range(4, 0, -1)]


async def test_ranges_side_by_side_are_off_under_a_cap(bench: Bench) -> None:
    source = bench.source()
    assert source.parallel
    bench.bandwidth.reconfigure(1_000_000, 1)
    assert not source.parallel


async def test_wrong_bytes_are_held_against_a_registry_for_a_while(bench: Bench) -> None:
    source = bench.source()
    await bench.conduct.wrong_bytes("registry.test", str(bench.digest))
    assert not source.parallel
    assert not bench.conduct.is_suspicious("quay.io")
    bench.now += MEMORY + 1
    assert source.parallel
