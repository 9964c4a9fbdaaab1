"""A long body taken straight off its socket: the connection leaves aiohttp once the head of the answer has been read.

aiohttp and asyncio copy every byte five times between the socket and us. Here a byte is decrypted into the buffer that
is hashed and written. `docs/decisions/0004-upstream-http-client.md` has the figures.

Decides how bytes get off a connection. What the body means, and when it is worth it, is `response`'s.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol, override

import aiohttp

PIECE: Final = 2 << 20
"""Bytes of one piece, at most: handing it to a thread costs as much as hashing a third of a MiB."""

FIRST_PIECE: Final = 128 << 10
"""Bytes of the first piece, at most; each is twice as large as the one before, so that nobody waits for the first."""

RECEIVED: Final = 128 << 10
"""Bytes taken off the socket at once, before they are decrypted."""

SPARE: Final = 4
"""Buffers kept for the next piece."""


class _Tls(Protocol):
    """What of asyncio's TLS protocol is used; the names are the same from Python 3.11 to 3.14."""

    _incoming: ssl.MemoryBIO
    _outgoing: ssl.MemoryBIO
    _sslobj: ssl.SSLObject
    _transport: asyncio.Transport
    _ssl_reading_paused: bool


class Bulks:
    """What the bodies of one client share: their end, and buffers that are used again.

    Fresh memory costs a page fault for each 4 KiB.
    """

    def __init__(self) -> None:
        self._spare: list[bytearray] = []
        self._reading: set[socket.socket] = set()

    def close(self) -> None:
        """All bodies break off."""
        for sock in self._reading:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def reading(self, sock: socket.socket) -> Iterator[None]:
        """As long as the block lasts `close` ends what comes over `sock`; afterwards it is closed."""
        self._reading.add(sock)
        try:
            yield
        finally:
            self._reading.discard(sock)
            sock.close()

    @contextmanager
    def one(self) -> Iterator[bytearray]:
        """A buffer with anything in it."""
        buffer = self._spare.pop() if self._spare else bytearray(PIECE)
        try:
            yield buffer
        finally:
            if len(self._spare) < SPARE:
                self._spare.append(buffer)


class _Plain:
    """Bytes as they come off the socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.over = False  # upstream has ended it

    def fill(self, view: memoryview) -> int:
        """Puts what is there into `view`, as far as it goes; how many bytes that was."""
        count = 0
        while count < len(view) and (got := self._receive(view[count:])):
            count += got
        return count

    def _receive(self, view: memoryview) -> int:
        """0 when nothing is there, also at the end."""
        try:
            got = self._socket.recv_into(view)
        except (BlockingIOError, InterruptedError):
            return 0
        self.over = self.over or not got
        return got


class _Encrypted(_Plain):
    """Bytes through the TLS session that asyncio has set up."""

    def __init__(self, sock: socket.socket, tls: _Tls) -> None:
        super().__init__(sock)
        self._tls, self._raw = tls, memoryview(bytearray(RECEIVED))

    @override
    def fill(self, view: memoryview) -> int:
        count = self._decrypt(view)
        while count < len(view) and not self.over and (got := self._receive(self._raw)):
            self._tls._incoming.write(self._raw[:got])
            count += self._decrypt(view[count:])
        return count

    def _decrypt(self, view: memoryview) -> int:
        read, count, room = self._tls._sslobj.read, 0, len(view)
        try:
            while count < room:
                got = int(read(room - count, view[count:]))  # a record at most
                if not got:
                    self.over = True
                    break
                count += got
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.over = True
        if self._tls._outgoing.pending:  # the answer to a key update
            with suppress(BlockingIOError):
                self._socket.send(self._tls._outgoing.read())
        return count


class Bulk:
    """The rest of one body, `length` bytes, from a connection that nobody else reads any more."""

    def __init__(self, sock: socket.socket, tls: _Tls | None, length: int, shared: Bulks) -> None:
        """`sock` does not block and is closed at the end of `pieces`."""
        self._socket, self._left, self._shared = sock, length, shared
        self._wire = _Plain(sock) if tls is None else _Encrypted(sock, tls)

    async def pieces(self, timeout: float) -> AsyncGenerator[memoryview]:
        """The bytes as they come; each piece is valid until the next is asked for. Ends early when upstream does.

        Raises TimeoutError when nothing comes for `timeout` seconds, OSError when the connection breaks.
        """
        with self._shared.reading(self._socket):
            room = FIRST_PIECE
            while self._left:
                with self._shared.one() as buffer:
                    view = memoryview(buffer)[: min(room, self._left)]
                    count = self._wire.fill(view)
                    self._left -= count
                    if count:
                        yield view[:count]
                        room = min(2 * room, PIECE)
                if self._wire.over:
                    return
                if not count:
                    async with asyncio.timeout(timeout):
                        await self._readable()

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._socket, lambda: None if ready.done() else ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(self._socket)


def take_over(raw: aiohttp.ClientResponse, length: int, shared: Bulks) -> Bulk | None:
    """The rest of the body of `raw`, of which aiohttp has nothing left; None if its connection is of another kind.

    From now on the connection is good for nothing else. To be called right after `content.read_nowait` gave nothing:
    until the next await nothing more can have come.
    """
    connection = raw.connection
    transport = None if connection is None else connection.transport
    if connection is None or transport is None or connection.protocol is None:
        return None
    tls: _Tls | None = getattr(transport, "_ssl_protocol", None)
    if tls is None and transport.get_extra_info("sslcontext") is not None:
        return None
    connection.protocol.force_close()
    connection.protocol.pause_reading()  # with it the timer: stalls are noticed by us
    if tls is not None:
        tls._transport.pause_reading()
        tls._ssl_reading_paused = False  # or what asyncio still has on its list would start it again
    fd = transport.get_extra_info("socket").fileno()
    # Its own descriptor: asyncio guards those of its transports.
    sock = socket.socket(fileno=socket.dup(fd))
    sock.setblocking(False)
    return Bulk(sock, tls, length, shared)
