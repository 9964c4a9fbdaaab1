"""A source that does as it is told, for the tests of what fetches."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.upstream.errors import BrokenBody
from entrepot.upstream.source import Opened

CONTENT = bytes(range(256)) * 1000
DIGEST = Digest.of(CONTENT)
PIECE = 10_000


class No(EntrepotError):
    """Upstream refuses."""


@dataclass
class Upstream:
    """A source of `content`; every answer takes the next step of `script`, then the default."""

    name: str = "quay.io"
    parallel: bool = False
    content: bytes = field(default=CONTENT, repr=False)
    total: int | None = -1  # as announced; -1: the truth
    piece: int = PIECE
    script: list[EntrepotError | int] = field(default_factory=list)  # an error to raise, or bytes until the body breaks
    hold: asyncio.Event | None = None  # waited for after the first piece
    ignore_range: bool = False
    ranges: bool = True  # says that it gives them
    shift: int = 0  # answers ranges from so many bytes further on
    arrived: Callable[[int], None] = lambda size: None  # called with the bytes of each piece, before it is given
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    open_now: int = 0
    most_open: int = 0

    accepted: bool = False

    def describe(self) -> Mapping[str, object]:
        return {"name": self.name}

    def serves(self, registry: str, repository: str) -> bool:
        return registry == self.name

    @property
    def opened(self) -> list[int]:
        """Where each answer was to begin."""
        return [offset for offset, _ in self.asked]

    @asynccontextmanager
    async def open(self, offset: int, stop: int | None = None) -> AsyncIterator[Opened]:
        self.asked.append((offset, stop))
        step = self.script.pop(0) if self.script else None
        if isinstance(step, EntrepotError):
            raise step
        self.accepted = True
        start = 0 if self.ignore_range else offset + (self.shift if stop is not None else 0)
        end = len(self.content) if stop is None or self.ignore_range else stop
        total = len(self.content) if self.total == -1 else self.total
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            yield Opened(start, total, self.chunks(start, end, step), self.ranges)
        finally:
            self.open_now -= 1

    async def chunks(self, start: int, end: int, limit: int | None) -> AsyncIterator[bytes]:
        stop = end if limit is None else min(end, start + limit)
        for at in range(start, stop, self.piece):
            size = min(self.piece, stop - at)
            self.arrived(size)
            await asyncio.sleep(0)
            yield self.content[at : at + size]
            if self.hold is not None:
                await self.hold.wait()
        if limit is not None:
            raise BrokenBody("quay.io", "cut", received=limit)
