"""The TCP server: messages framed by their length, several on one connection (RFC 7766).

Decides who is cut off: strangers and whoever is over the limit at once; who asks nothing whole for a while, or does
not read its replies, when the time is up. Replies go out as they are ready, not in the order of the questions.
"""

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import Final, cast, override

from entrepot.dns.handling import Handler

_log: Final = logging.getLogger("entrepot.dns")


@dataclass(frozen=True, slots=True)
class TcpLimits:
    """What TCP clients may take."""

    idle: float = 10.0  # seconds without a whole message; RFC 7766 6.2.3 wants "a few"
    connections: int = 200  # open at once; more are closed at once
    in_flight: int = 32  # unanswered messages of one connection; it is not read from until some are answered


class TcpServer:
    """All TCP connections of the responder. Lives from the first `start` to `close`."""

    def __init__(self, handler: Handler, limits: TcpLimits) -> None:
        self.handler = handler
        self.limits = limits
        self.connections: set[_Connection] = set()
        self._servers: list[asyncio.Server] = []

    async def start(self, sock: socket.socket) -> None:
        """Listens on one more socket."""
        self._servers.append(await asyncio.get_running_loop().create_server(lambda: _Connection(self), sock=sock))

    async def close(self) -> None:
        """The listening sockets, too."""
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()


class _Connection(asyncio.Protocol):
    def __init__(self, server: TcpServer) -> None:
        self._server = server
        self._handler = server.handler
        self._limits = server.limits
        self._transport: asyncio.Transport | None = None
        self._client = ""
        self._local: tuple[str, int] = ("", 0)  # address, interface where it matters
        self._buffer = bytearray()
        self._in_flight = 0
        self._stuffed = False  # the client does not read its replies
        self._ended = False  # the client will send no more
        self._active = 0.0  # when the last whole message came, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        crowded = len(self._server.connections) >= self._limits.connections
        if not peer or not local or crowded or not self._handler.admits(peer[0]):
            self._transport.abort()
            return
        self._server.connections.add(self)
        self._client = peer[0]
        self._local = (local[0], local[3] if len(local) > 3 else 0)
        self._active = asyncio.get_running_loop().time()
        self._watch()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.connections.discard(self)
        if self._timer:
            self._timer.cancel()

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    @override
    def eof_received(self) -> bool:
        """Half closed: what was asked is still answered."""
        self._ended = True
        self._work()
        return True

    @override
    def pause_writing(self) -> None:
        self._stuffed = True

    @override
    def resume_writing(self) -> None:
        self._stuffed = False
        self._work()

    def abort(self) -> None:
        """At once, unsent replies dropped."""
        if self._transport:
            self._transport.abort()

    def _work(self) -> None:
        """Handles what is whole in the buffer, as far as the limits allow."""
        while self._transport and self._has_room():
            size = 2 + int.from_bytes(self._buffer[:2])
            if len(self._buffer) < max(size, 2):
                break
            message = bytes(self._buffer[2:size])
            del self._buffer[:size]
            self._active = asyncio.get_running_loop().time()
            self._handle(message)
        if self._transport is None or self._transport.is_closing():
            return
        if self._ended and not self._in_flight and not self._stuffed:
            self._transport.close()
        elif self._has_room():
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def _has_room(self) -> bool:
        return self._in_flight < self._limits.in_flight and not self._stuffed

    def _handle(self, message: bytes) -> None:
        handler = self._handler
        handler.tick()
        handler.counters.tcp += 1
        self._in_flight += 1
        try:
            here = handler.here(*self._local)
            reply = handler.handle(message, self._client, here, self._answered, over_tcp=True)
        except Exception:  # a bug of ours must cost one connection, not the service
            handler.counters.crashed += 1
            _log.exception("answering a query of %d bytes", len(message))
            self.abort()
            return
        if reply == b"":  # not DNS: who sends that has lost the framing, or never had it
            self.abort()
        elif reply is not None:
            self._send(reply)

    def _answered(self, reply: bytes) -> None:
        self._send(reply)
        self._work()

    def _send(self, reply: bytes) -> None:
        self._in_flight -= 1
        if self._transport and not self._transport.is_closing():
            self._transport.write(len(reply).to_bytes(2) + reply)

    def _watch(self) -> None:
        """Cuts the connection off when it has been idle; one timer, whatever the number of messages."""
        loop = asyncio.get_running_loop()
        left = self._active + self._limits.idle - loop.time()
        if left <= 0 and not (self._in_flight and not self._stuffed):
            self.abort()
            return
        self._timer = loop.call_later(max(left, self._limits.idle / 4), self._watch)
