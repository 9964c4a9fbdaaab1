"""The server: listening sockets in, pages out, until told to stop."""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from entrepot.web.pages import Pages

_log: Final = logging.getLogger("entrepot.web")
_KEEP_ALIVE: Final = 15.0  # seconds
_END: Final = 1.0  # seconds that answers under way get


async def serve(pages: Pages, sockets: Sequence[socket.socket], ready: Callable[[], None], stop: asyncio.Event) -> None:
    """Serves on `sockets`, which are closed in the end, and so is `pages`."""
    runner = web.AppRunner(
        pages.application(), access_log=None, keepalive_timeout=_KEEP_ALIVE, shutdown_timeout=_END, handle_signals=False
    )
    await runner.setup()
    try:
        for sock in sockets:
            await web.SockSite(runner, sock).start()
        ready()
        await stop.wait()
    finally:
        await runner.cleanup()
        await pages.close()
