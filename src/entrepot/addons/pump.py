"""Writes an answer straight into TLS and the transport, past mitmproxy's layers.

While the pull layer is paused in its hook nobody else writes to the client, so the pump may: it reads a piece, lets
OpenSSL encrypt it, and hands the records to the transport, waiting for it to drain. Memory is two pieces a client
whatever the size of the body; a piece that needs the disk is read in a thread.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from entrepot.addons.http1 import response_head
from entrepot.addons.pull import Exchange
from entrepot.engine.messages import Answer
from entrepot.errors import EntrepotError

PIECE: Final = 256 << 10  # bytes read and encrypted at a time: sixteen full TLS records
RECORD_OVERHEAD: Final = 64  # bytes more per 16 KiB of plaintext, at most, in any cipher we offer
SPARE: Final = 16 << 10  # bytes; head, and what TLS itself has to say (tickets, alerts)
GONE: Final = (ConnectionError, SSL.Error, KeyError)  # how a client's departure shows


class ShortBody(EntrepotError):  # it is what the client gets
    """The body ended before its length; the connection must end without a goodbye."""


@dataclass(slots=True)
class Sent:
    """What became of an answer."""

    body: int = 0  # bytes
    whole: bool = False
    error: str = ""


class Pump:
    """Writes one answer to one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._tls: SSL.Connection = exchange.tls.tls
        self._writer = exchange.handler.writer
        self._exchange = exchange

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
                await self._flush(len(payload))
                sent.body = len(payload)
            else:
                self._tls.sendall(head)
                await self._stream(answer, length, sent)
            sent.whole = True
        except GONE as e:
            sent.error = f"client gone: {type(e).__name__}"
        except EntrepotError as e:
            sent.error = str(e)
            self._exchange.tls.clean_end = False
        finally:
            if not isinstance(body, bytes):
                body.close()
        self._exchange.keep_alive = keep_alive and sent.whole
        return sent

    async def _stream(self, answer: Answer, length: int | None, sent: Sent) -> None:
        body = answer.body
        assert not isinstance(body, bytes)  # noqa: S101  # told apart by the caller
        buffer = memoryview(bytearray(PIECE if length is None else min(PIECE, max(length, 1))))
        while True:
            n = body.read_now(buffer)
            if n < 0:
                await self._flush(0)  # what we have is not to wait for what we have not
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
            await self._flush(n)
            await asyncio.sleep(0)  # drain() does not yield while the socket takes everything: others want a turn
        if length is None:
            self._tls.sendall(b"0\r\n\r\n")
        elif sent.body != length:
            raise ShortBody(f"body ended after {sent.body} of {length} bytes")
        await self._flush(0)

    async def _flush(self, plain: int) -> None:
        """Hands all records to the transport and waits until it has room for more."""
        room = plain + (plain // 16384 + 1) * RECORD_OVERHEAD + SPARE
        while True:
            try:
                self._writer.write(self._tls.bio_read(room))
            except SSL.WantReadError:
                break
        await self._writer.drain()
