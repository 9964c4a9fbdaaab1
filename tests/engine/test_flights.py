"""One question at a time, under tasks that start at once or later."""

import asyncio

import pytest

from entrepot.engine.flights import Flights


@pytest.fixture(params=[False, True], ids=["lazy", "eager"], autouse=True)
async def eager(request: pytest.FixtureRequest) -> None:
    """mitmproxy's master starts tasks eagerly; without it they start at the next turn of the loop."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory if request.param else None)


async def test_questions_at_the_same_moment_are_asked_once() -> None:
    flights, asked, go_on = Flights[str, int]("test"), [], asyncio.Event()

    async def question() -> int:
        asked.append(1)
        await go_on.wait()
        return 7

    waiting = [asyncio.ensure_future(flights.run("k", question)) for _ in range(5)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(*waiting) == [7] * 5
    assert len(asked) == 1
    assert await flights.run("k", question) == 7
    assert len(asked) == 2


async def test_one_that_never_waits_is_not_remembered() -> None:
    flights, asked = Flights[str, int]("test"), []

    async def question() -> int:
        asked.append(1)
        if len(asked) == 1:
            raise ValueError("first")
        return len(asked)

    with pytest.raises(ValueError, match="first"):
        await flights.run("k", question)
    assert await flights.run("k", question) == 2
    assert await flights.run("k", question) == 3


async def test_failures_are_shared_and_not_kept() -> None:
    flights, go_on = Flights[str, int]("test"), asyncio.Event()

    async def fails() -> int:
        await go_on.wait()
        raise ValueError("no")

    async def works() -> int:
        return 1

    waiting = [asyncio.ensure_future(flights.run("k", fails)) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    assert [str(e) for e in await asyncio.gather(*waiting, return_exceptions=True)] == ["no"] * 3
    assert await flights.run("k", works) == 1


async def test_a_caller_that_goes_leaves_the_question_to_the_others() -> None:
    flights, go_on = Flights[str, int]("test"), asyncio.Event()

    async def question() -> int:
        await go_on.wait()
        return 7

    first, second = (asyncio.ensure_future(flights.run("k", question)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await second == 7
