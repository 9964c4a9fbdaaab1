"""A registry that answers nothing but 429 or 503: who may have what is held gets it all the same (rules 5 and 6).

Clients such as containerd show no credential before they are challenged, and upstream does not challenge any more.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.engine.errand_bench import PRIVATE, PUBLIC, Bench, errand_bench, manifest
from tests.fakes.guarded import NOBODY
from tests.fakes.registry import Fault

from entrepot.engine.owntokens import PREFIX


@pytest.fixture(params=[429, 503])
async def bench(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Ann has pulled the private image, and the registry is in trouble since."""
    async with errand_bench(tmp_path, account=False) as made:
        await made.get(manifest(PRIVATE, "1"))  # challenged
        for _ in range(2):  # the second token is one whose password is known
            await made.pull(made.private, PRIVATE, await made.log_in("ann", PRIVATE))
        made.registry.faults.append(Fault(status=request.param, count=10_000))
        made.registry.token_status = request.param
        yield made


async def test_who_shows_nothing_is_challenged_and_comes_back(bench: Bench) -> None:
    answer, _ = await bench.get(manifest(PRIVATE, "1"))
    assert answer.status == 401
    assert f"repository:{PRIVATE}:pull" in answer.headers.get("www-authenticate", "")
    token = await bench.log_in("ann", PRIVATE)
    assert PREFIX in token[1]
    answers = await bench.pull(bench.private, PRIVATE, token)
    assert [one.status for one in answers] == [200] * len(answers)


async def test_a_token_for_nobody_is_not_enough(bench: Bench) -> None:
    token = await bench.log_in(NOBODY, PRIVATE)
    answers = await bench.pull(bench.private, PRIVATE, token)
    assert [one.status for one in answers] == [401] * len(answers)
    assert all("insufficient_scope" in one.headers.get("www-authenticate", "") for one in answers)


async def test_upstreams_own_words_for_whom_it_knows(bench: Bench) -> None:
    """What is not held, and who has a token of the registry's: only that tells what is the matter."""
    answer, body = await bench.get(manifest(PRIVATE, "1"), ("Authorization", "Bearer somebody"))
    assert answer.status in {429, 503}
    assert b"injected" in body


async def test_and_for_what_anyone_may_have(bench: Bench) -> None:
    bench.registry.faults, faults = [], bench.registry.faults
    bench.registry.token_status, status = 0, bench.registry.token_status
    await bench.pull(bench.public, PUBLIC, await bench.log_in(NOBODY, PUBLIC))
    assert bench.known_public(PUBLIC) is True
    bench.registry.faults, bench.registry.token_status = faults, status
    assert (await bench.get(manifest(PUBLIC, "1")))[0].status == 200
    assert (await bench.get(manifest(PUBLIC, "2")))[0].status == status
