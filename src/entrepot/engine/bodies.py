"""Bodies of answers: a range of a blob that is held, of one that is still growing, or of one that is far away."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine

from entrepot.cache.interface import BlobReader
from entrepot.tasks import spawn
from entrepot.upstream.errors import UpstreamError
from entrepot.upstream.transfer import Transfer


class HeldBody:
    """Bytes `start` to `stop` of a committed blob."""

    def __init__(self, reader: BlobReader, start: int, stop: int) -> None:
        self._reader, self._at, self._stop = reader, start, stop
        self.length: int | None = stop - start

    def read_now(self, buffer: memoryview) -> int:
        want = min(len(buffer), self._stop - self._at)
        if want == 0:
            return 0
        n = self._reader.read_now(self._at, buffer[:want])
        if n > 0:
            self._at += n
        return n

    async def read(self, buffer: memoryview) -> int:
        want = min(len(buffer), self._stop - self._at)
        if want == 0:
            return 0
        n = await asyncio.to_thread(self._reader.read, self._at, buffer[:want])
        self._at += n
        return n

    def close(self) -> None:
        self._reader.close()


class GrowingBody:
    """Bytes from `start` on, to `stop` or the end, of a blob on its way in."""

    def __init__(self, transfer: Transfer, start: int = 0, stop: int | None = None) -> None:
        self._transfer, self._at, self._stop = transfer, start, stop
        self._waits = True
        transfer.arrive()
        end = transfer.size if stop is None else stop
        self.length: int | None = None if end is None else end - start

    def read_now(self, buffer: memoryview) -> int:
        n = self._room(buffer)
        if n <= 0:
            return 0 if self._finished() else -1
        got = self._transfer.reader.read_now(self._at, buffer[:n])
        if got > 0:
            self._at += got
        return got if got else -1

    async def read(self, buffer: memoryview) -> int:
        if self._finished() or not await self._transfer.wait(self._at):
            return 0
        got = await asyncio.to_thread(self._transfer.reader.read, self._at, buffer[: self._room(buffer)])
        self._at += got
        return got

    def close(self) -> None:
        """The transfer's reader is shared by all waiters and closes with the last of them."""
        if self._waits:
            self._waits = False
            self._transfer.leave()

    def _room(self, buffer: memoryview) -> int:
        end = self._transfer.available
        if self._stop is not None:
            end = min(end, self._stop)
        return min(len(buffer), end - self._at)

    def _finished(self) -> bool:
        if self._stop is not None and self._at >= self._stop:
            return True
        return self._transfer.verified and self._at >= self._transfer.available


class PassingBody:
    """Bytes on their way from upstream to this client only."""

    def __init__(
        self, chunks: AsyncIterator[bytes], close: Callable[[], Coroutine[object, object, None]], length: int | None
    ) -> None:
        self._chunks, self._close = chunks, close
        self._piece = memoryview(b"")
        self._ended = False
        self.length = length

    def read_now(self, buffer: memoryview) -> int:
        if not self._piece:
            return 0 if self._ended else -1
        n = min(len(buffer), len(self._piece))
        buffer[:n] = self._piece[:n]
        self._piece = self._piece[n:]
        return n

    async def read(self, buffer: memoryview) -> int:
        while (n := self.read_now(buffer)) < 0:
            try:
                self._piece = memoryview(await anext(self._chunks))
            except StopAsyncIteration:
                self._ended = True
        return n

    def close(self) -> None:
        spawn(self._close(), name="close exchange")


class DistantBody:
    """Bytes `start` to `stop` that the growing blob will not have for a while: from a request of their own.

    When that request breaks or ends short the rest comes from the transfer after all.
    """

    def __init__(self, transfer: Transfer, start: int, stop: int, direct: PassingBody) -> None:
        self._transfer, self._at, self._stop = transfer, start, stop
        self._direct = direct
        self._rest: GrowingBody | None = None
        self.length: int | None = stop - start

    def read_now(self, buffer: memoryview) -> int:
        if self._rest is not None:
            return self._rest.read_now(buffer)
        return self._took(self._direct.read_now(self._room(buffer)) if self._at < self._stop else 0)

    async def read(self, buffer: memoryview) -> int:
        if self._rest is None and self._at < self._stop:
            try:
                n = await self._direct.read(self._room(buffer))
            except UpstreamError:
                n = 0
            if n:
                return self._took(n)
            self._rest = GrowingBody(self._transfer, self._at, self._stop)
        return 0 if self._rest is None else await self._rest.read(buffer)

    def close(self) -> None:
        self._direct.close()
        if self._rest is not None:
            self._rest.close()

    def _room(self, buffer: memoryview) -> memoryview:
        return buffer[: self._stop - self._at]

    def _took(self, n: int) -> int:
        if n == 0 and self._at < self._stop:  # it ended short: `read` goes over to the transfer
            return -1
        self._at += max(n, 0)
        return n
