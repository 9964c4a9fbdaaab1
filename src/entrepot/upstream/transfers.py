"""One fetch: at most one transfer per digest in this process; over all processes the store's claim sees to it.

Wrong bytes are thrown away whole and fetched once more from the start; who was reading along has been closed short.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

from entrepot.cache.interface import BlobStore, DigestMismatch
from entrepot.registry.digests import Digest
from entrepot.tasks import spawn
from entrepot.upstream.lanes import Lanes
from entrepot.upstream.remote import Remote
from entrepot.upstream.source import Effort, Source
from entrepot.upstream.transfer import Transfer

_log = logging.getLogger("entrepot.transfer")
ATTEMPTS: Final = 2  # fetches from the start when the bytes are wrong; the second may come by another way
CONNECTIONS: Final = 4  # to one registry, by default


class Transfers:
    """The transfers of this process, by digest."""

    def __init__(
        self,
        store: BlobStore,
        *,
        connections: int = CONNECTIONS,
        on_end: Callable[[Transfer], None] = lambda transfer: None,
        clock: Callable[[], float] = time.monotonic,
        remote: Remote | None = None,
    ) -> None:
        """`connections`: at most so many bring blobs from one registry at once, but for one of each transfer.

        `remote`: the process that fetches; without it, or while it is away, this one does. `on_end` is told of every
        transfer when it is over. `clock` in seconds, never backwards.
        """
        self.effort = Effort()
        self._store, self._on_end, self._clock = store, on_end, clock
        self._lanes = Lanes(connections)
        self._remote = remote
        self._running: dict[Digest, tuple[Transfer, asyncio.Task[None]]] = {}

    def running(self, digest: Digest) -> Transfer | None:
        entry = self._running.get(digest)
        return entry[0] if entry else None

    def join(
        self, digest: Digest, source: Source, size: int | None, others: Sequence[Source] = ()
    ) -> tuple[Transfer, bool]:
        """The transfer of `digest`, and whether it was started by this call (then with `source`).

        `others`: what it goes on with if that is refused. `size` in bytes, if a manifest says. The caller has been
        admitted to the blob, or is about to be by the transfer's first answer; a joiner of a running transfer must have
        been admitted on its own.
        """
        if (running := self.running(digest)) is not None:
            return running, False  # its size stays what the one who started it knew: another's manifest may lie
        return self._start(digest, source, size, 1, others), True

    def _start(
        self, digest: Digest, source: Source, size: int | None, attempt: int, others: Sequence[Source] = ()
    ) -> Transfer:
        transfer = Transfer(
            self._store,
            digest,
            source,
            size,
            lanes=self._lanes,
            effort=lambda: self.effort,
            clock=self._clock,
            remote=self._remote,
        )
        for one in others:
            transfer.offer(one)
        task = spawn(self._run(transfer, source, attempt), name=f"transfer {digest}")
        if not task.done():  # tasks may start eagerly: one that never waits is over already
            self._running[digest] = transfer, task
        return transfer

    async def _run(self, transfer: Transfer, source: Source, attempt: int) -> None:
        try:
            await transfer.run()
        finally:
            self._running.pop(transfer.digest, None)
            self._on_end(transfer)
        if isinstance(transfer.error, DigestMismatch):
            again = attempt < ATTEMPTS
            _log.error(
                "wrong bytes registry=%s digest=%s size=%s received=%d try=%d: %s; nothing is kept, %s",
                source.name,
                transfer.digest,
                transfer.size,
                transfer.received,
                attempt,
                transfer.error,
                "fetching it once more from the start" if again else "giving up until somebody asks again",
            )
            if again and self.running(transfer.digest) is None:
                self._start(transfer.digest, source, None, attempt + 1)

    async def ask(self, source: Source) -> None:
        """Whether upstream gives it, asked by whoever fetches, who takes no byte. Raises what it refuses with."""
        if self._remote is None or not await self._remote.ask(source.describe()):
            async with source.open(0):
                pass

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Lets what is verified be committed and breaks off the rest; its parts stay for next time."""
        entries = list(self._running.values())
        for transfer, task in entries:
            if not transfer.verified:
                task.cancel()
        await asyncio.gather(*(task for _, task in entries), return_exceptions=True)
