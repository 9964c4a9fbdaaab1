"""The web process: the configuration, in the terms of `entrepot.web`."""

import asyncio
import logging
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, cast

from entrepot import __version__
from entrepot.cache.space import Limits
from entrepot.cli import outages
from entrepot.cli.brief import Brief
from entrepot.cli.networks import allowed
from entrepot.cli.orders import follow_orders
from entrepot.cli.probe import handshake
from entrepot.config.model import Config
from entrepot.config.overrides import catalogue
from entrepot.tasks import spawn
from entrepot.web.guard import own_names
from entrepot.web.pages import Pages
from entrepot.web.server import serve as serve_pages
from entrepot.web.settings import Audience, WebSettings

_log: Final = logging.getLogger("entrepot.web")
RESOLV_CONF: Final = Path("/etc/resolv.conf")
LOOK: Final = 30.0  # seconds for which the leaf that was seen last counts
FIRST: Final = (
    "quay.io",
    "ghcr.io",
    "registry-1.docker.io",
)  # what every CA of ours can sign for, unless told otherwise
TRIES: Final = 5  # names
AGAIN: Final = 3.0  # seconds for which it counts that none was seen


def web_settings(config: Config, leaf: Callable[[], Awaitable[float | None]]) -> WebSettings:
    """What the pages are told."""
    return WebSettings(
        version=__version__,
        store=config.store.path,
        certs=config.certs.path,
        limits=Limits(size=config.store.size, min_free=config.store.min_free),
        registries=tuple(registry.name for registry in catalogue(config).registries()),
        owners=lambda origins: outages.owners(origins, config),
        leaf=leaf,
        allow=allowed(config.web.allow),
        hosts=own_names(socket.gethostname(), _text(RESOLV_CONF)) | set(config.web.hosts),
        private_images=cast("Audience", config.web.private_images),
        dns_port=config.listen.dns,
        https_port=config.listen.https,
    )


class Leaf:
    """Until when the certificate counts that clients are shown: looked at as a client would, at most every so often."""

    def __init__(self, brief: Brief, clock: Callable[[], float] = time.monotonic) -> None:
        self._brief, self._clock = brief, clock
        self._seen: float | None = None
        self._until: float | None = None

    async def __call__(self) -> float | None:
        """Epoch seconds; None where nobody answers, or nothing is to."""
        if self._until is None or self._clock() >= self._until:
            self._seen = await self._look()
            self._until = self._clock() + (AGAIN if self._seen is None else LOOK)
        return self._seen

    async def _look(self) -> float | None:
        config, probe = self._brief.config, self._brief.probe
        if probe is None:
            return None
        known = catalogue(config).names()
        # The CA cannot sign for each name that has been configured since; which it can is not worth loading a key for.
        for name in [*(one for one in FIRST if one in known), *known][:TRIES]:
            try:
                return await handshake(*probe, name, config.certs.path)
            except ssl.SSLError:
                continue
            except OSError:
                return None
        return None


async def serve(brief: Brief) -> None:
    """Serves until told to stop; says `ready` when it does."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    leaf = Leaf(brief)
    pages = Pages(web_settings(brief.config, leaf))
    sockets = [socket.socket(fileno=descriptor) for descriptor in brief.sockets]
    orders = spawn(
        follow_orders(stop, lambda config: pages.reconfigure(web_settings(config, leaf)), _log), name="orders"
    )
    try:
        await serve_pages(pages, sockets, lambda: print("ready", flush=True), stop)
    finally:
        orders.cancel()
        await asyncio.gather(orders, return_exceptions=True)
        await asyncio.sleep(0)  # the transport of our orders closes on the next round


def run(brief: Brief) -> None:
    """Works until told to stop."""
    asyncio.run(serve(brief))


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
