"""Is the cache well? A TLS connection to a proxy worker, as a client would open one, every two seconds.

Decides what well means: the handshake completes, with a certificate for a registry's name that our own CA vouches for.
It needs no upstream. Three failures in a row are sick, one success is well; it begins well, since the listening sockets
are open before any worker is, and what waits there is served.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from entrepot.certs import files

_log: Final = logging.getLogger("entrepot.probe")

INTERVAL: Final = 2.0  # seconds
TIMEOUT: Final = 2.0  # seconds
FAILURES: Final = 3


class Health:
    """The verdict over a row of probes."""

    def __init__(self) -> None:
        self._failures = 0

    def note(self, *, well: bool) -> None:
        """One more probe."""
        self._failures = 0 if well else self._failures + 1

    def __call__(self) -> bool:
        """True = well."""
        return self._failures < FAILURES


def trust(certs: Path) -> ssl.SSLContext:
    """What clients trust of the CA in `certs`, before and after a rotation. Raises `OSError`, `ssl.SSLError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certs / "current" / files.ROOT)
    with suppress(FileNotFoundError):
        context.load_verify_locations(certs / "previous" / files.ROOT)
    return context


async def handshake(address: str, port: int, name: str, certs: Path) -> float:
    """Opens a connection for `name` and closes it. Raises `OSError` (`ssl.SSLError`, `TimeoutError`).

    Returns until when (epoch seconds) the certificate counts that was shown.
    """
    async with asyncio.timeout(TIMEOUT):
        _, writer = await asyncio.open_connection(address, port, ssl=trust(certs), server_hostname=name)
    shown = writer.get_extra_info("peercert")
    writer.transport.abort()  # nothing was sent, nothing is lost; a polite end would wait for the worker
    return float(ssl.cert_time_to_seconds(shown["notAfter"]))


async def watch(
    health: Health,
    probe: Callable[[], Awaitable[None]],
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Probes for ever."""
    while True:
        try:
            await probe()
        except OSError as failure:
            _log.debug("probe failed: %s", failure or type(failure).__name__)
            health.note(well=False)
        else:
            health.note(well=True)
        await pause(INTERVAL)
