"""The cap, on a clock that only the test moves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from dataclasses import replace as copied

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrepot.registry.catalogue import Registry
from entrepot.tasks import spawn
from entrepot.upstream import bandwidth
from entrepot.upstream.bandwidth import BURST, MAX_PIECE, SHORTEST_SLEEP, TURN, Bandwidth, Bucket
from entrepot.upstream.errors import BrokenBody

QUAY = Registry("quay.io", (), (), "")
GHCR = Registry("ghcr.io", (), (), "")


@dataclass
class Time:
    """Sleepers wake in the order of their times, once everybody sleeps."""

    now: float = 1000.0
    sleepers: list[tuple[float, asyncio.Future[None]]] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, done))
        await done

    async def run(self, *coroutines: Awaitable[object]) -> None:
        """Until all have ended."""
        tasks = [asyncio.ensure_future(one) for one in coroutines]
        while True:
            for _ in range(10):  # all that can go on without time passing does
                await asyncio.sleep(0)
            if all(task.done() for task in tasks):
                break
            self.wake_next()
        await asyncio.gather(*tasks)

    def wake_next(self) -> None:
        self.sleepers = [(at, done) for at, done in self.sleepers if not done.done()]
        self.sleepers.sort(key=lambda sleeper: sleeper[0])
        at, done = self.sleepers.pop(0)
        self.now = max(self.now, at)
        done.set_result(None)

    def caps(self, total: int = 0, workers: int = 1) -> Bandwidth:
        return Bandwidth(total, workers, clock=self.clock, sleep=self.sleep)


@dataclass
class Log:
    """What passed: when, whose, how many bytes."""

    time: Time
    passed: list[tuple[float, str, int]] = field(default_factory=list)

    def add(self, who: str, n: int) -> None:
        self.passed.append((self.time.now, who, n))

    def sizes(self, who: str) -> list[int]:
        return [n for _, name, n in self.passed if name == who]

    def check(self, rate: float, burst: float | None = None) -> None:
        """Never more than rate x t + burst, over any stretch."""
        burst = max(1.0, rate * BURST) if burst is None else burst
        for first, (start, _, _) in enumerate(self.passed):
            total = 0
            for now, _, n in self.passed[first:]:
                total += n
                assert total <= rate * (now - start) + burst + 1e-3

    async def follow(self, caps: Bandwidth, registry: Registry, content: list[bytes], who: str = "") -> None:
        received = b""
        async for piece in caps.pace(registry, chunks(content)):
            assert piece
            self.add(who or registry.name, len(piece))
            received += piece
        assert received == b"".join(content)


async def chunks(content: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in content:
        yield chunk


# A wait may come out as some nanoseconds too short, and is then made up by the shortest sleep.
ROUNDING = SHORTEST_SLEEP * 1.01


@given(
    st.integers(1, 10**9),
    st.integers(1, 10**9),
    st.lists(st.tuples(st.booleans(), st.floats(0, 2), st.lists(st.floats(0, 2), max_size=4)), min_size=1, max_size=5),
)
@settings(max_examples=100, deadline=None)
def test_the_bytes_are_the_same_and_never_more_than_the_rate_and_one_burst(
    total: int, own: int, transfers: list[tuple[bool, float, list[float]]]
) -> None:
    """Sizes in turns of the smaller cap, so that neither the rates nor the number of steps is bounded by the other."""
    turn = min(MAX_PIECE, max(1.0, min(total, own) * TURN))

    async def scenario() -> None:
        time = Time()
        log, caps, capped = Log(time), time.caps(total), copied(QUAY, bandwidth=own)

        async def transfer(slow: bool, begins: float, sizes: list[float]) -> None:
            if begins:
                await time.sleep(begins)
            content = [bytes([number]) * int(size * turn) for number, size in enumerate(sizes)]
            await log.follow(caps, capped if slow else GHCR, content)

        await time.run(*(transfer(*one) for one in transfers))
        log.check(total)
        Log(time, [entry for entry in log.passed if entry[1] == "quay.io"]).check(own)

    asyncio.run(scenario())


@given(st.floats(0.01, 1e10), st.lists(st.tuples(st.integers(1, 10**9), st.floats(0, 3)), max_size=30))
def test_a_bucket_never_gives_more(rate: float, wants: list[tuple[int, float]]) -> None:
    now = begun = 5000.0
    passed = 0
    bucket = Bucket(rate, lambda: now)
    for wanted, pause in wants:
        now += pause
        piece = bucket.piece(wanted)
        assert 1 <= piece <= wanted
        while wait := bucket.wait(piece):
            now += max(wait, SHORTEST_SLEEP)
        bucket.take(piece)
        passed += piece
        assert passed <= (rate * (now - begun) + max(1.0, rate * BURST)) * (1 + 1e-9)


async def test_a_cap_is_used_to_the_full() -> None:
    time = Time()
    log, caps = Log(time), time.caps(1_000_000)
    began = time.now
    await time.run(log.follow(caps, QUAY, [b"x" * 100_000] * 20))
    assert time.now - began == pytest.approx(2.0 - BURST, abs=ROUNDING)


async def test_no_cap_passes_chunks_as_they_are() -> None:
    time = Time()
    log = Log(time)
    await time.run(log.follow(time.caps(), QUAY, [b"x" * 5_000_000, b"y"]))
    assert [n for _, _, n in log.passed] == [5_000_000, 1]
    assert time.now == 1000.0


@pytest.mark.parametrize("first", ["long", "short"])
async def test_transfers_take_turns(first: str) -> None:
    """A long one that came first does not take all, nor does one that came last; all along both get the same."""
    time = Time()
    log, caps = Log(time), time.caps(1_000_000)
    both = {"long": 2_000_000, "short": 500_000}
    names = sorted(both, key=lambda name: name != first)
    await time.run(*(log.follow(caps, QUAY, [b"x" * both[name]], name) for name in names))
    got = dict.fromkeys(both, 0)
    for _, who, n in log.passed:
        got[who] += n
        if got["short"] < both["short"]:
            assert abs(got["long"] - got["short"]) <= 1_000_000 * (BURST + TURN)


async def test_no_burst_after_a_pause_is_longer_than_a_tenth_of_a_second() -> None:
    time = Time()
    log, caps = Log(time), time.caps(1000)
    await time.run(log.follow(caps, QUAY, [b"x" * 500], "a"))
    time.now += 3600
    began = time.now
    await time.run(log.follow(caps, QUAY, [b"x" * 500], "b"))
    assert sum(n for at, who, n in log.passed if who == "b" and at == began) == 1000 * BURST
    log.check(1000)


async def test_a_slow_registry_does_not_hold_up_the_others() -> None:
    time = Time()
    log, caps = Log(time), time.caps(1_000_000)
    slow = copied(QUAY, bandwidth=1000)
    began = time.now
    fast = log.follow(caps, GHCR, [b"y" * 1_000_000])
    await time.run(log.follow(caps, slow, [b"x" * 1000]), fast)
    ended = max(at for at, who, _ in log.passed if who == "ghcr.io")
    assert ended - began == pytest.approx(1.0 - BURST, abs=0.002)  # 1 kB of the others' is among it
    Log(time, [entry for entry in log.passed if entry[1] == "quay.io"]).check(1000)


async def test_a_registry_s_transfers_share_its_cap() -> None:
    time = Time()
    log, caps = Log(time), time.caps()
    slow = copied(QUAY, bandwidth=1000)
    await time.run(log.follow(caps, slow, [b"x" * 500], "a"), log.follow(caps, slow, [b"y" * 500], "b"))
    log.check(1000)


async def test_workers_divide_the_caps() -> None:
    time = Time()
    log, caps = Log(time), time.caps(4000, workers=4)
    await time.run(log.follow(caps, QUAY, [b"x" * 2000]))
    log.check(1000)
    log, slow = Log(time), copied(GHCR, bandwidth=400)
    await time.run(log.follow(caps, slow, [b"x" * 200]))
    log.check(100)


async def test_a_new_rate_holds_for_what_is_under_way() -> None:
    time = Time()
    log, caps = Log(time), time.caps(1_000_000)
    began = time.now

    async def change() -> None:
        await time.sleep(0.5)
        caps.reconfigure(10_000, 1)

    await time.run(log.follow(caps, QUAY, [b"x" * 610_000]), change())
    after = Log(time, [entry for entry in log.passed if entry[0] > began + 0.5 + BURST])
    after.check(10_000)
    assert time.now > began + 1
    log.check(1_000_000)


async def test_a_cap_that_is_lifted_lets_go() -> None:
    time = Time()
    log, caps = Log(time), time.caps(10)

    async def lift() -> None:
        await time.sleep(1.0)
        caps.reconfigure(0, 1)

    began = time.now
    await time.run(log.follow(caps, QUAY, [b"x" * 100_000]), lift())
    assert time.now - began <= 1.0 + 1.0 / 10  # the byte that was waited for


async def test_a_registry_s_new_cap_is_taken_up_by_its_next_transfer() -> None:
    time = Time()
    caps = time.caps()
    await time.run(Log(time).follow(caps, copied(QUAY, bandwidth=1000), [b"x" * 100]))
    began = time.now
    await time.run(Log(time).follow(caps, QUAY, [b"x" * 100_000]))
    assert time.now == began


async def test_who_is_cancelled_takes_nothing_and_holds_up_nobody() -> None:
    time = Time()
    log, caps = Log(time), time.caps(1000)
    await time.run(log.follow(caps, QUAY, [b"x" * 100], "empties it"))
    began = time.now
    tasks = [spawn(log.follow(caps, QUAY, [b"x" * 25], who), name=who, quiet=True) for who in ("first", "next", "last")]
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(time.sleepers) == 1
    for task in tasks[:2]:
        task.cancel()
    await time.run(tasks[2])
    assert log.sizes("first") == log.sizes("next") == []
    assert time.now - began == pytest.approx(0.025, abs=ROUNDING)
    log.check(1000)


async def test_when_all_are_cancelled_nothing_goes_on() -> None:
    time = Time()
    caps = time.caps(10)
    task = spawn(Log(time).follow(caps, QUAY, [b"x" * 100]), name="cancelled", quiet=True)
    for _ in range(10):
        await asyncio.sleep(0)
    task.cancel()
    await time.run()
    time.wake_next()
    await time.run()
    assert time.sleepers == []
    assert (caps._queue, caps._serving) == ([], None)


async def test_the_failure_of_a_body_comes_through() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"good"
        raise BrokenBody("quay.io", "cut", received=4)

    time = Time()
    received = b""
    with pytest.raises(BrokenBody):
        async for piece in time.caps(1000).pace(QUAY, broken()):
            received += piece
    assert received == b"good"


async def test_idle_registries_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bandwidth, "MAX_BUCKETS", 3)
    time = Time()
    caps = time.caps()
    for number in range(10):
        registry = Registry(f"{number}.azurecr.io", (), (), "", bandwidth=1000)
        await time.run(Log(time).follow(caps, registry, [b"x" * 10]))
        time.now += 1
    assert len(caps._own) <= 3


async def test_a_clock_that_stands_still_is_not_spun_on() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    caps = Bandwidth(10, clock=lambda: 1e12 + (len(slept) >= 5), sleep=sleep)
    received = [piece async for piece in caps.pace(QUAY, chunks([b"xx"]))]
    assert received == [b"x", b"x"]
    assert len(slept) == 5
    assert all(SHORTEST_SLEEP <= seconds <= TURN for seconds in slept)
