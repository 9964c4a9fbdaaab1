"""The rest of a blob as ranges side by side (issue: parallel fill); rule 2: no byte twice, in order."""

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.upstream.scripted import No, Upstream

from entrepot.errors import EntrepotError
from entrepot.upstream import windows as module
from entrepot.upstream.errors import Unreachable
from entrepot.upstream.lanes import Lanes
from entrepot.upstream.windows import FIRST_WIDTH, Windows

SMALL = 10_000  # bytes of a window here
CONTENT = random.Random(3).randbytes(25 * SMALL + 17)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", SMALL)


async def read(windows: Windows) -> bytes:
    return b"".join([piece async for piece in windows.chunks()])


def faster_with_width(upstream: Upstream, clock: Clock) -> None:
    """Each connection carries the same: n of them n times as much."""

    def arrived(size: int) -> None:
        clock.now += size / 1000 / max(1, upstream.open_now)

    upstream.arrived = arrived


async def test_all_bytes_come_in_order_each_once() -> None:
    upstream, lanes, clock = Upstream(content=CONTENT, piece=3000), Lanes(8), Clock()
    faster_with_width(upstream, clock)
    async with Windows(upstream, 4321, len(CONTENT), lanes, rate=1000, clock=clock) as windows:
        assert await read(windows) == CONTENT[4321:]
    spans = sorted((start, stop or 0) for start, stop in upstream.asked)
    assert spans[0][0] == 4321
    assert spans[-1][1] == len(CONTENT)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
    assert upstream.open_now == 0
    assert lanes.spare("quay.io")


async def test_it_widens_while_that_helps_within_the_limit() -> None:
    upstream, clock = Upstream(content=CONTENT, piece=1000), Clock()
    faster_with_width(upstream, clock)
    async with Windows(upstream, 0, len(CONTENT), Lanes(4), rate=1000, clock=clock) as windows:
        assert await read(windows) == CONTENT
    assert upstream.most_open == 4


async def test_it_ends_early_where_two_are_no_faster_than_one() -> None:
    upstream, clock = Upstream(content=CONTENT, piece=1000), Clock()

    def arrived(size: int) -> None:
        clock.now += size / 1000

    upstream.arrived = arrived
    async with Windows(upstream, 0, len(CONTENT), Lanes(8), rate=1000, clock=clock) as windows:
        got = await read(windows)
    assert CONTENT.startswith(got)
    assert len(got) % SMALL == 0
    assert FIRST_WIDTH * SMALL <= len(got) < len(CONTENT) / 2
    assert upstream.most_open <= FIRST_WIDTH + 1


async def test_a_broken_window_is_resumed_where_it_broke() -> None:
    upstream = Upstream(content=CONTENT, piece=1000, script=[4500, 2500])
    clock = Clock()
    faster_with_width(upstream, clock)
    async with Windows(upstream, 0, len(CONTENT), Lanes(8), rate=1000, clock=clock) as windows:
        assert await read(windows) == CONTENT
    assert (4500, SMALL) in upstream.asked
    assert (SMALL + 2500, 2 * SMALL) in upstream.asked


@pytest.mark.parametrize(
    "wrong",
    [
        Upstream(content=CONTENT, ignore_range=True),
        Upstream(content=CONTENT, shift=1),
        Upstream(content=CONTENT, shift=-1),
        Upstream(content=CONTENT, total=len(CONTENT) + 1),
        Upstream(content=CONTENT, total=None),
        Upstream(content=CONTENT, script=[No("429")] * 9),
        Upstream(content=CONTENT, script=[Unreachable("quay.io", "refused")] * 9),
    ],
)
async def test_an_upstream_that_does_not_give_what_was_asked_ends_it(wrong: Upstream) -> None:
    lanes = Lanes(8)
    async with Windows(wrong, SMALL, len(CONTENT), lanes, rate=1, clock=Clock()) as windows:
        assert await read(windows) == b""
    assert lanes.spare("quay.io")
    assert len(wrong.asked) <= 2 * (FIRST_WIDTH + 1)


async def test_what_came_before_a_broken_window_is_used() -> None:
    refusal: list[EntrepotError | int] = [5000, No("no more"), *[No("no more")] * 20]
    upstream = Upstream(content=CONTENT, piece=1000, script=refusal)
    async with Windows(upstream, 0, len(CONTENT), Lanes(1), rate=1, clock=Clock()) as windows:
        assert await read(windows) == CONTENT[:5000]


async def test_leaving_it_ends_all_answers() -> None:
    upstream, lanes = Upstream(content=CONTENT, hold=asyncio.Event()), Lanes(8)
    async with Windows(upstream, 0, len(CONTENT), lanes, rate=1, clock=Clock()) as windows:
        async for _ in windows.chunks():
            break
        assert upstream.open_now == FIRST_WIDTH + 1
    assert upstream.open_now == 0
    assert [lanes.take_window("quay.io", needed=False) for _ in range(3)] == [True] * 3


async def test_memory_holds_no_more_than_the_windows_granted() -> None:
    """Nobody reads: the first windows come in, and no further ones are asked for."""
    upstream = Upstream(content=CONTENT, piece=1000)
    async with Windows(upstream, 0, len(CONTENT), Lanes(8), rate=1, clock=Clock()):
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(upstream.asked) == FIRST_WIDTH + 1


@given(
    start=st.integers(0, 40_000),
    total=st.integers(1, 60_000),
    connections=st.integers(1, 5),
    piece=st.integers(500, 20_000),
)
def test_any_rest_of_any_blob(start: int, total: int, connections: int, piece: int) -> None:
    start = min(start, total - 1)
    upstream, clock = Upstream(content=CONTENT[:total], piece=piece), Clock()
    faster_with_width(upstream, clock)

    async def main() -> bytes:
        async with Windows(upstream, start, total, Lanes(connections), rate=0.001, clock=clock) as windows:
            return await read(windows)

    assert asyncio.run(main()) == CONTENT[start:total]
