"""Connections that nobody uses end; those with an answer under way do not, whatever the clocks say."""

import time
from collections.abc import Awaitable, Callable

import pytest

from entrepot.addons.handler import Watchdog

IDLE = 300


class Time:
    """A clock that goes on when somebody sleeps; `meanwhile` happens in the first sleep."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        self._meanwhile = meanwhile

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        if len(self.naps) == 1:
            self._meanwhile()
        self.now += seconds


def watchdog(clock: Time) -> tuple[Watchdog, list[float]]:
    """And when it barked."""
    barked: list[float] = []

    async def bark() -> None:
        barked.append(clock.now)

    callback: Callable[[], Awaitable[None]] = bark
    return Watchdog(IDLE, callback, clock=clock, sleep=clock.sleep), barked


async def test_what_is_idle_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: float("nan"))  # nobody is to ask what day it is
    clock = Time()
    dog, barked = watchdog(clock)
    await dog.watch()
    assert barked == [1000.0 + IDLE]


async def test_activity_puts_it_off() -> None:
    def meanwhile() -> None:
        clock.now += 100
        dog.register_activity()
        clock.now -= 100  # the nap is counted from its beginning

    clock = Time(meanwhile)
    dog, barked = watchdog(clock)
    await dog.watch()
    assert barked == [1100.0 + IDLE]
    assert clock.naps == [IDLE, 100]


async def test_an_answer_that_is_under_way_is_not_ended() -> None:
    """However long it takes; and afterwards the time begins anew."""

    def meanwhile() -> None:
        busy.__enter__()

    clock = Time(meanwhile)
    dog, barked = watchdog(clock)
    busy = dog.disarm()
    watching = dog.watch()
    watching.send(None)  # up to where it waits for the end of the answer
    assert (clock.naps, barked) == ([IDLE], [])
    clock.now += 10 * IDLE
    busy.__exit__(None, None, None)
    ended = clock.now
    await dog.watch()
    watching.close()
    assert barked == [ended + IDLE]
