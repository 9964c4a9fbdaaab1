"""Who is refused because an origin is down has it looked at, and does not wait long for that (rule 5)."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from tests.upstream.loopback import Clock, client, ok, sends, serving
from tests.upstream.test_health import KEY, URL, Process, settle

from entrepot.cache.memory import MemoryRecords
from entrepot.headers import Headers
from entrepot.tasks import spawn
from entrepot.upstream.errors import Down, Unreachable
from entrepot.upstream.health import FRESH, Health

BLOB = f"{URL}/v2/org/app/blobs/sha256:00"


@dataclass
class Pair:
    one: Process
    other: Process
    clock: Clock

    def passes(self, seconds: float) -> None:
        self.clock.now += seconds

    async def goes_down(self) -> None:
        """For both, and the last look is not of now."""
        await self.one.goes_down()
        assert self.other.refuses()
        await settle()
        self.passes(FRESH)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    clock = Clock()
    records = MemoryRecords(clock)
    made = Pair(Process(records, clock), Process(records, clock), clock)
    yield made
    for each in (made.one, made.other):
        await each.health.close()


def impatient(process: Process) -> None:
    process.health._patience = 0.0


async def test_it_is_looked_at_now_and_asked_again(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.finds = 401
    assert await pair.one.health.returned(BLOB)
    assert pair.one.probes == [f"{URL}/v2/"] * 2
    assert not pair.one.refuses()
    assert pair.one.records.get(KEY) is None


async def test_it_is_still_away(pair: Pair) -> None:
    await pair.goes_down()
    assert not await pair.one.health.returned(BLOB)
    assert len(pair.one.probes) == 2
    assert pair.one.refuses()
    assert pair.one.health.is_out(URL)


async def test_not_again_a_moment_later(pair: Pair) -> None:
    await pair.goes_down()
    assert not await pair.one.health.returned(BLOB)
    pair.one.finds = 401
    pair.passes(FRESH / 2)
    assert not await pair.one.health.returned(BLOB)
    assert len(pair.one.probes) == 2
    pair.passes(FRESH / 2)
    assert await pair.one.health.returned(BLOB)


async def test_one_look_for_all_who_wait(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    waiting = [spawn(pair.one.health.returned(BLOB), name="client") for _ in range(20)]
    await settle()
    assert len(pair.one.probes) == 2
    pair.one.finds = 401
    pair.one.hold.set()
    assert await asyncio.gather(*waiting) == [True] * 20
    assert len(pair.one.probes) == 2


async def test_a_look_of_some_time_ago_is_not_waited_for_alone(pair: Pair) -> None:
    """It may have set out when nobody was there, and will not hear of it before its time is over."""
    await pair.goes_down()
    old = pair.one.hold = asyncio.Event()
    await pair.one.pause_ends()
    assert len(pair.one.probes) == 2
    pair.passes(FRESH)
    pair.one.hold, pair.one.finds = None, 401
    assert await pair.one.health.returned(BLOB)
    assert len(pair.one.probes) == 3
    pair.one.finds = Unreachable("quay.test", "made up")
    await pair.one.fails()  # it is in doubt again, and then the look from before comes back
    pair.one.hold = asyncio.Event()
    before = pair.one.health.is_out(URL)
    old.set()
    await settle()
    assert pair.one.health.is_out(URL) is before


async def test_patience_ends(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    impatient(pair.one)
    assert not await pair.one.health.returned(BLOB)
    assert len(pair.one.probes) == 2
    pair.one.finds = 401
    pair.one.hold.set()
    await settle()
    assert not pair.one.refuses()  # what came of it still counts


async def test_what_one_process_finds_is_what_another_waits_for(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    asking = spawn(pair.one.health.returned(BLOB), name="client of one")
    await settle()
    waiting = spawn(pair.other.health.returned(BLOB), name="client of the other")
    await settle()
    assert not waiting.done()
    pair.one.finds = 401
    pair.one.hold.set()
    assert list(await asyncio.gather(asking, waiting)) == [True, True]
    assert len(pair.one.probes) == 2
    assert pair.other.probes == []
    assert not pair.other.refuses()


async def test_a_look_that_ends_badly_ends_the_wait_of_all(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    waiting = []
    for each in (pair.one, pair.other):
        waiting.append(spawn(each.health.returned(BLOB), name="client"))
        await settle()
    pair.one.hold.set()
    assert await asyncio.gather(*waiting) == [False, False]
    assert pair.other.probes == []


async def test_a_process_that_dies_while_it_looks_is_not_waited_for(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    asking = spawn(pair.one.health.returned(BLOB), name="client of one")
    await settle()
    asking.cancel()
    await pair.one.health.close()
    pair.passes(FRESH)
    pair.other.finds = 401
    assert await pair.other.health.returned(BLOB)
    assert len(pair.other.probes) == 1


async def test_no_probe_outlives_the_end(pair: Pair) -> None:
    await pair.goes_down()
    pair.one.hold = asyncio.Event()
    asking = spawn(pair.one.health.returned(BLOB), name="client")
    await settle()
    await pair.one.health.close()
    assert not await asking
    assert not await pair.one.health.returned(BLOB)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("probe of")]


async def test_an_exchange_that_is_refused_is_made_when_it_is_back() -> None:
    """By the client: no caller has to know."""
    clock = Clock()
    async with serving(sends(ok(b"x"))) as server, client() as http:
        url = f"http://a.test:{server.port}/v2/x"
        health = Health(MemoryRecords(clock), http.probe, clock)
        http.watched_by(health)
        for _ in range(2):
            health.begin(url, (), insist=True).failed(Unreachable("a.test", "made up"))
        with pytest.raises(Down):
            health.begin(url, (), insist=False)
        clock.now += FRESH
        async with http.open("GET", url, Headers()) as response:
            assert response.status == 200
        await health.close()
