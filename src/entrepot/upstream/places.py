"""The origins this process has dealt with, and what it shares about them with the others.

Holds one breaker for each, and the note of it in the records. What moves a breaker, and who probes, is `health`'s.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from entrepot.cache.interface import Document, Records, StoreError
from entrepot.tasks import spawn
from entrepot.upstream.breaker import Breaker, State
from entrepot.upstream.outages import PREFIX, TTL, Outage

MEMO_SECONDS: Final = 0.25  # that what another process has noted is not looked up again, unless an exchange begins
MOST: Final = 1024  # origins; redirects to names that are made up must not fill the memory
API: Final = "/v2/"

_log = logging.getLogger("entrepot.upstream")


@dataclass(eq=False, slots=True)
class Place:
    """One origin as this process knows it. Times are epoch seconds."""

    origin: str
    asked: float  # when somebody last wanted to know
    path: str = "/"  # that a probe asks for
    ca: tuple[Path, ...] = ()  # trusted for it
    breaker: Breaker = field(default_factory=Breaker)
    told: Outage | None = None  # by another process
    read: float = -inf  # when that was looked up
    noted: Outage | None = None  # what was last given to the records
    written: bool = False  # and has reached them
    probing: bool = False
    began: float = -inf  # when a probe last set out
    looks: int = 0  # probes of this process that are under way
    risen: int = 0  # how often it was seen to be well
    quiet_until: float = 0.0  # upstream has asked not to be bothered
    nudged: asyncio.Event = field(default_factory=asyncio.Event)  # its probes have no reason to go on
    loud: bool = False  # it was logged that it is down


class Places:
    """By origin. `me` names this process."""

    def __init__(self, records: Records, me: str, clock: Callable[[], float]) -> None:
        self._records, self._me, self._clock = records, me, clock
        self._known: OrderedDict[str, Place] = OrderedDict()

    def of(self, origin: str) -> Place:
        """The place, which somebody has just asked for."""
        now = self._clock()
        if (place := self._known.get(origin)) is None:
            place = self._known[origin] = Place(origin, now)
            if len(self._known) > MOST:
                self._drop_one(origin)
        place.asked = now
        return place

    def used(self, place: Place, url: str, ca: tuple[Path, ...]) -> None:
        """An exchange with it begins."""
        if place.origin in self._known:
            self._known.move_to_end(place.origin)
        place.ca = ca
        if urlsplit(url).path.startswith(API):
            place.path = API

    def read(self, place: Place, *, anew: bool) -> None:
        """Takes in what the other processes say. A note of ours that is gone was taken away by one with an answer."""
        now = self._clock()
        if not anew and 0 <= now - place.read < MEMO_SECONDS:
            return
        place.read = now
        outage = Outage.load(self._records.get(PREFIX + place.origin))
        place.told = outage if outage is not None and outage.by != self._me else None
        if outage is None and place.written:
            noted, place.noted, place.written = place.noted, None, False
            if noted is not None and now - noted.at < TTL:  # else it has ended on its own, which says nothing
                place.breaker.reset()

    def announce(self, place: Place) -> None:
        """Tells the other processes that a probe sets out: they wait for what it finds."""
        place.began = self._clock()
        if (known := place.told or place.noted) is not None:
            place.noted = replace(known, began=place.began, by=self._me)
            self._write(place, place.noted.document())

    def note(self, place: Place, *, refresh: bool = False) -> None:
        """Tells the other processes what has changed; `refresh`: also if nothing has."""
        breaker, before = place.breaker, place.noted
        if breaker.state is State.CLOSED:
            place.risen += 1
            if before is not None or place.told is not None:
                place.noted = place.told = None
                self._write(place, None)
            return
        if refresh or before is None or (before.state, before.confirmed) != (breaker.state, breaker.confirmed):
            found = breaker.state, breaker.since, breaker.why, breaker.confirmed
            outage = place.noted = Outage(*found, self._clock(), self._me, place.began)
            self._write(place, outage.document())

    def forget(self, place: Place) -> None:
        """Nobody asks any more. Its note ends on its own."""
        place.breaker.reset()
        place.noted, place.written, place.loud = None, False, False

    def _write(self, place: Place, document: Document | None) -> None:
        spawn(self._put(place, document), name=f"note {place.origin}")

    async def _put(self, place: Place, document: Document | None) -> None:
        """In the order of the calls: the records keep it."""
        key, written = PREFIX + place.origin, False
        try:
            if document is None:
                await self._records.delete(key)
            else:
                await self._records.put(key, document, ttl=TTL)
                written = self._records.get(key) is not None  # records may forgive a disk that is full
        except StoreError as e:  # then each process finds out for itself
            _log.debug("%s is not noted: %s", place.origin, e)
        place.written = written

    def _drop_one(self, newest: str) -> None:
        """The one that was used least recently, of those that are well if there are any."""
        well = (name for name, place in self._known.items() if not place.probing and name != newest)
        place = self._known.pop(next(well, next(iter(self._known))))
        self.forget(place)
        place.nudged.set()  # ends its probes
