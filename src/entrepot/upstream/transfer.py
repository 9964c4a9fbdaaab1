"""One blob on its way into the store, for any number of waiters, each at its own pace.

Who writes is decided by the store's claim (an flock): the process that holds it fetches, the others follow its file,
and take over from its last byte when it dies. A transfer belongs to nobody's connection: it goes on when the client
that caused it has gone.

1. The last byte of a growing blob is withheld until its digest is verified, so that a body with a wrong byte
   never ends clean (DESIGN rule 1).
2. Room is reserved before the first byte; without room (`NoRoom`, `TooLarge`) the transfer ends and whoever wanted the
   blob is served past the store (rule 10).
3. What nobody has waited for in a while goes on only if a good part is in; what is there stays for next time.

How the bytes are fetched is `fetch`'s; which transfers there are is `transfers`'. Whose credentials are used and who
may read is decided by those who call; so is what a refusal means.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from entrepot.cache.interface import BlobReader, BlobStore, DigestMismatch, Part, StoreError, TooLarge
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.tasks import spawn
from entrepot.upstream.errors import InvalidResponse
from entrepot.upstream.fetch import Fetch, TransferError
from entrepot.upstream.lanes import Lanes
from entrepot.upstream.news import Document
from entrepot.upstream.remote import Line, Remote
from entrepot.upstream.source import Effort, Opened, Source

FOLLOW_INTERVAL: Final = 0.01  # seconds between looks at a part that another process writes
LINGER: Final = 10.0  # seconds that it goes on for nobody: clients come back after a broken connection
GOOD_PART: Final = 0.1  # of the blob; with so much in, it is worth the rest
MAX_SOURCES: Final = 4  # credentials kept in memory in case the first is refused half-way


class Transfer:
    """One digest on its way into the store. Made by `Transfers.join`, never directly."""

    def __init__(
        self,
        store: BlobStore,
        digest: Digest,
        source: Source,
        size: int | None,
        *,
        lanes: Lanes,
        effort: Callable[[], Effort],
        clock: Callable[[], float],
        remote: Remote | None,
    ) -> None:
        self.digest = digest
        self.size = self._told = size  # bytes; None until somebody knows
        self.available = 0  # bytes that waiters may have
        self.received = 0  # bytes taken from upstream; less than the size if it was resumed or followed
        self.verified = False
        self.error: EntrepotError | None = None
        self.over = asyncio.Event()  # nothing more is done for it: committed, or ended
        self.origin = source
        """What it was started with."""
        self.began = clock()
        self._store, self._sources = store, [source]
        self._lanes, self._effort, self._clock = lanes, effort, clock
        self._remote = remote
        self._line: Line | None = None  # while the fetching process brings it
        self._part: Part | None = None  # while this process fills it
        self._reserving: asyncio.Task[None] | None = None
        self._reader: BlobReader | None = None
        self._progress = asyncio.Event()
        self._waiters, self._alone_since = 0, clock()

    @property
    def reader(self) -> BlobReader:
        """Reads up to `available`; there as soon as `opened` has returned."""
        if self._reader is None:
            raise RuntimeError("wait for opened() first")
        return self._reader

    @property
    def is_open(self) -> bool:
        """Waiters have been promised bytes."""
        return self._reader is not None

    @property
    def is_wanted(self) -> bool:
        """Somebody waits, has just left, or so much is in that the rest is worth having."""
        if self._waiters or self._clock() - self._alone_since < LINGER:
            return True
        return self._effort().fill_alone and self.size is not None and self.available >= self.size * GOOD_PART

    def offer(self, source: Source) -> None:
        """Another credential that upstream has admitted to the blob, in case the one in use is refused half-way."""
        if len(self._sources) < MAX_SOURCES:
            self._sources.append(source)
            if self._line is not None:
                self._line.offer(source.describe())

    def arrive(self) -> None:
        """Somebody waits for its bytes, until `leave`."""
        self._waiters += 1
        if self._waiters == 1 and self._line is not None:
            self._line.waiting(True)

    def leave(self) -> None:
        self._waiters -= 1
        self._alone_since = self._clock()
        if not self._waiters and self._line is not None:
            self._line.waiting(False)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Somebody waits for as long as the block lasts."""
        self.arrive()
        try:
            yield
        finally:
            self.leave()

    async def opened(self) -> None:
        """Returns when bytes are sure to come and `size` is known if it ever will be before the end.

        Raises what ended the transfer: the upstream's refusal, `UpstreamError`, `StoreError`, `TransferError`.
        """
        with self.waiting():
            while self._reader is None:
                if self.error is not None:
                    raise self.error
                await self._progress.wait()

    async def wait(self, offset: int) -> bool:
        """Returns True once the byte at `offset` may be read, False when the blob ends before it.

        Raises what ended the transfer.
        """
        if self.available > offset:
            return True
        with self.waiting():
            return await self.watch(offset)

    async def watch(self, offset: int) -> bool:
        """The same for who looks on and does not want the bytes."""
        while self.available <= offset:
            if self.error is not None:
                raise self.error
            if self.verified:
                return False
            await self._progress.wait()
        return True

    async def ended(self) -> None:
        """Returns when all bytes are here and verified; raises what ended the transfer."""
        with self.waiting():
            while not self.verified:
                if self.error is not None:
                    raise self.error
                await self._progress.wait()

    async def run(self) -> None:
        """Fetches or follows until the blob is committed or all is lost."""
        try:
            while not self._adopt():
                while (fetched := await self._have_it_fetched()) is None:
                    pass  # the one who fetched has died: its successor goes on from the last byte on disk
                if fetched:
                    return
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
            self._sources.clear()
            self.over.set()
            self._notify()

    async def announced(self, opened: Opened) -> None:
        """Upstream has answered with bytes: waiters may have what comes. Raises `StoreError`."""
        if opened.total is not None:
            if opened.foreign and self.size is not None and opened.total != self.size:
                raise InvalidResponse(
                    self.origin.name, f"answered a resumption with {opened.total} bytes of another thing"
                )
            if self.size is not None and opened.total != self.size:
                # A manifest or an earlier answer said otherwise: the bytes cannot be these.
                raise DigestMismatch(self.digest, f"{opened.total} bytes announced instead of {self.size}", 0)
            self.size = opened.total
        if (part := self._part) is None or self._reader is not None:
            return
        if self.size is not None:
            await (self._reserving or asyncio.to_thread(part.reserve, self.size))
            self._store.announce(self.digest, self.size)
        self._take(part.reader())
        self.available = max(0, part.offset - 1)
        self._notify()

    def advanced(self, received: int) -> None:
        """So many more bytes are in the part."""
        self.received += received
        if self._part is not None:
            self.available = max(self.available, self._part.offset - 1)
        self._notify()

    def _notify(self) -> None:
        self._progress.set()
        self._progress = asyncio.Event()

    def _adopt(self) -> bool:
        """True when the blob is committed: from now on it is read from there."""
        if (held := self._store.open(self.digest)) is None:
            return False
        size, reader = held
        self._take(reader)
        self.size = self.available = size
        self.verified = True
        self._notify()
        return True

    async def _have_it_fetched(self) -> bool | None:
        """By another process: True at the end, False if there is none, None if it died. Raises what ended it there."""
        if self._remote is None:
            return False
        sources = self._sources
        async with self._remote.order(self.digest, self.size, lambda: [one.describe() for one in sources]) as line:
            if line is None:
                return False
            self._line = line
            if not self._waiters:
                line.waiting(False)
            try:
                async for news in line.news():  # the last one comes before the disk has settled, the end after
                    await self._learn(news, self._remote)
            finally:
                self._line = None
        return self.verified or None

    async def _learn(self, news: Document, remote: Remote) -> None:
        """Takes in what the fetching process tells. Raises what it says has ended the transfer."""
        match news:
            case {"opened": int() | None as size, "accepted": bool() as accepted}:
                self.size = size
                self.origin.accepted = self.origin.accepted or accepted
                self._read_along(anew=True)
            case {"at": int(at)}:
                self.available = max(self.available, at)
            case {"done": int(size)}:
                await self._settled()
                self.size = self.available = size
                self.verified = True
            case {"failed": dict(failure)}:
                raise remote.failure(failure)
            case _:
                return
        self._read_along()
        self._notify()

    async def _settled(self) -> None:
        """Returns when there is something to read from: a small blob may be over before we could look."""
        while True:
            self._read_along()
            if self._reader is not None or self._adopt():
                return
            await asyncio.sleep(FOLLOW_INTERVAL)  # it is verified, and being made durable

    def _read_along(self, *, anew: bool = False) -> None:
        """Opens what another process writes, if it is there already."""
        if (anew or self._reader is None) and (followed := self._store.follow(self.digest)) is not None:
            self._take(followed[2])

    def _take(self, reader: BlobReader) -> None:
        """What is read from now on. Raises `TransferError` unless it goes on where waiters have read the beginning."""
        if self._reader is None:
            self._reader = reader
            return
        other = reader.identity != self._reader.identity
        reader.close()
        if other:
            raise TransferError(f"{self.digest}: what was read along has been thrown away")

    async def _follow(self) -> None:
        """Reads along with the process that writes, until it has committed or is gone."""
        while (followed := self._store.follow(self.digest)) is not None:
            written, size, reader = followed
            if size is not None:
                self.size = size
            if self._reader is not None or size is not None:
                self._take(reader)
            else:
                reader.close()
            self.available = max(self.available, written - 1)
            self._notify()
            await asyncio.sleep(FOLLOW_INTERVAL)
        if self._reader is None:
            self.size, self.available = self._told, 0  # what has gone was perhaps all wrong

    async def _fill(self, part: Part) -> None:
        self._part = part
        fetch = Fetch(part, self, self._sources, lanes=self._lanes, effort=self._effort(), clock=self._clock)
        try:
            if self._reader is not None:
                self._take(part.reader())
            if part.left:
                await asyncio.to_thread(part.load)
            if self.size is not None and self._reader is None:  # while upstream is being asked
                self._reserving = spawn(asyncio.to_thread(part.reserve, self.size), name="reserve", quiet=True)
            await fetch.run()
            await asyncio.to_thread(part.verify)
        except BaseException as e:
            if self._reserving is not None:
                await asyncio.wait([self._reserving])
            keep = part.left > 0 and not isinstance(e, DigestMismatch | TooLarge)  # the bytes are good for next time
            await asyncio.shield(asyncio.to_thread(part.release if keep else part.discard))
            raise
        finally:
            self._part = self._reserving = None
        self.size = self.available = part.offset
        self.verified = True
        self._notify()  # waiters need not wait for the disk to settle
        try:
            await asyncio.to_thread(part.commit)
        except StoreError:
            await asyncio.to_thread(part.discard)  # everybody has been served; it is fetched again next time
            raise
