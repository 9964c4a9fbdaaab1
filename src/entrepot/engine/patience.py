"""How long a client that could have something held is made to wait for upstream (DESIGN rule 5).

An answer that comes later still counts: the question goes on in the background, and whoever asks next has the good of
it. That upstream was slow is told to `Health`, which has it looked at, so that the next client need not wait at all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Final

from entrepot.registry.catalogue import Registry
from entrepot.tasks import spawn
from entrepot.upstream.errors import Slow
from entrepot.upstream.health import PATIENCE, Health

__all__ = ["PATIENCE", "Patience"]

type Sleep = Callable[[float], Awaitable[None]]

NAME: Final = "patience"


class Patience:
    """`sleep` waits so many seconds; given in tests."""

    def __init__(self, health: Health, sleep: Sleep = asyncio.sleep) -> None:
        self._health, self._sleep = health, sleep

    async def within[T](
        self, registry: Registry, question: Coroutine[object, object, T], seconds: float = PATIENCE
    ) -> T:
        """The answer to `question`, its exception included, if it comes in time.

        Raises `Slow`, an `UpstreamError`, if it does not; the question then goes on, and its failure is nobody's.
        A caller that is cancelled leaves it running too.
        """
        asking = spawn(question, name=f"{NAME} {registry.name}", quiet=True)
        if asking.done():  # tasks may start eagerly
            return asking.result()
        waiting = spawn(_until(self._sleep, seconds), name=f"{NAME} ends")
        try:
            await asyncio.wait([asking, waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if asking.done():
            return asking.result()
        self._health.slow(registry.upstream)
        raise Slow(registry.name, f"no answer within {seconds:g} s")

    async def unless_out[T](self, name: str, urls: Sequence[str], question: Coroutine[object, object, T]) -> T:
        """The answer to `question`, however long it takes, unless one of the origins is found to be gone meanwhile.

        The first of `urls` is the one that is asked; `name` is the registry's.

        Raises `Slow` then; the question goes on, and what comes of it is nobody's.
        """
        asking = spawn(question, name=f"{NAME} {name}", quiet=True)
        while not asking.done():
            await asyncio.wait([asking], timeout=PATIENCE)
            if not asking.done():
                self._health.slow(urls[0])
                if any(self._health.is_out(url) for url in urls):
                    raise Slow(name, "no answer, and a probe has found it gone")
        return asking.result()


async def _until(sleep: Sleep, seconds: float) -> None:
    await sleep(seconds)
