"""One fetch: at most one upstream transfer per digest, over all clients, connections and worker processes.

A `Transfer` fills a part of the store and lets any number of waiters read it while it grows, each at its own pace.
Who writes is decided by the store's claim (an flock): the process that holds it fetches, the others follow its file,
and take over from its last byte when it dies. A transfer belongs to nobody's connection: it goes on when the client
that caused it has gone.

1. The last byte of a growing blob is withheld until its digest is verified, so that a body with a wrong byte
   never ends clean (DESIGN rule 1).
2. A transfer that breaks is resumed with `Range` from the last byte on disk, out of sight of the waiters (rule 2);
   every attempt that brings bytes renews the patience.
3. Room is reserved before the first byte; without room (`NoRoom`, `TooLarge`) the transfer ends and whoever wanted the
   blob is served past the store (rule 10).
4. Wrong bytes are thrown away whole and fetched once more from the start; who was reading along has been closed short.
5. Whose credentials are used and who may read is decided by those who call; so is what a refusal means.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from entrepot.cache.interface import BlobReader, BlobStore, DigestMismatch, Part, StoreError, TooLarge
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.tasks import spawn
from entrepot.upstream.errors import UpstreamError

_log = logging.getLogger("entrepot.transfer")
FOLLOW_INTERVAL: Final = 0.02  # seconds between looks at a part that another process writes
WRITE_BATCH: Final = 1 << 20  # bytes handed to the disk thread at once, at most
BACK_OFF: Final = (0.0, 0.2, 1.0, 3.0, 5.0)  # seconds before each further attempt that follows one without a byte
ATTEMPTS: Final = 2  # fetches from the start when the bytes are wrong; the second may come by another way
UNOPENED_TRIES: Final = 2  # as long as no client has an answer yet, a quick error serves it better


class TransferError(EntrepotError):
    """The transfer ended without the blob; what was read so far must not be ended clean."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An upstream answer that carries bytes of the blob from `start` on."""

    start: int  # 0 when upstream ignored the range
    total: int | None  # size of the whole blob in bytes, None when upstream does not say
    chunks: AsyncIterator[bytes]  # raises UpstreamError while iterating when the body breaks


class Source(Protocol):
    """Where the bytes come from: one registry, repository and credential."""

    @property
    def name(self) -> str:
        """The registry, for the log."""

    async def open(self, offset: int) -> Opened:
        """Asks upstream for the bytes from `offset` on.

        Raises `UpstreamError` when upstream is at fault (the transfer tries again) and any other `EntrepotError` when
        upstream refuses (the transfer ends with it).
        """

    async def close(self) -> None:
        """Ends the answer that `open` gave, whatever state it is in."""


