"""How registries behave: one that has sent wrong bytes is not trusted with what cannot be verified, for a while.

Nothing wrong is ever kept or ended clean, whoever sends it; this is about what is done on top for a registry (or the
network before it) that sends it: no ranges past the store, which only the client could verify, no ranges side by side,
nothing ahead of need. Known to all processes, and shown by `entrepot stats`.
"""

import time
from collections.abc import Callable
from typing import Final

from entrepot.cache.interface import Records

MEMORY: Final = 600.0  # seconds that wrong bytes are held against a registry
PREFIX: Final = "suspicious/"


class Conduct:
    """What is held against registries, in the records."""

    def __init__(self, records: Records, clock: Callable[[], float] = time.time) -> None:
        self._records, self._clock = records, clock

    async def wrong_bytes(self, registry: str, digest: str) -> None:
        """A blob of this registry did not have its digest."""
        await self._records.put(f"{PREFIX}{registry}", {"digest": digest, "at": self._clock()}, ttl=MEMORY)

    def is_suspicious(self, registry: str) -> bool:
        return self._records.get(f"{PREFIX}{registry}") is not None
