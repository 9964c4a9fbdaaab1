"""One client connection: mitmproxy's handler, open for the pump."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast

from mitmproxy.proxy.mode_servers import ProxyConnectionHandler
from mitmproxy.proxy.server import TimeoutWatchdog


class Watchdog(TimeoutWatchdog):
    """mitmproxy's, by a clock that nobody sets: by the time of day, a jump ended answers that were under way."""

    def __init__(
        self,
        timeout: int,
        callback: Callable[[], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock, self._sleep = clock, sleep
        super().__init__(timeout, callback)
        self.register_activity()

    def register_activity(self) -> None:
        """mitmproxy's hook."""
        self.last_activity = self._clock()

    async def watch(self) -> None:
        """mitmproxy's hook: ends the connection once nothing has happened for too long, and nothing is under way."""
        while True:
            await self.can_timeout.wait()
            await self._sleep(self.last_activity + self.timeout - self._clock())
            if self.can_timeout.is_set() and self.last_activity + self.timeout <= self._clock():
                await self.callback()
                return


class Handler(ProxyConnectionHandler):
    """What the pump and the pull layer need of a connection beyond what layers may see."""

    busy = False
    """An answer or a pass-through is under way."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]
        self.timeout_watchdog = Watchdog(self.timeout_watchdog.timeout, self.on_timeout)

    @property
    def writer(self) -> asyncio.StreamWriter:
        """The transport towards the client. Raises KeyError when it is gone."""
        return cast(asyncio.StreamWriter, self.transports[self.client].writer)

    @property
    def address(self) -> str:
        """The client's address, for the log."""
        peer = self.client.peername
        return str(peer[0]) if peer else "?"

    def end(self) -> None:
        """Closes the connection, whatever it is doing."""
        io = self.transports.get(self.client)
        if io is not None and io.handler is not None:
            io.handler.cancel("shutting down")
