"""Upstream that is down, through the engine (DESIGN rule 5)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.engine.outages import MANIFEST, REPOSITORY, TAGS, Box, box
from tests.engine.test_engine import ACCEPT, content
from tests.fakes.registry import Fault

from entrepot.registry.digests import Digest
from entrepot.upstream.breaker import SOFT_LIMIT
from entrepot.upstream.errors import Unreachable

LAYER = bytes(range(256)) * 400


@pytest.fixture
async def pair() -> AsyncIterator[Box]:
    async with box(workers=2) as made:
        yield made


def blob(digest: Digest) -> str:
    return f"/v2/{REPOSITORY}/blobs/{digest}"


async def test_what_is_not_held_fails_without_a_connection(pair: Box) -> None:
    await pair.goes_down()
    answer, body = await pair.one.get(f"/v2/{REPOSITORY}/manifests/2")
    assert answer.status == 502
    assert b"not asked, it is down: cannot connect: connection refused" in body


async def test_all_workers_know(pair: Box) -> None:
    other = pair.workers[1]
    assert (await other.get(MANIFEST))[0].status == 200
    await pair.goes_down()
    _, body = await other.get(f"/v2/{REPOSITORY}/manifests/2")
    assert b"not asked, it is down" in body
    assert other.engine.health.is_out(other.known.upstream)


async def test_it_is_back_for_all_when_it_is_for_one(pair: Box) -> None:
    await pair.goes_down()
    other = pair.workers[1]
    await other.get(f"/v2/{REPOSITORY}/manifests/2")
    await pair.registry.connections.plug_in()
    pair.clock.now += 1.0
    await pair.one.get(MANIFEST)  # refused, and has it looked at
    await pair.one.knows_that_it_is_well()
    for worker in pair.workers:
        answer, body = await worker.get(MANIFEST)
        assert (answer.status, Digest.of(body)) == (200, pair.image.index)


async def test_a_registry_of_5xx_is_asked_for_what_is_not_held(pair: Box) -> None:
    """And its own words are passed on."""
    pair.registry.faults.append(Fault(status=503, count=1000))
    for _ in range(SOFT_LIMIT):
        await pair.one.get(f"/v2/{REPOSITORY}/manifests/2")
    await pair.one.knows_that_it_is_out()
    answer, body = await pair.one.get(f"/v2/{REPOSITORY}/manifests/2")
    assert (answer.status, answer.verdict) == (503, "refused")
    assert b"injected" in body
    pair.registry.faults.clear()
    assert (await pair.one.get(MANIFEST))[0].status == 200
    assert not pair.one.is_down()


async def test_probes_carry_nobodys_rights(pair: Box) -> None:
    pair.registry.faults.append(Fault(path="/manifests/", status=503, count=1000))
    for _ in range(SOFT_LIMIT):
        await pair.one.get(f"/v2/{REPOSITORY}/manifests/2", ("Authorization", "Bearer good"))
    await asyncio.wait_for(pair.registry.arrived("/v2/"), 5)
    await pair.one.knows_that_it_is_well()
    probes = [seen for seen in pair.registry.seen if seen.path == "/v2/"]
    assert [(str(seen), seen.authorized) for seen in probes] == [("GET /v2/", False)]


async def test_a_cdn_that_is_down_is_not_the_registry(pair: Box) -> None:
    pair.registry.redirects, pair.registry.cdn = True, pair.cdn.url
    await pair.cdn.connections.unplug()
    answer, _ = await pair.one.get(blob(pair.image.layers[0]))
    assert answer.status == 502
    assert pair.one.engine.health.is_down(pair.cdn.url)
    assert not pair.one.is_down()
    assert (await pair.one.get(MANIFEST))[0].status == 200


async def test_clients_that_are_reading_are_not_broken_off(pair: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer goes on asking whatever is known: it has promised bytes (rule 2)."""

    async def nobody(url: str, ca: object) -> int:
        raise Unreachable("registry.test", "made up")

    digest = pair.registry.push_blob(REPOSITORY, LAYER)
    go_on = asyncio.Event()
    pair.registry.faults.append(Fault(str(digest), hold=go_on, hold_after=50_000, cut_after=10))
    answer = await pair.one.ask("GET", blob(digest))
    health, url = pair.one.engine.health, pair.one.known.upstream
    monkeypatch.setattr(health, "_probe", nobody)
    for _ in range(2):  # whatever clients see, the transfer is to find out for itself
        health.begin(url, (), insist=True).failed(Unreachable("registry.test", "made up"))
    await pair.one.knows_that_it_is_out()
    assert (await pair.one.get(f"/v2/{REPOSITORY}/manifests/2"))[0].status == 502
    go_on.set()
    assert await content(answer) == LAYER
    assert len(pair.registry.requests(str(digest))) == 2


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_holds_checks_back_and_misses_not(pair: Box, status: int) -> None:
    await pair.one.get(MANIFEST)
    pair.clock.now += 61.0
    pair.registry.faults.append(Fault(status=status, headers={"Retry-After": "100"}))
    assert (await pair.one.get(MANIFEST))[0].verdict == "stale"
    pair.registry.forget()
    pair.clock.now += 99.0
    assert (await pair.one.get(MANIFEST))[0].verdict == "stale"
    assert pair.registry.requests() == []
    assert (await pair.one.get(blob(pair.image.layers[0])))[0].verdict == "miss"
    assert len(pair.registry.requests()) == 1
    pair.clock.now += 1.0
    assert (await pair.one.get(MANIFEST))[0].verdict == "revalidated"


async def test_lists_too(pair: Box) -> None:
    pair.registry.pages[TAGS] = b'{"name":"org/app","tags":["1"]}', {}
    await pair.one.get(MANIFEST)
    await pair.one.get(TAGS)
    pair.registry.faults.append(Fault(path="/tags/", status=429, headers={"Retry-After": "100"}))
    for _ in range(3):
        answer, _ = await pair.one.get(TAGS)
        assert (answer.status, answer.verdict) == (200, "stale")
    assert len(pair.registry.requests("/tags/")) == 2


async def test_its_end_ends_the_probes(pair: Box) -> None:
    await pair.goes_down()
    await pair.one.engine.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probes of")]


async def test_a_tag_that_is_held_is_served(pair: Box) -> None:
    await pair.one.get(MANIFEST)
    await pair.goes_down()
    pair.clock.now += 61.0
    answer, body = await pair.one.get(MANIFEST)
    assert (answer.verdict, Digest.of(body)) == ("stale", pair.image.index)
    head = await pair.one.ask("HEAD", MANIFEST, ACCEPT)
    assert head.verdict == "stale"
