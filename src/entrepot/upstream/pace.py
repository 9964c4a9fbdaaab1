"""Whether one connection is enough for a blob. Pure.

It is not when it stays slow although we wait for it: many links and CDNs bound what one connection carries (latency
times window, or a cap of theirs) far below what several do. A connection that carries `ENOUGH` is never helped: what
is gained beyond is not worth a registry's goodwill.
"""

from typing import Final

LARGE: Final = 64 << 20  # bytes of a blob above which more than one connection is considered
REST: Final = 24 << 20  # bytes that must still be missing
ENOUGH: Final = 32 << 20  # bytes per second
SPAN: Final = 0.5  # seconds that are judged together
SLOW_SPANS: Final = 2  # in a row
WAITED: Final = 0.5  # share of a span that we waited; else our own disk or processor is what is slow


class Pace:
    """The speed of one connection. Times in seconds of a clock that never goes backwards."""

    def __init__(self, now: float) -> None:
        self._since, self._last = now, now
        self._bytes, self._waited = 0, 0.0
        self._slow = 0
        self.rate = 0.0  # bytes per second over the last span

    def arrived(self, size: int, now: float) -> None:
        """`size` bytes have come."""
        self._waited += now - self._last
        self._bytes += size

    def used(self, now: float) -> None:
        """They have been dealt with; from now on we wait."""
        self._last = now
        if (span := now - self._since) < SPAN:
            return
        self.rate = self._bytes / span
        waiting = self._waited / span >= WAITED
        self._slow = self._slow + 1 if waiting and self.rate < ENOUGH else 0
        self._since, self._bytes, self._waited = now, 0, 0.0

    @property
    def slow(self) -> bool:
        """One connection is not enough."""
        return self._slow >= SLOW_SPANS


def is_large(size: int | None, offset: int) -> bool:
    """Whether it pays to think about a further connection at `offset` of a blob of `size` bytes."""
    return size is not None and size > LARGE and size - offset > REST
