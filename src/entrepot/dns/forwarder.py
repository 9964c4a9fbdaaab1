"""Questions for upstreams: answered from the cache, or sent once for all who ask the same at the same time.

Decides what counts as the same question, how much may be in flight, and whether an upstream leads back to us. A loop
(we ask the router, the router asks us) feeds no storm: the returning question joins its own flight. It is found by
its signs, a question that an upstream asks us while we ask it, or one that nobody answered; they are no proof, since
a router may hide clients and a network may be down. Proof is a probe: a question nobody else could ask, sent to the
suspect. If we are asked it, the suspect is left alone for a while.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, Protocol

from entrepot.dns.answers import Forward
from entrepot.dns.cache import AnswerCache
from entrepot.dns.counters import Counters
from entrepot.dns.flights import Landed, Timing, UdpFlight, ask_over_tcp
from entrepot.dns.records import Answer
from entrepot.dns.upstreams import Pool, Upstream
from entrepot.dns.wire import (
    CD,
    CLASS_IN,
    CLASSIC_SIZE,
    RD,
    TYPE_TXT,
    Query,
    Reply,
    write_name,
)
from entrepot.tasks import spawn

_log: Final = logging.getLogger("entrepot.dns")

type Asked = Literal["forwarded", "joined", "overloaded"]

MAX_FLIGHTS: Final = 256  # questions in flight; three sockets each at worst, which fits the usual 1,024 files
MAX_WAITERS: Final = 512  # askers of one question in flight
_MAX_PROBES: Final = 64  # loop probes that are remembered


class _Closable(Protocol):
    def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Pending:
    """A question in flight and who waits for it."""

    attempts: list[Upstream]
    cap: int | None
    waiters: list[Landed]
    flight: _Closable | None = None


class _TcpFlight:
    """A task in the shape of a UdpFlight."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    def close(self) -> None:
        self._task.cancel()


class Forwarder:
    """The upstreams of one configuration, with their cache. Made anew when the configuration changes."""

    def __init__(
        self,
        upstreams: Sequence[tuple[str, int]],
        clock: Callable[[], float],
        timing: Timing,
        counters: Counters,
        *,
        max_flights: int = MAX_FLIGHTS,
    ) -> None:
        self.pool = Pool(upstreams)
        self.cache = AnswerCache()
        self._clock = clock
        self._timing = timing
        self._counters = counters
        self._max_flights = max_flights
        self._pending: dict[tuple[bytes, bool], _Pending] = {}
        self._asides: set[UdpFlight] = set()  # probes: nobody waits for them
        self._probes: dict[bytes, Upstream] = {}  # by name

    @property
    def busy(self) -> bool:
        """Is anybody still waiting?"""
        return bool(self._pending)

    def lookup(self, query: Query) -> tuple[Reply, float] | None:
        """A cached reply, and until when on the clock it is true."""
        return self.cache.get(_key(query), self._clock())

    def ask(self, query: Query, client: str, how: Forward, landed: Landed, *, over_tcp: bool) -> Asked:
        """Calls `landed` later, once, with an answer or None for none.

        Returns "forwarded", or "joined" if the question was in flight already, or "overloaded" if it cannot be
        asked now; then `landed` is not called.
        """
        key = _key(query)
        pending = self._pending.get((key, over_tcp))
        if pending:
            return self._join(pending, client, landed)
        now = self._clock()
        attempts = self.pool.attempts(now, private_only=how.private_only)
        if not attempts or len(self._pending) >= self._max_flights:
            return "overloaded"
        pending = self._pending[key, over_tcp] = _Pending(attempts, how.cap, [landed])
        self._launch(query, pending, partial(self._land, (key, over_tcp)), over_tcp=over_tcp)
        due = None if how.private_only else self.pool.due(now, attempts[0])
        if due:
            self._aside(query, due)
        return "forwarded"

    def caught(self, query: Query) -> bool:
        """Is this a probe of ours, come back? Then its upstream is not asked for a while."""
        upstream = self._probes.pop(query.name, None) if self._probes else None
        if upstream is None:
            return False
        _log.warning("upstream %s leads back to this responder: not used; set dns.upstream to another", upstream)
        self.pool.looping(upstream, self._clock())
        return True

    def close(self) -> None:
        """Lets go of everything in flight; who waits gets nothing."""
        for pending in self._pending.values():
            if pending.flight:
                pending.flight.close()
        for aside in self._asides:
            aside.close()
        self._pending.clear()
        self._asides.clear()

    def _join(self, pending: _Pending, client: str, landed: Landed) -> Asked:
        if len(pending.waiters) >= MAX_WAITERS:
            return "overloaded"
        pending.waiters.append(landed)
        for upstream in pending.attempts:
            if upstream.bare_host == client:
                self._suspect(upstream)
        return "joined"

    def _launch(self, query: Query, pending: _Pending, landed: Landed, *, over_tcp: bool) -> None:
        common = (self.pool, self._timing, self._counters, self._clock)
        if over_tcp:
            asking = _ask(ask_over_tcp(query, pending.attempts, *common), landed)
            pending.flight = _TcpFlight(spawn(asking, name="dns-tcp-flight"))
        else:
            pending.flight = flight = UdpFlight(query, pending.attempts, *common, landed)
            flight.start()

    def _land(self, key: tuple[bytes, bool], answer: Answer | None) -> None:
        pending = self._pending.pop(key)
        if answer is None:
            self._counters.failed += 1
            for upstream in pending.attempts:
                self._suspect(upstream)
        else:
            if pending.cap is not None:
                answer = answer.capped(pending.cap)
            self.cache.put(key[0], answer, self._clock())
        for landed in pending.waiters:
            landed(answer)

    def _suspect(self, upstream: Upstream) -> None:
        if not self.pool.may_probe(upstream, self._clock()):
            return
        while len(self._probes) >= _MAX_PROBES:
            del self._probes[next(iter(self._probes))]
        probe = _loop_probe()
        self._probes[probe.name] = upstream
        self._aside(probe, upstream)

    def _aside(self, query: Query, upstream: Upstream) -> None:
        """Asks one upstream, only to see what comes of it."""

        def landed(_: Answer | None) -> None:
            self._asides.discard(flight)

        timing = replace(self._timing, attempt=self._timing.total)
        flight = UdpFlight(query, [upstream], self.pool, timing, self._counters, self._clock, landed)
        self._asides.add(flight)
        flight.start()


async def _ask(asking: Awaitable[Answer | None], landed: Landed) -> None:
    try:
        answer = await asking
    except Exception:  # a bug; whoever waits must still hear something
        _log.exception("asking over TCP")
        answer = None
    landed(answer)


def _key(query: Query) -> bytes:
    """What makes an answer another answer: besides the question RD, CD, DO, and whether EDNS is spoken at all."""
    flags = (1 if query.flags & RD else 0) | (2 if query.flags & CD else 0) | (4 if query.do else 0)
    return query.key + bytes((flags | (8 if query.edns else 0),))


def _loop_probe() -> Query:
    """A question no one else can ask. `.test` (RFC 6761 6.2) is nobody's, and the root says so at once."""
    question = write_name((secrets.token_hex(16).encode(), b"test")) + TYPE_TXT.to_bytes(2) + CLASS_IN.to_bytes(2)
    return Query(
        0, RD, question, question, TYPE_TXT, CLASS_IN, edns=False, version=0, do=False, limit=CLASSIC_SIZE, plain=True
    )
