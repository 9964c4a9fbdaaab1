"""The cap on what is taken from upstream: so many bytes a second in all, and from one registry.

Decides when the next piece of a transfer may go on. Which bytes pass here is the caller's choice: those of blobs do,
manifests and tokens are exempt. What waits here is not read, so TCP slows the sender down.

1. In any time t at most rate x t + `BURST` x rate bytes pass, over all transfers.
2. Transfers take turns, piece by piece, first come first served: two that run at once get half each, and a short one
   does not wait for the end of a long one.
3. A registry's own cap is waited for before the common one, so that a slow registry never holds up the others.
4. The rate is the box's, divided evenly by its worker processes; what an idle worker leaves is not given to others.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from entrepot.registry.catalogue import Registry

BURST: Final = 0.1  # seconds' worth that may pass at once after a pause
TURNS: Final = 4  # turns that a burst is cut into
MAX_PIECE: Final = 1 << 20  # bytes of one turn, however high the rate: what the disk takes at once
SHORTEST_SLEEP: Final = 0.001  # seconds; a float sum may fall short of the time meant for ever
MAX_BUCKETS: Final = 1024  # registries with a cap of their own, before idle ones are forgotten


class Bucket:
    """One cap. Belongs to the event loop in which it is first waited for."""

    def __init__(self, rate: float, clock: Callable[[], float], sleep: Callable[[float], Awaitable[object]]) -> None:
        """`rate` in bytes per second, 0 for no cap; `clock` in seconds, never backwards."""
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._tokens, self._filled = rate * BURST, clock()
        self._turn = asyncio.Lock()  # serves its waiters in the order they came

    @property
    def rate(self) -> float:
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        """From the next piece on. Bytes saved up under the old rate do not add up to more than a burst of the new."""
        if rate != self._rate:
            self._refill()
            self._rate = rate
            self._tokens = min(self._tokens, rate * BURST)

    @property
    def idle(self) -> bool:
        """Nobody waits, and a new bucket would be just as full."""
        self._refill()
        return not self._turn.locked() and self._tokens >= self._rate * BURST

    async def take(self, wanted: int) -> int:
        """Waits for a turn; how many of `wanted` bytes may go on now: at least 1. Cancelled, it has taken nothing."""
        if not self._rate:
            return wanted
        async with self._turn:
            while self._rate:
                piece = min(wanted, MAX_PIECE, max(1, int(self._rate * BURST / TURNS)))
                self._refill()
                if self._tokens >= piece:
                    self._tokens -= piece
                    return piece
                await self._sleep(max(SHORTEST_SLEEP, (piece - self._tokens) / self._rate))
        return wanted  # the cap was lifted meanwhile

    def _refill(self) -> None:
        now = self._clock()
        full = max(1.0, self._rate * BURST)  # a byte at a time must pass at any rate
        self._tokens = min(full, self._tokens + (now - self._filled) * self._rate)
        self._filled = now


class Bandwidth:
    """The caps of this process."""

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
        self._total = Bucket(total / workers, clock, sleep)
        self._own: dict[str, Bucket] = {}

    def reconfigure(self, total: int, workers: int) -> None:
        """From the next piece on; a registry's own cap follows at its next transfer."""
        self._workers = workers
        self._total.rate = total / workers

    async def pace(self, registry: Registry, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The same bytes, no faster than allowed; raises what `chunks` raises."""
        own = self._bucket(registry)
        async for chunk in chunks:
            at = passed = 0
            while passed < len(chunk):
                passed += await own.take(len(chunk) - passed) if own else len(chunk) - passed
                while at < passed:
                    granted = await self._total.take(passed - at)
                    yield chunk[at : at + granted]  # of the whole this is no copy
                    at += granted

    def _bucket(self, registry: Registry) -> Bucket | None:
        rate = (registry.bandwidth or 0) / self._workers
        if (own := self._own.get(registry.name)) is not None:
            own.rate = rate
        elif rate:
            if len(self._own) >= MAX_BUCKETS:
                self._own = {name: bucket for name, bucket in self._own.items() if not bucket.idle}
            own = self._own[registry.name] = Bucket(rate, self._clock, self._sleep)
        return own
