"""The supervisor's later lines, as a child takes them: a changed configuration; their end is the end of the work."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from entrepot.cli.brief import reloaded
from entrepot.config.model import Config
from entrepot.errors import EntrepotError

_LONGEST: Final = 1 << 22  # bytes of a line


async def follow_orders(stop: asyncio.Event, reconfigure: Callable[[Config], None], log: logging.Logger) -> None:
    """Reads until the supervisor is gone, and sets `stop` then. What `reconfigure` refuses changes nothing."""
    reader = asyncio.StreamReader(limit=_LONGEST)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    try:
        while line := await reader.readline():
            try:
                if (config := reloaded(line)) is not None:
                    reconfigure(config)
                    log.info("configuration reloaded")
            except EntrepotError as refusal:
                log.error("configuration not reloaded: %s", refusal)
        stop.set()
    finally:
        transport.close()
