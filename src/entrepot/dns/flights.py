"""One question on its way to upstreams: over UDP with overlapping attempts, or over TCP for who asked over TCP.

Decides when the next upstream is tried and which packet is an answer. Each UDP attempt has a socket of its own,
connected and bound by the kernel to a random port, and a random ID: a forger must guess both while the attempt lasts
(RFC 5452 9). An attempt that is late stays open beside the next: the first answer of any wins.
"""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from entrepot.dns.counters import Counters
from entrepot.dns.records import Answer, read_answer
from entrepot.dns.upstreams import Pool, Upstream
from entrepot.dns.wire import NOTIMP, REFUSED, SERVFAIL, Query, upstream_query

_log: Final = logging.getLogger("entrepot.dns")

type Landed = Callable[[Answer | None], None]

_RECEIVE: Final = 4_096  # bytes; upstreams are told 1,232, and some do as they please
_STRAYS: Final = 16  # packets that answer nothing before the socket is given up: somebody is guessing
_ANOTHER_MAY_KNOW: Final = frozenset((SERVFAIL, REFUSED, NOTIMP))


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds. The whole stays below the five that C libraries and Go wait before they ask again."""

    attempt: float = 1.5  # until the next upstream is tried as well
    total: float = 4.5  # until the asker gets SERVFAIL


class UdpFlight:
    """Calls `landed` once: with an answer, or with None if there was none in time."""

    def __init__(
        self,
        query: Query,
        attempts: Sequence[Upstream],
        pool: Pool,
        timing: Timing,
        counters: Counters,
        clock: Callable[[], float],
        landed: Landed,
    ) -> None:
        self._query = query
        self._attempts = list(attempts)
        self._pool = pool
        self._timing = timing
        self._counters = counters
        self._clock = clock
        self._landed = landed
        self._loop = asyncio.get_running_loop()
        self._open: dict[socket.socket, Upstream] = {}
        self._strays = 0
        self._refusal: Answer | None = None  # what is given out if nobody has anything better
        self._late: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Not part of making it: with no way out at all, it lands at once."""
        self._end = self._loop.call_later(self._timing.total, self._finish, None)
        self._next()

    def close(self) -> None:
        """Lets go of everything; `landed` is not called."""
        for timer in (self._late, self._end):
            if timer:
                timer.cancel()
        for sock in list(self._open):
            self._drop(sock)

    def _next(self) -> None:
        if self._late:
            self._late.cancel()
        while self._attempts:
            upstream = self._attempts.pop(0)
            if self._send(upstream):
                self._late = self._loop.call_later(self._timing.attempt, self._is_late, upstream)
                return
            self._pool.failed(upstream, self._clock())
        if not self._open:
            self._finish(None)

    def _send(self, upstream: Upstream) -> bool:
        try:
            sock = socket.socket(upstream.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        except OSError as failure:
            _log.warning("no socket to ask %s: %s", upstream, failure)
            return False
        ident = secrets.randbits(16)
        try:
            sock.connect(_socket_address(upstream))
            sock.send(upstream_query(self._query, ident))
        except OSError as failure:
            sock.close()
            _log.debug("cannot ask %s: %s", upstream, failure)
            return False
        self._open[sock] = upstream
        self._loop.add_reader(sock, self._readable, sock, upstream, ident)
        return True

    def _is_late(self, upstream: Upstream) -> None:
        self._counters.timeouts += 1
        self._pool.failed(upstream, self._clock())
        self._next()

    def _readable(self, sock: socket.socket, upstream: Upstream, ident: int) -> None:
        try:
            data = sock.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # an ICMP message came back: nobody is there
            self._give_up(sock, upstream)
            return
        answer = read_answer(data, ident, self._query)
        if answer is None:
            self._counters.strays += 1
            self._strays += 1
            if self._strays >= _STRAYS:
                self._strays = 0
                self._give_up(sock, upstream)
            return
        self._pool.worked(upstream)
        if answer.rcode not in _ANOTHER_MAY_KNOW:
            self._finish(answer)
            return
        self._refusal = self._refusal or answer
        for other in [other for other, whose in self._open.items() if whose is upstream]:
            self._drop(other)  # it would only say so again
        self._attempts = [other for other in self._attempts if other is not upstream]
        self._next()

    def _give_up(self, sock: socket.socket, upstream: Upstream) -> None:
        self._drop(sock)
        self._pool.failed(upstream, self._clock())
        self._next()

    def _drop(self, sock: socket.socket) -> None:
        del self._open[sock]
        self._loop.remove_reader(sock)
        sock.close()

    def _finish(self, answer: Answer | None) -> None:
        self.close()
        self._landed(answer or self._refusal)


async def ask_over_tcp(
    query: Query,
    attempts: Sequence[Upstream],
    pool: Pool,
    timing: Timing,
    counters: Counters,
    clock: Callable[[], float],
) -> Answer | None:
    """Each upstream once, in turn, with an equal share of the time; None if none answers. One connection each."""
    refusal = None
    upstreams = list(dict.fromkeys(attempts))
    for upstream in upstreams:
        try:
            async with asyncio.timeout(timing.total / len(upstreams)):
                answer = await _exchange(query, upstream)
        except TimeoutError:
            counters.timeouts += 1
            answer = None
        except (OSError, EOFError) as failure:
            _log.debug("cannot ask %s over TCP: %s", upstream, failure)
            answer = None
        if answer is None:
            pool.failed(upstream, clock())
        elif answer.rcode in _ANOTHER_MAY_KNOW:
            refusal = refusal or answer
        else:
            pool.worked(upstream)
            return answer
    return refusal


async def _exchange(query: Query, upstream: Upstream) -> Answer | None:
    """None: what came is no answer. Raises OSError, EOFError."""
    ident = secrets.randbits(16)
    message = upstream_query(query, ident)
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    try:
        writer.write(len(message).to_bytes(2) + message)
        length = int.from_bytes(await reader.readexactly(2))
        return read_answer(await reader.readexactly(length), ident, query)
    finally:
        # Closed without lingering: an upstream that stalls must not hold the end of the flight.
        writer.transport.abort()


def _socket_address(upstream: Upstream) -> tuple[str, int] | tuple[str, int, int, int]:
    """Raises OSError if the zone's interface is gone."""
    if upstream.family == socket.AF_INET:
        return upstream.host, upstream.port
    zone = upstream.host.partition("%")[2]
    return upstream.bare_host, upstream.port, 0, socket.if_nametoindex(zone) if zone else 0
