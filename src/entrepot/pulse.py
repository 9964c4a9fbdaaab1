"""A sign of life for the supervisor: a line on standard output, as long as the event loop turns.

Whoever is stopped, or whose loop is blocked, says nothing. What that means is the supervisor's to decide.
"""

import asyncio
import os
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

INTERVAL: Final = 1.0  # seconds
LINE: Final = b"alive"
_STDOUT: Final = 1


def say(descriptor: int) -> None:
    """Says so, unless nobody has listened for so long that the pipe is full: that must not stop us."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    with suppress(OSError):  # the supervisor is gone; our input tells that
        if poll.poll(0):
            os.write(descriptor, LINE + b"\n")


async def beat(descriptor: int = _STDOUT, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
    """Says so again and again, for ever."""
    while True:
        await pause(INTERVAL)
        say(descriptor)
