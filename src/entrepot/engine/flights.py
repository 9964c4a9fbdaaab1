"""One at a time: identical questions asked at the same moment are asked once."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable

from entrepot.tasks import spawn


class Flights[K: Hashable, T]:
    """Calls under one key share the first one's outcome, its exception included, until it is there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._running: dict[K, asyncio.Task[T]] = {}

    async def run(self, key: K, question: Callable[[], Coroutine[object, object, T]]) -> T:
        """The answer to `question`; it is asked to the end even if this caller is cancelled meanwhile."""
        if (task := self._running.get(key)) is None:
            task = spawn(question(), name=f"{self._name} {key}", quiet=True)
            if task.done():  # tasks may start eagerly: one that never waits is over before it could be shared
                return task.result()
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        return await asyncio.shield(task)
