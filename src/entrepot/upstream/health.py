"""Which origins are down: every exchange is seen here, and what is down is looked after until it is back (rule 5).

Decides nothing about requests; it says what is known, at once, so that nobody waits to find it out again. An origin is
scheme, host and port, so a registry, its token service and its CDN are each by themselves.

1. Exchanges with an origin that is `open` are not made (`Down`), but by those who insist: a transfer that clients are
   reading rather waits.
2. A probe looks at what is suspect at once, then every `INTERVALS` seconds, while somebody asks for it: after
   `IDLE_SECONDS` it is forgotten, and the next request finds out anew.
3. An exchange that was refused has it looked at now, if the last look set out longer than `FRESH` seconds ago, and
   waits for what is found, `PATIENCE` seconds at most: who has nothing held must not be refused by what is over.
4. All processes of the box know: one that finds an origin down tells the others through the records, and that it is
   looking, so that one of them looks at a time. Whoever has an answer from it takes the record away.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from itertools import chain, repeat
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from entrepot.cache.interface import Records
from entrepot.headers import Headers
from entrepot.tasks import spawn
from entrepot.upstream.breaker import State
from entrepot.upstream.errors import Down, InvalidResponse, TimedOut, Unreachable, UpstreamError
from entrepot.upstream.findings import TOO_MANY, is_sick, look
from entrepot.upstream.outages import Outage, origin_of
from entrepot.upstream.places import Place, Places
from entrepot.upstream.quota import parse_retry_after
from entrepot.upstream.watch import Probe

type Wait = Callable[[asyncio.Event, float], Awaitable[None]]
"""Until the event is set, not longer than so many seconds."""

INTERVALS: Final = (2.0, 4.0, 8.0, 15.0)  # seconds between probes; the last one again and again
FRESH: Final = 0.5  # seconds after a look set out, in which a refused exchange causes no other one
LOOK: Final = 0.02  # seconds between looks at whether something has been found
IDLE_SECONDS: Final = 600.0  # without anybody asking, until an origin is forgotten
PATIENCE: Final = 1.0  # seconds; who leaves after that without an answer has waited too long
AT_ONCE: Final = 8  # probes of this process

_log = logging.getLogger("entrepot.upstream")


async def until(event: asyncio.Event, seconds: float) -> None:
    """`Wait`, by the loop's clock."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


