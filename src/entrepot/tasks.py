"""Background tasks that are named, referenced and heard when they fail.

`asyncio.create_task` keeps only a weak reference and a failure nobody awaits is reported at garbage
collection, if at all; the linter bans it in favour of `spawn`.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger("entrepot.tasks")
_running: set[asyncio.Task[Any]] = set()


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
