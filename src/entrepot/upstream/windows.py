"""The rest of a large blob as several ranges at once, given out in order.

Windows of the blob are fetched side by side, nearest first, and read one after the other, so that what is written
stays a prefix of the blob and a crash loses at most what is in memory. The number of windows grows as long as that
makes the whole faster, and the attempt ends when two are no faster than one, or when upstream does not give exactly
what was asked: then `chunks` ends early, and whoever reads it goes on with one connection.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

from entrepot.errors import EntrepotError
from entrepot.tasks import spawn
from entrepot.upstream.errors import UpstreamError
from entrepot.upstream.lanes import Lanes
from entrepot.upstream.source import Opened, Source

_log = logging.getLogger("entrepot.transfer")
WINDOW: Final = 8 << 20  # bytes
FIRST_WIDTH: Final = 2  # windows at once to begin with
MAX_WIDTH: Final = 6
GAIN: Final = 1.15  # times the speed that a further window must bring
TRIES: Final = 2  # fetches of a window in a row that bring no byte


class Window:
    """Bytes `start` to `stop`: what has come of them and has not been read."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.at = start  # up to here it has come
        self.pieces: deque[bytes] = deque()
        self.over = False  # nothing more will come
        self._changed = asyncio.Event()

    def put(self, piece: bytes) -> None:
        self.at += len(piece)
        self.pieces.append(piece)
        self._changed.set()

    def end(self) -> None:
        self.over = True
        self._changed.set()

    @property
    def complete(self) -> bool:
        return self.at >= self.stop

    async def read(self) -> AsyncIterator[bytes]:
        """What comes, until it is complete or nothing more will."""
        while True:
            while self.pieces:
                yield self.pieces.popleft()
            if self.over or self.complete:
                return
            self._changed.clear()
            await self._changed.wait()


class Windows:
    """Bytes `start` to `total` of one blob. Used once, as an async context manager."""

    def __init__(
        self, source: Source, start: int, total: int, lanes: Lanes, *, rate: float, clock: Callable[[], float]
    ) -> None:
        """`rate`: bytes per second of the one connection that was not enough; `clock` in seconds."""
        self.start = start
        self._source, self._total, self._lanes, self._clock = source, total, lanes, clock
        self._next = start
        self._width, self._growing, self._over = FIRST_WIDTH, True, False
        self._alone = self._best = rate
        self._since, self._used = clock(), 0
        self._queue: deque[Window] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Windows":
        self._top_up()
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._queue:
            self._queue.popleft()
            self._lanes.give_window(self._source.name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes in order; ends before `total` when it is better to go on otherwise. Raises nothing of its own."""
        self._since = self._clock()
        while self._queue:
            window = self._queue[0]
            async for piece in window.read():
                self._used += len(piece)
                yield piece
            if not window.complete:
                return
            self._queue.popleft()
            self._lanes.give_window(self._source.name)
            self._judge()
            self._top_up()

    def _judge(self) -> None:
        """After as many windows as are fetched at once: were they worth it?"""
        if not self._growing or self._used < self._width * WINDOW:
            return
        now = self._clock()
        rate = self._used / max(now - self._since, 1e-6)
        self._since, self._used = now, 0
        if rate >= self._best * GAIN:
            self._best, self._width = rate, min(self._width + 1, MAX_WIDTH)
            return
        self._growing = False
        if self._best <= self._alone:
            self._over = True  # what is under way is still read
            _log.debug("%s: ranges side by side are no faster than one connection", self._source.name)

    def _top_up(self) -> None:
        # One more than is fetched at once: the next is on its way while the first is read.
        while not self._over and self._next < self._total and len(self._queue) <= self._width:
            if not self._lanes.take_window(self._source.name, needed=not self._queue):
                return
            window = Window(self._next, min(self._next + WINDOW, self._total))
            self._next = window.stop
            self._queue.append(window)
            task = spawn(self._bring(window), name=f"range {window.start}-{window.stop}")
            if not task.done():
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _bring(self, window: Window) -> None:
        """Fetches a window, over several answers if they break; on anything else the windows are over."""
        empty = 0
        try:
            while not window.complete and empty < TRIES:
                before = window.at
                try:
                    async with self._source.open(window.at, window.stop) as opened:
                        if not self._is_asked(opened, window):
                            return
                        await _take(opened, window)
                except UpstreamError as e:
                    _log.debug("%s: range from byte %d: %s", self._source.name, window.at, e)
                empty = empty + 1 if window.at == before else 0
        except EntrepotError as e:  # refused: whoever goes on with one connection will hear it
            _log.debug("%s: range from byte %d: %s", self._source.name, window.at, e)
        finally:
            self._over = self._over or not window.complete
            window.end()

    def _is_asked(self, opened: Opened, window: Window) -> bool:
        if (opened.start, opened.total) == (window.at, self._total):
            return True
        _log.warning(
            "%s: asked for bytes %d-%d it answers from byte %d of %s: going on with one connection",
            self._source.name,
            window.at,
            window.stop - 1,
            opened.start,
            opened.total,
        )
        return False


async def _take(opened: Opened, window: Window) -> None:
    async for piece in opened.chunks:
        wanted = piece[: window.stop - window.at]
        if wanted:
            window.put(bytes(wanted))  # no copy if it is bytes, which a range with an end is
