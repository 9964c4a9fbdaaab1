"""Writes an answer straight into TLS and the transport, past mitmproxy's layers.

While the pull layer is paused in its hook nobody else writes to the client, so the pump may: it reads a piece, lets
OpenSSL encrypt it, and writes the records to the socket; what the socket does not take goes to the transport, which is
then waited for. One pair of buffers serves all pumps of a worker, because nothing is awaited between reading a piece
and handing it over; it stays in the processor's cache. A piece that has to be waited for (disk, upstream) is read in
a thread, into a buffer of its own. So memory does not depend on the size of the body, and hardly on how many clients
there are.
"""

import asyncio
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from OpenSSL import SSL

from entrepot.addons.exchange import Exchange
from entrepot.addons.http1 import response_head
from entrepot.engine.messages import Answer, Body
from entrepot.errors import EntrepotError

PIECE: Final = 64 << 10  # bytes read and encrypted at a time: four full TLS records, both buffers in the L1/L2 cache
TURN: Final = 16  # pieces a client gets before the others have a turn, if the socket takes them at once
RECORD: Final = 16 << 10  # bytes of plaintext in a full TLS record
RECORD_OVERHEAD: Final = 64  # bytes more for each record, at most, in any cipher we offer
SPARE: Final = 32 << 10  # bytes; head, and what TLS itself has to say (tickets, alerts)
SEALED: Final = PIECE + (PIECE // RECORD + 1) * RECORD_OVERHEAD + SPARE
GONE: Final = (OSError, SSL.Error, KeyError)  # how a client's departure shows; its disk is not ours: reads raise ours

_lib: Any = SSL._lib  # type: ignore[attr-defined]  # pyOpenSSL has no call that reads a BIO into a given buffer
_ffi: Any = SSL._ffi  # type: ignore[attr-defined]


class Records:
    """TLS records on their way out. One for each event loop: nothing is awaited between reading and writing them."""

    def __init__(self) -> None:
        self.plain = memoryview(bytearray(PIECE))  # for what is to be encrypted
        self._incoming = _ffi.new("char[]", RECORD)
        self._read = memoryview(_ffi.buffer(self._incoming))
        self._records = _ffi.new("char[]", SEALED)
        self._view = memoryview(_ffi.buffer(self._records))

    def sealed(self, tls: SSL.Connection) -> memoryview:
        """The next records that OpenSSL has ready, at most `SEALED` bytes; valid until the next call."""
        n = _lib.BIO_read(tls._from_ssl, self._records, SEALED)
        return self._view[: max(n, 0)]

    def read(self, tls: SSL.Connection) -> bytes:
        """The next bytes that have come and are decrypted; none when there are no more.

        Raises `SSL.ZeroReturnError` when the client has said goodbye, `SSL.Error`. `Connection.recv` raises also when
        there is nothing, which costs more than all the rest.
        """
        n = _lib.SSL_read(tls._ssl, self._incoming, RECORD)
        if n > 0:
            return bytes(self._read[:n])
        if _lib.SSL_get_error(tls._ssl, n) == _lib.SSL_ERROR_WANT_READ:
            return b""
        tls._raise_ssl_error(tls._ssl, n)
        return b""

    def write(self, tls: SSL.Connection, transport: asyncio.WriteTransport, fd: int) -> None:
        """Hands all records to the socket, or to the transport what it does not take. Raises OSError."""
        while records := self.sealed(tls):
            written = 0
            if transport.is_closing():
                raise ConnectionResetError("closing")
            if not transport.get_write_buffer_size():  # else the order would be lost
                with suppress(BlockingIOError):
                    written = os.write(fd, records)
            if written < len(records):
                transport.write(bytes(records[written:]))
            if len(records) < SEALED:
                break


class ShortBody(EntrepotError):  # it is what the client gets
    """The body ended before its length; the connection must end without a goodbye."""


@dataclass(slots=True)
class Sent:
    """What became of an answer."""

    body: int = 0  # bytes
    whole: bool = False
    error: str = ""
    first: float | None = None  # when the head was handed over; by `time.perf_counter`


class Pump:
    """Writes one answer to one exchange."""

    def __init__(self, exchange: Exchange, records: Records) -> None:
        """Raises KeyError when the client is gone."""
        client = exchange.client
        self._tls, self._writer = client.tls, client.writer
        self._transport = self._writer.transport
        self._fd = self._transport.get_extra_info("socket").fileno()
        self._exchange, self._records = exchange, records

    async def send(self, answer: Answer, *, keep_alive: bool) -> Sent:
        """Writes head and body; never raises on a client that goes away or a body that ends short."""
        sent = Sent()
        body = answer.body
        length = answer.length
        if length is None:
            length = len(body) if isinstance(body, bytes) else body.length
        silent = self._exchange.head.method == "HEAD" or answer.status in {204, 304}
        head = response_head(answer, length=length, keep_alive=keep_alive, now=time.time())
        try:
            if silent or isinstance(body, bytes):
                payload = b"" if silent else bytes(body) if isinstance(body, bytes) else b""
                self._tls.sendall(head + payload)
                sent.first = time.perf_counter()
                await self._flush()
                sent.body = len(payload)
            else:
                self._tls.sendall(head)
                await self._stream(body, length, sent)
            sent.whole = True
        except GONE as e:
            sent.error = f"client gone: {type(e).__name__}"
        except EntrepotError as e:
            sent.error = str(e)
            self._exchange.client.clean_end = False
        finally:
            if not isinstance(body, bytes):
                body.close()
        self._exchange.keep_alive = keep_alive and sent.whole
        return sent

    async def _stream(self, body: Body, length: int | None, sent: Sent) -> None:
        own: memoryview | None = None
        turns = 0
        while True:
            buffer = self._records.plain
            n = body.read_now(buffer)
            if n < 0:
                await self._flush()  # what we have is not to wait for what we have not
                buffer = own = own or memoryview(bytearray(PIECE))
                n = await body.read(buffer)
            if n == 0:
                break
            if length is None:
                self._tls.sendall(b"%x\r\n" % n)
                self._tls.sendall(buffer[:n])
                self._tls.sendall(b"\r\n")
            else:
                self._tls.sendall(buffer[:n])
            sent.body += n
            if sent.first is None:
                sent.first = time.perf_counter()
            await self._flush()
            turns += 1
            if turns % TURN == 0:
                await asyncio.sleep(0)  # nothing above yields while the socket takes everything: others want a turn
        if length is None:
            self._tls.sendall(b"0\r\n\r\n")
        elif sent.body != length:
            raise ShortBody(f"body ended after {sent.body} of {length} bytes")
        await self._flush()

    async def _flush(self) -> None:
        """Hands all records over, and waits until the transport has room for more."""
        self._records.write(self._tls, self._transport, self._fd)
        if self._transport.get_write_buffer_size():
            await self._writer.drain()
