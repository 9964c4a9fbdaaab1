"""The fetching process, as a worker sees it.

Whoever serves clients does not fetch: a fetch that dies takes no client along, and its bytes go on from the last one on
disk. When the fetching process dies its successor is waited for; when there is none in time the worker does the work
itself, and does not wait again for a while.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.upstream.news import LONGEST, Document, hear, say

type Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]

CONNECT: Final = 2.0  # seconds; it is on the same machine
PATIENCE: Final = 5.0  # seconds that a successor is waited for: the supervisor starts one a moment after a death
LOOK: Final = 0.05  # seconds between attempts to reach it
DESPAIR: Final = 15.0  # seconds without waiting, after nobody has come


class Line:
    """A connection to the fetching process, about one blob."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def waiting(self, somebody: bool) -> None:
        """Whether any client waits for it."""
        say(self._writer, {"waiting": somebody})

    def offer(self, source: Document) -> None:
        """Another source that upstream has admitted."""
        say(self._writer, {"offer": source})

    async def news(self) -> AsyncIterator[Document]:
        """What it tells, until it ends the connection or dies."""
        while (said := await hear(self._reader)) is not None:
            yield said


class Remote:
    """Where it listens, and how what it reports as failed is raised here."""

    def __init__(
        self,
        path: Path,
        restore: Callable[[Document], EntrepotError],
        *,
        clock: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE,
    ) -> None:
        """`clock` and `patience` in seconds."""
        self._path, self._restore, self._clock, self._patience = path, restore, clock, patience
        self._missed = -DESPAIR  # when nobody came at last

    def failure(self, document: Document) -> EntrepotError:
        """What ended the transfer there."""
        return self._restore(document)

    @asynccontextmanager
    async def order(
        self, digest: Digest, size: int | None, sources: Callable[[], Sequence[Document]]
    ) -> AsyncIterator[Line | None]:
        """Orders a blob; None when nobody takes orders, not soon either. Leaving withdraws it.

        `sources` is asked when somebody is there: the first one is used, the others if it is refused.
        """
        connection = await self._reach()
        if connection is None:
            yield None
            return
        reader, writer = connection
        try:
            source, *others = sources()
            say(writer, {"digest": str(digest), "size": size, "source": source, "others": others})
            yield Line(reader, writer)
        finally:
            await _close(writer)

    async def ask(self, source: Document) -> bool:
        """Has upstream asked for it; False if nobody was there to do so. Raises what upstream refuses with."""
        connection = await self._reach()
        if connection is None:
            return False
        reader, writer = connection
        try:
            say(writer, {"ask": source})
            match await hear(reader):
                case {"failed": dict(failure)}:
                    raise self.failure(failure)
                case {"given": True}:
                    return True
                case _:
                    return False
        finally:
            await _close(writer)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection | None]:
        """A connection of one's own to whoever is there now."""
        connection = await self._connect()
        try:
            yield connection
        finally:
            if connection is not None:
                await _close(connection[1])

    async def _reach(self) -> Connection | None:
        """A connection, perhaps to one that is about to start."""
        deadline = self._clock() + self._patience
        while (connection := await self._connect()) is None:
            if not self._path.exists():
                return None  # there never was one
            now = self._clock()
            if now - self._missed < DESPAIR:
                return None
            if now >= deadline:
                self._missed = now
                return None
            await asyncio.sleep(LOOK)
        return connection

    async def _connect(self) -> Connection | None:
        try:
            async with asyncio.timeout(CONNECT):
                return await asyncio.open_unix_connection(str(self._path), limit=LONGEST)
        except OSError:  # TimeoutError is one
            return None


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
