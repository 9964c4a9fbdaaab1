"""The cap on what is taken from upstream, for processes beside the one that fetches.

Ranges ahead of a transfer and what does not fit into the store come to a worker directly. They pass the same caps: each
piece is asked for at the fetching process. While that is away the worker's even share holds.
"""

from collections.abc import AsyncIterator
from typing import override

from entrepot.registry.catalogue import Registry
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.news import hear, say
from entrepot.upstream.remote import Connection, Remote


class SharedBandwidth(Bandwidth):
    """The caps of the box, as a worker has its part of them."""

    def __init__(self, remote: Remote) -> None:
        super().__init__()
        self._remote = remote

    @override
    async def pace[Piece: (bytes, bytes | memoryview)](
        self, registry: Registry, chunks: AsyncIterator[Piece]
    ) -> AsyncIterator[Piece]:
        if not self.is_capped(registry):
            async for chunk in chunks:
                yield chunk
            return
        async with self._remote.connected() as connection:
            async for chunk in chunks:
                at = 0
                while at < len(chunk):
                    wanted = len(chunk) - at
                    granted = await self._granted(connection, registry, wanted) or await self.turn(registry, wanted)
                    yield chunk[at : at + granted]
                    at += granted

    @staticmethod
    async def _granted(connection: Connection | None, registry: Registry, wanted: int) -> int:
        """How many bytes the fetching process lets come; 0 when it is not there."""
        if connection is None:
            return 0
        reader, writer = connection
        say(writer, {"pace": registry.name, "bytes": wanted})
        match await hear(reader):
            case {"granted": int(granted)} if 0 < granted <= wanted:
                return granted
            case _:
                return 0
