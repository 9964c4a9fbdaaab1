"""The addon that answers pulls: asks the engine, lets the pump write, counts and logs.

Also answers requests that must be refused on the spot: a `Host` that is not the name of the handshake (421), and our
own requests come back to us (508).
"""

import logging
import time
from typing import Literal

from mitmproxy import tls
from OpenSSL import SSL

from entrepot.addons import accesslog
from entrepot.addons.pull import Exchange
from entrepot.addons.pump import Buffers, Pump, Sent
from entrepot.addons.tls import ServerContexts
from entrepot.certs.errors import CertsError
from entrepot.counters import Counters
from entrepot.engine.engine import Engine, failure
from entrepot.engine.messages import Answer, PullRequest, TokenRequest, Trace
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Catalogue, HostMatch
from entrepot.registry.routes import TokenRoute
from entrepot.upstream.errors import LoopDetected
from entrepot.upstream.fields import is_own

_tls_log = logging.getLogger("entrepot.tls")
MISDIRECTED = 421


class Pulls:
    """Answers every `Exchange` of this worker."""

    def __init__(
        self, engine: Engine, catalogue: Catalogue, contexts: ServerContexts, counters: Counters, *, pseudonym: str
    ) -> None:
        self._engine, self._contexts, self._counters, self._pseudonym = engine, contexts, counters, pseudonym
        self.catalogue = catalogue
        self.draining = False
        self._buffers = Buffers()

    def tls_start_client(self, data: tls.TlsData) -> None:
        """mitmproxy's hook: the certificate for the name asked for; none refuses the handshake."""
        sni = data.context.client.sni
        try:
            made = self._contexts.get(sni)
        except CertsError as e:
            _tls_log.error("no certificate for %s: %s", sni, e)
            made = None
        if made is None:
            self._counters.add("handshakes_refused")
            peer = data.context.client.peername
            _tls_log.info("handshake refused client=%s name=%s", peer[0] if peer else "?", sni)
            return
        data.ssl_conn = SSL.Connection(made)
        data.ssl_conn.set_accept_state()

    async def registry_pull(self, exchange: Exchange) -> None:
        """Our hook: see `entrepot.addons.pull`."""
        started, trace = time.perf_counter(), Trace()
        match = self.catalogue.match(exchange.name)
        answer = await self._answer(exchange, match, trace)
        keep_alive = exchange.head.keep_alive and not self.draining
        try:
            pump = Pump(exchange, self._buffers)
        except KeyError:  # the client left while the engine was at it
            sent = Sent(error="client gone before the answer")
            if not isinstance(answer.body, bytes):
                answer.body.close()
        else:
            sent = await pump.send(answer, keep_alive=keep_alive)
        self._note(exchange, match.registry.name if match else "", answer, sent, trace, started)

    async def _answer(self, exchange: Exchange, match: HostMatch | None, trace: Trace) -> Answer:
        head = exchange.head
        if exchange.refuse:
            return _refusal(MISDIRECTED, exchange.refuse)
        if is_own(head.headers.get_all("via"), self._pseudonym):
            return failure(LoopDetected(exchange.name, "this request has passed through here already"))
        if match is None or exchange.route is None:
            return _refusal(MISDIRECTED, f"{exchange.name} is not served here any more")
        address = exchange.handler.address
        if isinstance(exchange.route, TokenRoute):
            method: Literal["GET", "POST"] = "POST" if head.method == "POST" else "GET"
            return await self._engine.token(
                TokenRequest(method, match.registry, match.origin, exchange.route, head.headers, address, exchange.body)
            )
        return await self._engine.answer(
            PullRequest(
                "HEAD" if head.method == "HEAD" else "GET",
                match.registry,
                exchange.route,
                head.headers,
                address,
                trace=trace,
            )
        )

    def _note(
        self, exchange: Exchange, registry: str, answer: Answer, sent: Sent, trace: Trace, started: float
    ) -> None:
        ended, count = time.perf_counter(), self._counters
        count.add("requests")
        count.add(f"requests_{answer.verdict}")
        count.add("bytes_sent", sent.body)
        if answer.verdict in {"hit", "proved", "revalidated", "stale"}:
            count.add("bytes_hit", sent.body)
        first = started if sent.first is None else sent.first
        entry = accesslog.fields(
            exchange, registry, answer, sent, asked=trace.upstream, first=first - started, total=ended - started
        )
        accesslog.write(entry)


def _refusal(status: int, why: str) -> Answer:
    body = oci_errors.error_body(oci_errors.DENIED, f"entrepot: {why}")
    return Answer(status, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body, "failed", why)
