"""All of it put together: settings, servers, decisions, forwarding.

Decides in which order things are asked: may this client ask; is it a query; is it a probe of ours; is the answer
ours; is it cached; who upstream knows. What each of these means is decided in the modules it calls. What was decided
is remembered per local address in `Here` and forgotten as a whole (`generation`) when the cache's health or the
settings change, and every half minute, because addresses of interfaces change without notice.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import Final

from entrepot.dns import codec
from entrepot.dns.answers import Answered, Decision, Forward, Policy, decide
from entrepot.dns.counters import Counters, Kind
from entrepot.dns.flights import Timing
from entrepot.dns.forwarder import Forwarder
from entrepot.dns.handling import Here, Ready, Send
from entrepot.dns.interfaces import Interfaces, SystemInterfaces
from entrepot.dns.records import Answer
from entrepot.dns.settings import AUTO, AccessList, DnsSettings
from entrepot.dns.tcp import TcpLimits, TcpServer
from entrepot.dns.udp import UdpServer
from entrepot.dns.wire import (
    BADVERS,
    NXDOMAIN,
    SERVFAIL,
    TCP_SIZE,
    Fault,
    Query,
    compose,
    compose_fault,
    compose_refusal,
    printable,
    read_labels,
    read_query,
)

_log: Final = logging.getLogger("entrepot.dns")

_SWEEP: Final = 30.0  # seconds until what was decided is forgotten
_REMEMBERED: Final = 4_096  # decisions, and ready replies, per local address: some 6 MB at worst
_MAX_HERE: Final = 256  # local addresses
_REFUSALS: Final = 100  # to strangers a second: enough to see what is wrong, too few to be worth abusing

_BADVERS: Final = codec.failure(BADVERS)
_SERVFAIL: Final = codec.failure(SERVFAIL)
_NXDOMAIN: Final = codec.failure(NXDOMAIN)


async def serve_dns(settings: DnsSettings, sockets: Sequence[socket.socket], stop: asyncio.Event) -> None:
    """Serves on `sockets` (from `sockets.bind`; closed at the end) until `stop` is set."""
    await Responder(settings).serve(sockets, stop)


class Responder:
    """One per process. `counters` may be read, and `reconfigure` called, at any time."""

    def __init__(
        self,
        settings: DnsSettings,
        *,
        interfaces: Interfaces | None = None,
        clock: Callable[[], float] = time.monotonic,
        timing: Timing | None = None,
        limits: TcpLimits | None = None,
    ) -> None:
        self.counters = Counters()
        self.generation = 0
        self._settings = settings
        self._interfaces = interfaces or SystemInterfaces()
        self._clock = clock
        self._timing = timing or Timing()
        self._limits = limits or TcpLimits()
        self._own: list[tuple[str, int]] = []  # what we listen on
        self._heres: dict[tuple[str, int], Here] = {}
        self._retired: list[Forwarder] = []  # of earlier settings; somebody still waits for them
        self._sick = False
        self._sweep_at = 0.0
        self._refusals = (0.0, 0)  # since when, how many
        self._configure(settings)

    def reconfigure(self, settings: DnsSettings) -> None:
        """From now on these hold. Questions in flight end as they began; everything cached is forgotten."""
        old, self._retired = (*self._retired, self._forwarder), []
        for forwarder in old:
            if forwarder.busy:
                self._retired.append(forwarder)
            else:
                forwarder.close()
        self._configure(settings)

    async def serve(self, sockets: Sequence[socket.socket], stop: asyncio.Event) -> None:
        """Serves on `sockets`, which are closed at the end, until `stop` is set. Once per responder."""
        self._own = [sock.getsockname()[:2] for sock in sockets]
        self.reconfigure(self._settings)  # without the upstreams that turn out to be these sockets
        tcp = TcpServer(self, self._limits)
        udp = [UdpServer(sock, self) for sock in sockets if sock.type == socket.SOCK_DGRAM]
        try:
            for sock in sockets:
                if sock.type == socket.SOCK_STREAM:
                    await tcp.start(sock)
            for server in udp:
                server.start()
            await stop.wait()
        finally:
            for server in udp:
                server.close()
            await tcp.close()
            for forwarder in (*self._retired, self._forwarder):
                forwarder.close()
            for sock in sockets:
                sock.close()

    # What the servers call: see handling.Handler

    def tick(self) -> float:
        now = self._clock()
        sick = self._settings.fail_open and not self._is_healthy()
        if sick != self._sick:
            _log.warning("the cache is %s", "sick: registry names get their real addresses" if sick else "well again")
            self._sick = sick
            self._forget(now)
        elif now >= self._sweep_at:
            self._forget(now)
        return now

    def admits(self, client: str) -> bool:
        return self._access.admits(client)

    def here(self, address: str, interface: int) -> Here:
        found = self._heres.get((address, interface))
        if found is None:
            if len(self._heres) >= _MAX_HERE:
                self._heres.clear()
            found = self._heres[address, interface] = Here(*self._advertised(address, interface))
        return found

    def handle(self, data: bytes, client: str, here: Here, send: Send, *, over_tcp: bool) -> bytes | None:
        self.counters.queries += 1
        query = read_query(data)
        if not self.admits(client):
            self.counters.add("refused")
            return self._refuse(query)
        if not isinstance(query, Query):
            self.counters.add("malformed")
            return compose_fault(query) if query else b""
        limit = TCP_SIZE if over_tcp else query.limit
        if query.version:
            return self._tell(query, client, "malformed", compose(query, _BADVERS, limit))
        if self._forwarder.caught(query):
            return self._tell(query, client, "looped", compose(query, _NXDOMAIN, limit))
        decision = self._decide(query, here)
        if isinstance(decision, Answered):
            return self._answered(data, query, client, here, decision, over_tcp=over_tcp)
        if decision.cap is not None:
            self.counters.bypassed += 1
        return self._forward(data, query, client, here, decision, send, over_tcp=over_tcp)

    # The steps of handle()

    def _decide(self, query: Query, here: Here) -> Decision:
        decision = here.decisions.get(query.key)
        if decision is None:
            if len(here.decisions) >= _REMEMBERED:
                here.decisions.clear()
            decision = here.decisions[query.key] = decide(query, here.v4, here.v6, self._policy)
        return decision

    def _answered(
        self, data: bytes, query: Query, client: str, here: Here, decision: Answered, *, over_tcp: bool
    ) -> bytes:
        reply = compose(query, decision.reply, TCP_SIZE if over_tcp else query.limit)
        if decision.kind == "intercepted" and not over_tcp:
            _make_ready(data, query, here, reply, inf, intercepted=True)
        return self._tell(query, client, decision.kind, reply)

    def _forward(
        self, data: bytes, query: Query, client: str, here: Here, how: Forward, send: Send, *, over_tcp: bool
    ) -> bytes | None:
        limit = TCP_SIZE if over_tcp else query.limit
        cached = self._forwarder.lookup(query)
        if cached:
            reply = compose(query, cached[0], limit)
            if not over_tcp:
                _make_ready(data, query, here, reply, cached[1], intercepted=False)
            return self._tell(query, client, "cached", reply)
        landed = partial(_deliver, query, limit, send)
        asked = self._forwarder.ask(query, client, how, landed, over_tcp=over_tcp)
        if asked == "overloaded":
            return self._tell(query, client, asked, compose(query, _SERVFAIL, limit))
        self._tell(query, client, asked, b"")
        return None

    def _refuse(self, query: Query | Fault | None) -> bytes:
        since, count = self._refusals
        now = self._clock()
        if now - since >= 1.0:
            since, count = now, 0
        self._refusals = (since, count + 1)
        if count >= _REFUSALS or not isinstance(query, Query):
            return b""
        return compose_refusal(query)

    def _tell(self, query: Query, client: str, kind: Kind, reply: bytes) -> bytes:
        """Counts and logs; `reply` passes through."""
        self.counters.add(kind)
        if _log.isEnabledFor(logging.DEBUG):
            name = printable(read_labels(query.name))
            _log.debug("%s %s for %s: %s", name, codec.type_name(query.rtype), client, kind)
        return reply

    # What holds for a while

    def _configure(self, settings: DnsSettings) -> None:
        self._settings = settings
        self._access = AccessList(settings.allow)
        upstreams = [upstream for upstream in settings.upstream if not self._is_ours(*upstream)]
        for host, port in set(settings.upstream) - set(upstreams):
            _log.warning("upstream %s port %d is this responder: not used; set dns.upstream to another", host, port)
        self._forwarder = Forwarder(upstreams, self._clock, self._timing, self.counters)
        self._sick = settings.fail_open and not self._is_healthy()
        self._forget(self._clock())

    def _forget(self, now: float) -> None:
        self.generation += 1
        self._heres.clear()
        self._sweep_at = now + _SWEEP
        settings = self._settings
        self._policy = Policy(settings.intercepts, settings.ttl, self._sick, self._forwarder.pool.any_private)

    def _is_healthy(self) -> bool:
        try:
            return self._settings.healthy()
        except Exception:  # who cannot tell is not well, and DNS must go on
            _log.exception("asking whether the cache is healthy")
            return False

    def _is_ours(self, host: str, port: int) -> bool:
        """A socket on a wildcard address takes what is sent to any address of the box."""
        bare = host.partition("%")[0]
        wildcard = "::" if ":" in bare else "0.0.0.0"  # noqa: S104  # compared, not bound
        names = {address for address, own_port in self._own if own_port == port}
        return bare in names or (wildcard in names and self._interfaces.is_local(host))

    def _advertised(self, address: str, interface: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The answers to A and to AAAA for queries that come in on `address`; each once, in the order given."""
        v4: dict[str, None] = {}
        v6: dict[str, None] = {}
        bare = address.partition("%")[0]
        for item in self._settings.advertise:
            if item != AUTO:
                (v6 if ":" in item else v4)[item] = None
            elif ":" not in bare:
                v4[bare] = None
            else:
                beside = self._interfaces.ipv4_beside(address, interface)
                if beside:
                    v4[beside] = None
                if not bare.lower().startswith("fe80:"):  # without its zone it leads nowhere
                    v6[bare] = None
        return tuple(v4), tuple(v6)


def _make_ready(data: bytes, query: Query, here: Here, reply: bytes, until: float, *, intercepted: bool) -> None:
    """Queries with EDNS options (cookies) or in mixed case (0x20) differ each time: not worth the room."""
    if not query.plain or query.question != query.key:
        return
    if len(here.ready) >= _REMEMBERED:
        here.ready.clear()
    here.ready[data[2:]] = Ready(reply[2:], until, intercepted)


def _deliver(query: Query, limit: int, send: Send, answer: Answer | None) -> None:
    send(compose(query, answer.reply if answer else _SERVFAIL, limit))
