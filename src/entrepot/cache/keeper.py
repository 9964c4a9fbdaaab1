"""The store's housekeeping while workers run.

Every process that serves from the store runs one `Keeper`: it notes the process's own uses, and the process that is
elected (an flock, asked for anew each round, so that it needs no health) makes headroom and sweeps. After a loss of
the ledger, or a start of the machine, one of them looks through the file tree, slowly, beside all else.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Final

from entrepot.cache import repair
from entrepot.cache.blobs import FileBlobs
from entrepot.cache.interface import StoreError

_log = logging.getLogger("entrepot.cache")
INTERVAL: Final = 5.0  # seconds between rounds; a use reaches the ledger after at most this
SWEEP_ROUNDS: Final = 60  # rounds between sweeps


class Keeper:
    """Housekeeping of one process; run it as long as the process serves, and cancel it."""

    def __init__(self, store: FileBlobs, *, interval: float = INTERVAL, pace: float = 1.0) -> None:
        """`pace`: how many times as long as a piece of the look through the tree takes, it rests afterwards."""
        self._store, self._interval, self._pace = store, interval, pace
        self._rounds = 0
        self._stop = threading.Event()

    async def run(self) -> None:
        """Until it is cancelled; then the last uses are noted."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._again(self.round), name="housekeeping")
                tasks.create_task(self._again(self.verify), name="look through the store")
        finally:
            self._stop.set()
            with contextlib.suppress(StoreError):
                self._store.space.flush()

    def round(self) -> None:
        """One round, for threads. Raises `StoreError`."""
        space = self._store.space
        self._rounds += 1
        space.flush()
        if freed := space.make_headroom():
            _log.info("evicted %d bytes", freed)
        space.evictor.recheck_held()
        if self._rounds % SWEEP_ROUNDS == 1:
            for leftover in repair.sweep(self._store, space.now()):
                _log.info("removed %s, %d bytes, left %.0f s ago", leftover.path.name, leftover.bytes, leftover.age)
        if space.has_room():
            self._store.ledger.restore_ballast()

    def verify(self) -> None:
        """Looks through the file tree if that is called for and no other process does, for threads."""
        ledger = self._store.ledger
        if not ledger.unsure():
            return
        pace = self._pace if ledger.sums().complete else 0.0  # until it is made again, little is admitted
        if (wrong := repair.verify(self._store, self._stop, pace=pace)) is not None:
            _log.info("looked through the store: %d entries of the ledger set right", wrong)

    async def _again(self, work: Callable[[], None]) -> None:
        while True:
            try:
                await asyncio.to_thread(work)
            except StoreError as e:
                _log.warning("housekeeping: %s", e)
            await asyncio.sleep(self._interval)
