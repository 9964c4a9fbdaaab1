"""Brings the bytes of one part of the store from upstream, whatever happens on the way.

1. An answer that breaks is resumed with `Range` from the last byte on disk; every attempt that brings bytes renews the
   patience.
2. When one connection is not enough for a large blob, the rest comes as several ranges at once (`pace`, `windows`).
3. A source that is refused is replaced by that of another admitted waiter, if there is one.
4. What nobody waits for any more is given up, unless the transfer says otherwise.

Leaves to the transfer who may read what has come, and to the store whether the bytes are right.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Final, Protocol

from entrepot.cache.interface import DigestMismatch, Part, StoreError
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.tasks import in_thread
from entrepot.upstream.errors import Down, InvalidResponse, UpstreamError
from entrepot.upstream.lanes import Lanes
from entrepot.upstream.pace import Pace, is_large
from entrepot.upstream.source import Effort, Opened, Source
from entrepot.upstream.windows import WINDOW, Windows

WRITE_BATCH: Final = 2 << 20  # bytes handed to the disk thread at once, at most
BACK_OFF: Final = (0.0, 0.2, 1.0, 3.0, 5.0)  # seconds before each further attempt that follows one without a byte
UNOPENED_TRIES: Final = 2  # as long as no client has an answer yet, a quick error serves it better


class TransferError(EntrepotError):
    """The transfer ended without the blob; what was read so far must not be ended clean."""


class WrongBytes(TransferError):
    """The fetching process has found wrong bytes, and may be trying again."""


class Abandoned(TransferError):
    """Nobody waits for it, and too little was in to go on."""


class Ledger(Protocol):
    """What a fetch tells the transfer it works for."""

    digest: Digest
    size: int | None  # bytes of the blob, if somebody knows

    @property
    def is_open(self) -> bool:
        """Waiters have been promised bytes."""

    @property
    def is_wanted(self) -> bool:
        """It is worth going on."""

    async def announced(self, opened: Opened) -> None:
        """Upstream has answered with bytes."""

    def advanced(self, received: int) -> None:
        """So many more bytes are in the part."""


class Fetch:
    """One part, from its last byte on disk to the end."""

    def __init__(
        self,
        part: Part,
        ledger: Ledger,
        sources: list[Source],
        *,
        lanes: Lanes,
        effort: Effort,
        clock: Callable[[], float],
    ) -> None:
        """`sources`: the first is used; others may be added, or the first taken away, while it runs."""
        self._part, self._ledger, self._sources = part, ledger, sources
        self._lanes, self._effort, self._clock = lanes, effort, clock
        self._may_widen = True

    async def run(self) -> None:
        """Returns when upstream has no more bytes to give.

        Raises what upstream refused with, `UpstreamError` or `TransferError` when patience is at an end, `StoreError`.
        """
        failures = 0
        while True:
            before, broken = self._part.offset, None
            try:
                await self._attempt(self._sources[0])
                if self._ledger.size is None or self._part.offset >= self._ledger.size:
                    break
            except UpstreamError as e:
                if isinstance(e, Down) and not self._ledger.is_open:
                    raise  # it has been looked at for as long as a client waits
                broken = e
            except (StoreError, TransferError):
                raise
            except EntrepotError:  # this credential is refused
                if len(self._sources) < 2:
                    raise
                del self._sources[0]
                continue
            failures = 0 if self._part.offset > before else failures + 1
            if failures >= (self._effort.attempts if self._ledger.is_open else UNOPENED_TRIES):
                raise broken or self._ended_early()
            await asyncio.sleep(BACK_OFF[min(failures, len(BACK_OFF) - 1)])
            self._check_wanted()
        if self._ledger.size is not None and self._part.offset > self._ledger.size:
            why = f"more than the {self._ledger.size} bytes announced"
            raise DigestMismatch(self._ledger.digest, why, self._part.offset)

    async def _attempt(self, source: Source) -> None:
        """One connection, and several once it turns out too slow. Returns at the end of what they bring."""
        self._lanes.take(source.name)
        windows: Windows | None = None
        try:
            async with AsyncExitStack() as helpers:
                async with source.open(self._part.offset) as opened:
                    await self._ledger.announced(opened)
                    pace = Pace(self._clock())
                    async for batch in _batches(_from(opened, self._part.offset, source.name)):
                        pace.arrived(len(batch), self._clock())
                        await self._write(batch if windows is None else batch[: windows.start - self._part.offset])
                        pace.used(self._clock())
                        if windows is None and pace.slow and self._worth_widening(source, opened):
                            windows = await helpers.enter_async_context(self._widened(source, pace.rate))
                        if windows is not None and self._part.offset >= windows.start:
                            break
                if windows is not None and self._part.offset == windows.start:
                    async for batch in _batches(windows.chunks()):
                        await self._write(batch)
        finally:
            self._lanes.give(source.name)

    def _worth_widening(self, source: Source, opened: Opened) -> bool:
        return (
            self._may_widen
            and source.parallel
            and opened.ranges
            and is_large(self._ledger.size, self._part.offset)
            and self._lanes.spare(source.name)
        )

    def _widened(self, source: Source, rate: float) -> Windows:
        """Ranges that begin where the one connection will be when they have come under way."""
        self._may_widen = False  # once: if it ends early there was a reason
        start, total = self._part.offset + WINDOW, self._ledger.size or 0
        return Windows(source, start, total, self._lanes, rate=rate, clock=self._clock)

    async def _write(self, batch: bytes | memoryview) -> None:
        await in_thread(self._part.write, batch)
        self._ledger.advanced(len(batch))
        self._check_wanted()

    def _check_wanted(self) -> None:
        if not self._ledger.is_wanted:
            raise Abandoned(f"{self._ledger.digest}: nobody waits for it, {self._part.offset} bytes are in")

    def _ended_early(self) -> TransferError:
        part, size = self._part.offset, self._ledger.size
        return TransferError(f"{self._ledger.digest}: upstream ends after {part} of {size} bytes")


async def _from(opened: Opened, offset: int, host: str) -> AsyncIterator[bytes | memoryview]:
    """The bytes from `offset` on, also from an upstream that starts earlier (it ignored `Range`)."""
    skip = offset - opened.start
    if skip < 0:
        raise InvalidResponse(host, f"answered from byte {opened.start} on instead of {offset}")
    async for chunk in opened.chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
        elif chunk:
            yield chunk[skip:] if skip else chunk
            skip = 0


async def _batches[Piece: (bytes, bytes | memoryview)](chunks: AsyncIterator[Piece]) -> AsyncIterator[Piece]:
    """Chunks as they come, larger ones cut so that one write does not hold up the waiters."""
    async for chunk in chunks:
        for at in range(0, len(chunk), WRITE_BATCH):
            yield chunk[at : at + WRITE_BATCH] if len(chunk) > WRITE_BATCH else chunk
