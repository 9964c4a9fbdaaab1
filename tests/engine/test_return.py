"""A registry that is back serves at once, also those whose token is one of ours from the time before (rule 5)."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.engine.errand_bench import PRIVATE, PUBLIC, Bench, blob, errand_bench, manifest
from tests.engine.outages import MANIFEST, REPOSITORY, Box, box
from tests.fakes.guarded import NOBODY

from entrepot.engine.owntokens import PREFIX
from entrepot.registry.digests import Digest
from entrepot.upstream.health import FRESH


@pytest.fixture
async def pair() -> AsyncIterator[Box]:
    async with box(workers=2) as made:
        yield made


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with errand_bench(tmp_path, account=False) as made:
        yield made


async def out(bench: Bench) -> None:
    """The registry is away, and known to be."""
    await bench.registry.connections.unplug()
    await bench.get(manifest(PUBLIC, "never-heard-of"))
    async with asyncio.timeout(10):
        while not bench.engine.health.is_out(bench.known.upstream):
            await asyncio.sleep(0.01)


async def back(bench: Bench) -> None:
    await bench.registry.connections.plug_in()
    bench.clock.now += FRESH


async def test_the_first_miss_is_served_by_every_worker(pair: Box) -> None:
    await pair.goes_down()
    for worker in pair.workers:
        assert (await worker.get(f"/v2/{REPOSITORY}/manifests/2"))[0].status == 502
    await pair.registry.connections.plug_in()
    pair.clock.now += FRESH
    for worker in reversed(pair.workers):
        answer, body = await worker.get(MANIFEST)
        assert (answer.status, Digest.of(body)) == (200, pair.image.index)
        layer, _ = await worker.get(f"/v2/{REPOSITORY}/blobs/{pair.image.layers[0]}")
        assert layer.status == 200


async def test_what_is_held_waits_for_no_look(pair: Box) -> None:
    """Also for whom has another `Accept` than those who asked before."""
    assert (await pair.one.get(MANIFEST))[0].status == 200
    pair.clock.now += 61.0
    await pair.goes_down()

    async def never(url: str) -> bool:
        raise AssertionError(f"{url} is waited for")

    for worker in pair.workers:
        worker.engine.health.returned = never  # type: ignore[method-assign]
        assert (await worker.get(MANIFEST))[0].verdict == "stale"
        other = await worker.ask("GET", MANIFEST, ("Accept", "*/*"))
        assert (other.status, other.verdict) == (200, "stale")


async def test_a_token_of_ours_is_good_for_what_anyone_may_have(bench: Bench) -> None:
    await out(bench)
    token = await bench.log_in(NOBODY, PUBLIC)
    assert PREFIX in token[1]
    await back(bench)
    answers = await bench.pull(bench.public, PUBLIC, token)
    assert [answer.status for answer in answers] == [200] * len(answers)
    assert bench.grants() == []
    assert not any(PREFIX in seen.headers.get("Authorization", "") for seen in bench.registry.seen)


async def test_and_for_nothing_else(bench: Bench) -> None:
    """The registry challenges, as it would challenge anybody."""
    await out(bench)
    token = await bench.log_in(NOBODY, PRIVATE)
    await back(bench)
    answers = await bench.pull(bench.private, PRIVATE, token)
    assert [answer.status for answer in answers] == [401] * len(answers)
    assert all("www-authenticate" in answer.headers for answer in answers)


async def test_not_even_when_it_is_held(bench: Bench) -> None:
    ann = await bench.log_in("ann", PRIVATE)
    await bench.pull(bench.private, PRIVATE, ann)
    bench.clock.now += 301.0
    await out(bench)
    token = await bench.log_in(NOBODY, PRIVATE)
    await back(bench)
    targets = [manifest(PRIVATE, "1"), manifest(PRIVATE, bench.private.manifest)]
    targets += [blob(PRIVATE, digest) for digest in bench.private.layers]
    for target in targets:
        answer, _ = await bench.get(target, token)
        assert answer.status == 401, target


async def test_a_tag_that_was_held_for_somebody_else(bench: Bench) -> None:
    """Nobody has looked whether it is public: who has a token of ours is asked for as nobody."""
    ann = await bench.log_in("ann", PRIVATE)
    await bench.pull(bench.private, PRIVATE, ann)
    bench.registry.readers[PRIVATE] = {NOBODY, "ann"}
    await out(bench)
    token = await bench.log_in(NOBODY, PRIVATE)
    await back(bench)
    answers = await bench.pull(bench.private, PRIVATE, token)
    assert [answer.status for answer in answers] == [200] * len(answers)
