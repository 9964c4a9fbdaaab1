"""Records that are kept if the disk takes them, and missed if it does not (DESIGN rule 10).

What is noted while a pull is answered can be learnt again from upstream: a disk that is full costs the memory of an
answer, never the answer. Who has to know that something was kept uses the records themselves.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Final

from entrepot.cache.interface import Document, Records, StoreError

_log = logging.getLogger("entrepot.cache")
QUIET: Final = 60.0  # seconds between two lines that say so


class Forgiving:
    """`entrepot.cache.interface.Records` over others. Only additions are forgiven: what is withdrawn must be gone."""

    def __init__(self, records: Records, clock: Callable[[], float] = time.monotonic) -> None:
        self._records, self._clock = records, clock
        self._said = -QUIET

    def get(self, key: str) -> Document | None:
        return self._records.get(key)

    def get_bytes(self, key: str) -> bytes | None:
        return self._records.get_bytes(key)

    async def put(self, key: str, value: Document, *, ttl: float | None = None) -> None:
        await self._try(self._records.put(key, value, ttl=ttl))

    async def put_many(self, values: Mapping[str, Document], *, ttl: float | None = None) -> None:
        await self._try(self._records.put_many(values, ttl=ttl))

    async def put_bytes(self, key: str, value: bytes) -> None:
        await self._try(self._records.put_bytes(key, value))

    async def delete(self, key: str) -> bool:
        return await self._records.delete(key)

    def scan(self, prefix: str) -> Iterator[tuple[str, Document]]:
        return self._records.scan(prefix)

    async def close(self) -> None:
        await self._records.close()

    async def _try(self, write: Awaitable[None]) -> None:
        try:
            await write
        except StoreError as e:
            if self._clock() - self._said >= QUIET:
                self._said = self._clock()
                _log.warning("%s; what is not noted is asked for again", e)