class Health:
    """Of all upstreams, as one process sees it. A `entrepot.upstream.watch.Watch`. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        probe: Probe,
        clock: Callable[[], float] = time.time,
        wait: Wait = until,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`wait` is for the time between probes, `patience` the seconds that a refused exchange waits for one."""
        self._probe, self._clock, self._wait = probe, clock, wait
        self._places = Places(records, uuid4().hex, clock)
        self._probes: set[asyncio.Task[None]] = set()
        self._room, self._patience = asyncio.Semaphore(AT_ONCE), patience
        self._closed = False

    def is_down(self, url: str) -> bool:
        """Whether to do without the origin of `url` where that is possible. Microseconds."""
        place = self._place(url)
        return place.breaker.state is not State.CLOSED or place.told is not None

    def is_out(self, url: str) -> bool:
        """Whether it is down for sure: a probe has found it so, which no client can bring about.

        For whatever gives more to clients than they would get from a registry that answers.
        """
        place = self._place(url)
        return place.breaker.confirmed or (place.told is not None and place.told.confirmed)

    def slow(self, url: str) -> None:
        """A client has waited for an answer as long as clients do."""
        place = self._place(url)
        place.breaker.slow("does not answer in time", self._clock())
        self._settle(place)

    def begin(self, url: str, ca: tuple[Path, ...], *, insist: bool) -> "_Attempt":
        """An exchange with the origin of `url` is about to be made. Raises `Down` if it should not."""
        place = self._places.of(origin_of(url))
        self._places.used(place, url, ca)
        self._read(place, anew=True)
        breaker = place.breaker
        if (told := place.told) is not None and told.state is State.OPEN and breaker.state is State.CLOSED:
            self._adopt(place, told)
        if breaker.doubtful:
            self._look_after(place)
        if breaker.state is State.OPEN and not insist:
            raise Down(urlsplit(place.origin).netloc, f"not asked, it is down: {breaker.why}")
        return _Attempt(self, place, breaker.begin(), self._clock())

    async def returned(self, url: str) -> bool:
        """See `Watch`."""
        place = self._places.of(origin_of(url))
        self._read(place, anew=True)
        begun = max(place.began, 0.0 if place.told is None else place.told.began)
        if place.breaker.state is State.OPEN and not 0 <= self._clock() - begun < FRESH and not self._closed:
            self._track(spawn(self._look(place, self._set_out(place)), name=f"probe of {place.origin}"))
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                while place.breaker.state is State.OPEN and self._is_looked_at(place):
                    await asyncio.sleep(LOOK)
                    self._read(place, anew=True)
        return place.breaker.state is not State.OPEN

    def _is_looked_at(self, place: Place) -> bool:
        """By this process or another one, which may have died over it."""
        if place.looks or self._closed:
            return not self._closed
        told = place.told
        return told is not None and told.began > told.at and 0 <= self._clock() - told.began < self._patience

    async def close(self) -> None:
        """Ends the probes; there will be no more."""
        self._closed = True
        for task in self._probes:
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)

    # what came of exchanges

    def answered(self, place: Place, status: int, headers: Headers) -> None:
        """For `_Attempt`."""
        now, breaker = self._clock(), place.breaker
        if status == TOO_MANY or is_sick(status):
            place.quiet_until = now + (parse_retry_after(headers, now) or 0.0)
        if status == TOO_MANY:
            breaker.throttled("throttles", now)
        elif is_sick(status):
            breaker.soft(f"answers with {status}", now)
        else:
            breaker.success()
            self._settle(place)
            return
        if breaker.state is not State.CLOSED:
            self._settle(place)
        elif breaker.doubtful:  # nothing is known to be well: what other processes have found stands
            self._look_after(place)

    def failed(self, place: Place, begun: int, error: UpstreamError) -> None:
        """For `_Attempt`."""
        match error:
            case Unreachable() | TimedOut():
                place.breaker.hard(begun, error.cause, self._clock())
            case InvalidResponse():
                place.breaker.soft(error.cause, self._clock())
            case _:
                return  # it says nothing about the other side
        self._settle(place)

    def dropped(self, place: Place, since: float) -> None:
        """For `_Attempt`."""
        if self._clock() - since >= PATIENCE:
            place.breaker.slow("does not answer in time", self._clock())
            self._settle(place)

    # probes

    def _look_after(self, place: Place) -> None:
        """Probes until it is well; it may be looked after already."""
        if not place.probing and not self._closed:
            place.probing = True
            self._track(spawn(self._keep_looking(place), name=f"probes of {place.origin}"))

    def _track(self, task: asyncio.Task[None]) -> None:
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _keep_looking(self, place: Place) -> None:
        try:
            age = FRESH
            for interval in chain(INTERVALS, repeat(INTERVALS[-1])):
                if place.breaker.doubtful and not self._is_covered(place, age):
                    async with self._room:
                        await self._look(place, self._set_out(place))
                if not place.breaker.doubtful:
                    return
                if self._clock() - place.asked >= IDLE_SECONDS:
                    self._places.forget(place)
                    return
                pause = INTERVALS[-1] if self._clock() < place.quiet_until else interval
                place.nudged.clear()
                await self._wait(place.nudged, pause)
                age = pause
        finally:
            place.probing = False

    def _is_covered(self, place: Place, age: float) -> bool:
        """Another process has looked, not longer than `age` seconds ago: what it has found holds here too."""
        self._read(place, anew=True)
        told = place.told
        if told is None or not 0 <= self._clock() - max(told.at, told.began) < age:
            return False
        self._adopt(place, told)
        return True

    def _set_out(self, place: Place) -> int:
        """A look begins; what it says counts unless the place is seen to be well meanwhile."""
        self._places.announce(place)
        place.looks += 1
        return place.risen

    async def _look(self, place: Place, risen: int) -> None:
        try:
            finding, why = await look(self._probe, place)
        finally:
            place.looks -= 1
        self._read(place, anew=True)  # another process may have had an answer meanwhile
        if place.breaker.doubtful and place.risen == risen:
            place.breaker.probed(finding, why, self._clock())
            self._settle(place, refresh=True)

    # both

    def _place(self, url: str) -> Place:
        place = self._places.of(_origin(url))
        self._read(place, anew=False)
        return place

    def _read(self, place: Place, *, anew: bool) -> None:
        """What the other processes say; one of them may have had an answer."""
        was = place.breaker.state
        self._places.read(place, anew=anew)
        if was is not State.CLOSED and place.breaker.state is State.CLOSED:
            self._tell(place)
            place.nudged.set()  # so that its task ends

    def _adopt(self, place: Place, told: Outage) -> None:
        place.breaker.adopt(told.state, told.since, told.why, confirmed=told.confirmed)
        place.noted, place.written = told, True  # so that its end is noticed
        self._tell(place)

    def _settle(self, place: Place, *, refresh: bool = False) -> None:
        """After the breaker was moved."""
        self._places.note(place, refresh=refresh)
        self._tell(place)
        if place.breaker.doubtful:
            self._look_after(place)
        elif place.probing:
            place.nudged.set()  # so that its task ends

    def _tell(self, place: Place) -> None:
        """To the log, once."""
        breaker = place.breaker
        if not place.loud and (breaker.state is State.OPEN or breaker.confirmed):
            place.loud = True
            _log.warning("upstream is down origin=%s why=%r", place.origin, breaker.why)
        elif place.loud and breaker.state is State.CLOSED:
            place.loud = False
            _log.warning("upstream is back origin=%s after=%.0fs", place.origin, self._clock() - breaker.since)


class _Attempt:
    """`entrepot.upstream.watch.Attempt`."""

    __slots__ = ("_begun", "_health", "_place", "_since")

    def __init__(self, health: Health, place: Place, begun: int, since: float) -> None:
        self._health, self._place, self._begun, self._since = health, place, begun, since

    def answered(self, status: int, headers: Headers) -> None:
        self._health.answered(self._place, status, headers)

    def failed(self, error: UpstreamError) -> None:
        self._health.failed(self._place, self._begun, error)

    def dropped(self) -> None:
        self._health.dropped(self._place, self._since)


@lru_cache(maxsize=1024)
def _origin(url: str) -> str:
    """For the addresses of registries, which are few and no secret."""
    return origin_of(url)
