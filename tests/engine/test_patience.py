"""Nobody who could have something held waits long for upstream (rule 5)."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.engine.test_engine import Clock

from entrepot.cache.memory import MemoryRecords
from entrepot.engine.patience import Patience
from entrepot.errors import EntrepotError
from entrepot.registry.catalogue import Registry
from entrepot.tasks import spawn
from entrepot.upstream.errors import Slow, UpstreamError
from entrepot.upstream.health import Health

QUAY = Registry("quay.test", ("quay.test",), (), "https://quay.test")


class Bench:
    def __init__(self) -> None:
        self.over, self.answer = asyncio.Event(), asyncio.Event()
        self.asked: list[float] = []
        self.done = False
        self.health = Health(MemoryRecords(), self.probe, Clock())
        self.patience = Patience(self.health, self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)
        await self.over.wait()

    async def probe(self, url: str, ca: object) -> int:
        await asyncio.Event().wait()
        raise AssertionError

    async def question(self, failure: EntrepotError | None = None) -> str:
        await self.answer.wait()
        self.done = True
        if failure is not None:
            raise failure
        return "fresh"


@pytest.fixture(params=[False, True], ids=["lazy", "eager"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)  # as under mitmproxy's master
    bench = Bench()
    yield bench
    await bench.health.close()


async def test_an_answer_in_time(bench: Bench) -> None:
    waiting = spawn(bench.patience.within(QUAY, bench.question()), name="client")
    bench.answer.set()
    assert await waiting == "fresh"
    assert not bench.health.is_down("https://quay.test")
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("patience") and not task.done()]


async def test_an_answer_at_once(bench: Bench) -> None:
    bench.answer.set()
    assert await bench.patience.within(QUAY, bench.question()) == "fresh"


async def test_a_failure_in_time_is_the_clients(bench: Bench) -> None:
    bench.answer.set()
    with pytest.raises(UpstreamError, match="gone"):
        await bench.patience.within(QUAY, bench.question(UpstreamError("quay.test", "gone")))


@pytest.mark.parametrize("failure", [None, UpstreamError("quay.test", "gone")])
async def test_a_late_one_goes_on_without_the_client(bench: Bench, failure: EntrepotError | None) -> None:
    bench.over.set()
    with pytest.raises(Slow, match=r"quay\.test: no answer within 1 s"):
        await bench.patience.within(QUAY, bench.question(failure))
    assert bench.asked == [1.0]
    assert not bench.done
    bench.answer.set()
    while not bench.done:
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_the_next_client_need_not_wait(bench: Bench) -> None:
    bench.over.set()
    with pytest.raises(Slow):
        await bench.patience.within(QUAY, bench.question())
    assert bench.health.is_down("https://quay.test")
    assert not bench.health.is_out("https://quay.test")


async def test_a_client_that_leaves_stops_nothing(bench: Bench) -> None:
    waiting = spawn(bench.patience.within(QUAY, bench.question()), name="client")
    while not bench.asked:
        await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not bench.health.is_down("https://quay.test")
    bench.answer.set()
    while not bench.done:
        await asyncio.sleep(0)


async def test_who_waits_for_what_is_found_gone_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """One origin of those that matter is enough; a slow one that is there is waited for."""
    monkeypatch.setattr("entrepot.engine.patience.PATIENCE", 0.001)
    slow: list[str] = []

    class Found:
        """As much of `Health` as is used."""

        out = ""

        def slow(self, url: str) -> None:
            slow.append(url)

        def is_out(self, url: str) -> bool:
            return url == self.out

    health, go_on = Found(), asyncio.Event()

    async def question() -> str:
        await go_on.wait()
        return "late"

    patience = Patience(health)  # type: ignore[arg-type]
    waiting = asyncio.ensure_future(patience.unless_out("quay.io", ["https://a", "https://b"], question()))
    async with asyncio.timeout(20):
        while len(slow) < 3:
            await asyncio.sleep(0.001)
    assert not waiting.done()
    health.out = "https://b"
    with pytest.raises(Slow):
        await asyncio.wait_for(waiting, 20)
    assert set(slow) == {"https://a"}
    health.out = ""
    go_on.set()
    assert await patience.unless_out("quay.io", ["https://a"], question()) == "late"
