"""One at a time: identical questions asked at the same moment are asked once."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable

from entrepot.tasks import spawn


class Flights[K: Hashable, T]:
    """Calls under one key share the first one's outcome, its exception included, until it is there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, question: Callable[[], Awaitable[T]]) -> T:
        """The answer to `question`; it is asked to the end even if this caller is cancelled meanwhile."""
        if (task := self._running.get(key)) is None:
            task = spawn(self._ask(key, question), name=f"{self._name} {key}", quiet=True)
            self._running[key] = task
        return await asyncio.shield(task)

    async def _ask(self, key: K, question: Callable[[], Awaitable[T]]) -> T:
        try:
            return await question()
        finally:
            del self._running[key]
