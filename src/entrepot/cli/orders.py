"""What a child and the supervisor say to each other while the child works.

The supervisor's later lines are a changed configuration; their end is the end of the work. The child's are its pulse.
"""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Final

from entrepot.cli.brief import leaves, reloaded
from entrepot.config.model import Config
from entrepot.errors import EntrepotError
from entrepot.pulse import beat
from entrepot.tasks import spawn

_LONGEST: Final = 1 << 22  # bytes of a line


def _stays() -> None:
    """Most children do nothing else before they are told to stop."""


async def follow_orders(
    stop: asyncio.Event,
    reconfigure: Callable[[Config], None],
    log: logging.Logger,
    leave: Callable[[], None] = _stays,
) -> None:
    """Reads until the supervisor is gone, and sets `stop` then. What `reconfigure` refuses changes nothing.

    `leave` is called when the box is going to stop.
    Meanwhile it shows that the loop turns.
    """
    reader = asyncio.StreamReader(limit=_LONGEST)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    beating = spawn(beat(), name="pulse")
    try:
        while line := await reader.readline():
            if leaves(line):
                leave()
                continue
            try:
                if (config := reloaded(line)) is not None:
                    reconfigure(config)
                    log.info("configuration reloaded")
            except EntrepotError as refusal:
                log.error("configuration not reloaded: %s", refusal)
        stop.set()
    finally:
        beating.cancel()
        transport.close()
