"""The cap on what is taken from upstream: so many bytes a second in all, and from one registry.

Decides when the next piece of a transfer may go on. Which bytes pass here is the caller's choice: those of blobs do,
manifests and tokens are exempt. What waits here is not read, so TCP slows the sender down.

1. In any time t at most rate x t + rate x `BURST` bytes pass, over all transfers under a cap.
2. Transfers take turns, piece by piece, first come first served: two that run at once get half each, and a short one
   does not wait for the end of a long one.
3. Who waits for a registry's own cap is passed by those of other registries; nobody is passed at the common one.
4. The rates are the box's. The fetching process has them whole, and lets others take part (`sharing`); while it is away
   each worker has its even share.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from entrepot.registry.catalogue import Registry
from entrepot.tasks import spawn

BURST: Final = 0.1  # seconds' worth that may pass at once after a pause
TURN: Final = 0.025  # seconds' worth of one piece, and the longest time between looks at who may go on
MAX_PIECE: Final = 1 << 20  # bytes of one turn, however high the rate: what the disk takes at once
SHORTEST_SLEEP: Final = 0.001  # seconds; a float sum may fall short of the time meant for ever
MAX_BUCKETS: Final = 1024  # registries with a cap of their own, before idle ones are forgotten


class Bucket:
    """One cap: what may pass now, and when more may."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        """`rate` in bytes per second, 0 for no cap; `clock` in seconds, never backwards."""
        self._rate, self._clock = rate, clock
        self._tokens, self._filled = rate * BURST, clock()

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        """From the next piece on. What was saved up under the old rate is at most a burst of the new."""
        if rate != self._rate:
            self._refill()
            self._rate = rate

    @property
    def full(self) -> bool:
        """A new bucket would hold no more."""
        self._refill()
        return self._tokens >= self._rate * BURST

    def piece(self, wanted: int) -> int:
        """How many of `wanted` bytes make one turn; at least 1."""
        return min(wanted, max(1, int(self._rate * TURN))) if self._rate else wanted

    def wait(self, piece: int) -> float:
        """Seconds until `piece` bytes may pass; 0 for now."""
        if not self._rate:
            return 0.0
        self._refill()
        return max(0.0, (piece - self._tokens) / self._rate)

    def take(self, piece: int) -> None:
        """They pass."""
        self._tokens -= piece if self._rate else 0

    def _refill(self) -> None:
        now = self._clock()
        most = max(1.0, self._rate * BURST)  # one byte at a time must pass at any rate
        self._tokens = min(most, self._tokens + (now - self._filled) * self._rate)
        self._filled = now


@dataclass(eq=False, slots=True)
class _Waiter:
    own: Bucket | None  # the cap of its registry
    wanted: int
    granted: asyncio.Future[int]


class Bandwidth:
    """The caps of this process. Belongs to the event loop in which something is first waited for."""

    def __init__(
        self,
        total: int = 0,
        workers: int = 1,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`total` in bytes per second over all registries and all `workers` processes; 0 for no cap."""
        self._clock, self._sleep, self._workers = clock, sleep, workers
        self._total = Bucket(total / workers, clock)
        self._own: dict[str, Bucket] = {}
        self._queue: list[_Waiter] = []
        self._serving: asyncio.Task[None] | None = None

    def reconfigure(self, total: int, workers: int) -> None:
        """From the next piece on; a registry's own cap follows at its next transfer."""
        self._workers = workers
        self._total.rate = total / workers

    def is_capped(self, registry: Registry) -> bool:
        """Whether `pace` would slow anything down."""
        return bool(self._total.rate or registry.bandwidth)

    async def pace[Piece: (bytes, bytes | memoryview)](
        self, registry: Registry, chunks: AsyncIterator[Piece]
    ) -> AsyncIterator[Piece]:
        """The same bytes, no faster than allowed; raises what `chunks` raises."""
        own = self._bucket(registry)
        async for chunk in chunks:
            at = 0
            while at < len(chunk):
                granted = await self._turn(own, len(chunk) - at)
                yield chunk[at : at + granted]  # of the whole this is no copy
                at += granted

    async def turn(self, registry: Registry, wanted: int) -> int:
        """Waits until it is one's turn; how many of `wanted` bytes may come."""
        return await self._turn(self._bucket(registry), wanted)

    async def _turn(self, own: Bucket | None, wanted: int) -> int:
        """Waits until it is one's turn; how many of `wanted` bytes may go on. Cancelled while waiting, none have."""
        if not self._total.rate and (own is None or not own.rate):
            return wanted
        waiter = _Waiter(own, wanted, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self._serve()
        if self._queue and self._serving is None:
            self._serving = spawn(self._keep_serving(), name="bandwidth")
        return await waiter.granted

    async def _keep_serving(self) -> None:
        try:
            while (wait := self._serve()) is not None:
                await self._sleep(max(SHORTEST_SLEEP, min(TURN, wait)))
        finally:
            self._serving = None

    def _serve(self) -> float | None:
        """Lets go on who may, in order; seconds until somebody else may, None when nobody waits."""
        soonest: float | None = None
        short: set[Bucket] = set()
        for waiter in list(self._queue):
            if waiter.granted.done():  # cancelled
                self._queue.remove(waiter)
                continue
            if waiter.own in short:
                continue
            piece = self._total.piece(min(waiter.wanted, MAX_PIECE))
            if waiter.own is not None:
                piece = waiter.own.piece(piece)
                if wait := waiter.own.wait(piece):
                    short.add(waiter.own)
                    soonest = wait if soonest is None else min(soonest, wait)
                    continue
            if wait := self._total.wait(piece):
                return wait if soonest is None else min(soonest, wait)
            self._total.take(piece)
            if waiter.own is not None:
                waiter.own.take(piece)
            self._queue.remove(waiter)
            waiter.granted.set_result(piece)
        return soonest

    def _bucket(self, registry: Registry) -> Bucket | None:
        rate = (registry.bandwidth or 0) / self._workers
        if (own := self._own.get(registry.name)) is not None:
            own.rate = rate
        elif rate:
            if len(self._own) >= MAX_BUCKETS:
                self._own = {name: bucket for name, bucket in self._own.items() if not bucket.full}
            own = self._own[registry.name] = Bucket(rate, self._clock)
        return own