class Transfer:
    """One digest on its way into the store. Made by `Transfers.join`, never directly."""

    def __init__(self, store: BlobStore, digest: Digest, source: Source, size: int | None) -> None:
        self.digest = digest
        self.size = size  # bytes; None until somebody knows
        self.available = 0  # bytes that waiters may have
        self.received = 0  # bytes taken from upstream; less than the size if it was resumed or followed
        self.verified = False
        self.error: EntrepotError | None = None
        self._store, self._source = store, source
        self._reader: BlobReader | None = None
        self._progress = asyncio.Event()

    @property
    def reader(self) -> BlobReader:
        """Reads up to `available`; there as soon as `opened` has returned."""
        if self._reader is None:
            raise RuntimeError("wait for opened() first")
        return self._reader

    async def opened(self) -> None:
        """Returns when bytes are sure to come and `size` is known if it ever will be before the end.

        Raises what ended the transfer: the upstream's refusal, `UpstreamError`, `StoreError`, `TransferError`.
        """
        while self._reader is None:
            if self.error is not None:
                raise self.error
            await self._progress.wait()

    async def wait(self, offset: int) -> bool:
        """Returns True once the byte at `offset` may be read, False when the blob ends before it.

        Raises what ended the transfer.
        """
        while self.available <= offset:
            if self.error is not None:
                raise self.error
            if self.verified:
                return False
            await self._progress.wait()
        return True

    async def ended(self) -> None:
        """Returns when all bytes are here and verified; raises what ended the transfer."""
        while not self.verified:
            if self.error is not None:
                raise self.error
            await self._progress.wait()

    async def run(self) -> None:
        """Fetches or follows until the blob is committed or all is lost."""
        try:
            while not self._adopt():
                if (part := self._store.claim(self.digest)) is not None:
                    await self._fill(part)
                    return
                await self._follow()
        except EntrepotError as e:
            self.error = e
        except BaseException as e:
            self.error = TransferError(f"{self.digest}: transfer ended: {type(e).__name__}")
            raise
        finally:
            await self._source.close()
            self._notify()

    def _notify(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def _adopt(self) -> bool:
        """True when the blob is committed: from now on it is read from there."""
        if (held := self._store.open(self.digest)) is None:
            return False
        self.size, self._reader = held
        self.available, self.verified = self.size, True
        self._notify()
        return True

    async def _follow(self) -> None:
        """Reads along with the process that writes, until it has committed or is gone."""
        while (followed := self._store.follow(self.digest)) is not None:
            written, size, reader = followed
            if size is not None:
                self.size = size
            if self._reader is None and size is not None:
                self._reader = reader
            else:
                reader.close()
            self.available = max(self.available, written - 1)
            self._notify()
            await asyncio.sleep(FOLLOW_INTERVAL)

    async def _fill(self, part: Part) -> None:
        try:
            await asyncio.to_thread(part.load)
            await self._fetch(part)
            await asyncio.to_thread(part.verify)
        except BaseException as e:
            keep = part.offset > 0 and not isinstance(e, DigestMismatch | TooLarge)  # the bytes are good for next time
            await asyncio.shield(asyncio.to_thread(part.release if keep else part.discard))
            raise
        self.size = self.available = part.offset
        self.verified = True
        self._notify()  # waiters need not wait for the disk to settle
        try:
            await asyncio.to_thread(part.commit)
        except StoreError:
            await asyncio.to_thread(part.discard)  # everybody has been served; it is fetched again next time
            raise

    async def _fetch(self, part: Part) -> None:
        failures = 0
        while True:
            before, broken = part.offset, None
            try:
                opened = await self._source.open(part.offset)
                await self._announce(part, opened)
                async for batch in _batches(_from(opened, part.offset)):
                    await asyncio.to_thread(part.write, batch)
                    self._advance(part, len(batch))
                if self.size is None or part.offset >= self.size:
                    break
            except UpstreamError as e:
                broken = e
            finally:
                await self._source.close()
            failures = 0 if part.offset > before else failures + 1
            if failures >= (len(BACK_OFF) if self._reader else UNOPENED_TRIES):
                raise broken or TransferError(f"{self.digest}: upstream ends after {part.offset} of {self.size} bytes")
            await asyncio.sleep(BACK_OFF[failures])
        if self.size is not None and part.offset > self.size:
            raise DigestMismatch(self.digest, f"more than the {self.size} bytes announced", part.offset)

    async def _announce(self, part: Part, opened: Opened) -> None:
        if opened.total is not None:
            if self.size is not None and opened.total != self.size:
                # A manifest or an earlier answer said otherwise: the bytes cannot be these.
                raise DigestMismatch(self.digest, f"{opened.total} bytes announced instead of {self.size}", 0)
            self.size = opened.total
        if self._reader is None:
            if self.size is not None:
                await asyncio.to_thread(part.reserve, self.size)
                self._store.announce(self.digest, self.size)
            self._reader = part.reader()
            self.available = max(0, part.offset - 1)
            self._notify()

    def _advance(self, part: Part, received: int) -> None:
        self.received += received
        self.available = max(self.available, part.offset - 1)
        self._notify()


async def _from(opened: Opened, offset: int) -> AsyncIterator[bytes]:
    """The bytes from `offset` on, also from an upstream that starts earlier (it ignored `Range`)."""
    skip = offset - opened.start
    if skip < 0:
        raise StoreError(f"upstream answered from byte {opened.start} on instead of {offset}")
    async for chunk in opened.chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
        elif chunk:
            yield chunk[skip:] if skip else chunk
            skip = 0


async def _batches(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Chunks as they come, larger ones cut so that one write does not hold up the waiters."""
    async for chunk in chunks:
        for at in range(0, len(chunk), WRITE_BATCH):
            yield chunk[at : at + WRITE_BATCH] if len(chunk) > WRITE_BATCH else chunk


class Transfers:
    """The transfers of this process, by digest."""

    def __init__(self, store: BlobStore, *, on_end: Callable[[Transfer], None] = lambda transfer: None) -> None:
        self._store = store
        self._on_end = on_end
        self._running: dict[Digest, tuple[Transfer, asyncio.Task[None]]] = {}

    def running(self, digest: Digest) -> Transfer | None:
        entry = self._running.get(digest)
        return entry[0] if entry else None

    def join(self, digest: Digest, source: Source, size: int | None) -> tuple[Transfer, bool]:
        """The transfer of `digest`, and whether it was started by this call (then with `source`).

        `size` in bytes, if a manifest says. The caller has been admitted to the blob, or is about to be by the
        transfer's first answer; a joiner of a running transfer must have been admitted on its own.
        """
        if (running := self.running(digest)) is not None:
            return running, False  # its size stays what the one who started it knew: another's manifest may lie
        return self._start(digest, source, size, 1), True

    def _start(self, digest: Digest, source: Source, size: int | None, attempt: int) -> Transfer:
        transfer = Transfer(self._store, digest, source, size)
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

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Lets what is verified be committed and breaks off the rest; its parts stay for next time."""
        entries = list(self._running.values())
        for transfer, task in entries:
            if not transfer.verified:
                task.cancel()
        await asyncio.gather(*(task for _, task in entries), return_exceptions=True)
