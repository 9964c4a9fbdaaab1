"""Background tasks that are named, referenced and heard when they fail.

`asyncio.create_task` keeps only a weak reference and a failure nobody awaits is reported at garbage
collection, if at all; the linter bans it in favour of `spawn`.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

_log = logging.getLogger("entrepot.tasks")
_running: set[asyncio.Task[Any]] = set()


async def in_thread[**Args, Result](work: Callable[Args, Result], *args: Args.args, **kwargs: Args.kwargs) -> Result:
    """What `work` gives, done in a thread. Cancelled, it ends only when `work` has: what that uses may go then.

    For work that takes milliseconds.
    """
    running = asyncio.get_running_loop().run_in_executor(None, functools.partial(work, *args, **kwargs))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        running.exception()  # seen: it came too late to matter
        raise


def spawn[T](coro: Coroutine[object, object, T], *, name: str, quiet: bool = False) -> asyncio.Task[T]:
    """Runs `coro` in the background of the running loop; a failure is logged with the task's name.

    `quiet` leaves failures to those who await the task.
    """
    task = asyncio.get_running_loop().create_task(coro, name=name)
    _running.add(task)
    task.add_done_callback(_forget if quiet else _done)
    return task


def _forget(task: asyncio.Task[object]) -> None:
    _running.discard(task)
    if not task.cancelled():
        task.exception()  # marks it as seen: whoever awaited the task has it


def _done(task: asyncio.Task[object]) -> None:
    _running.discard(task)
    if not task.cancelled() and (failure := task.exception()) is not None:
        _log.error("task %s failed", task.get_name(), exc_info=failure)
