"""The addon that answers pulls: asks the engine, lets the pump write, counts and logs.

Also answers requests that must be refused on the spot: a `Host` that is not the name of the handshake (421), and our
own requests come back to us (508).
"""

import logging
import time
from collections.abc import Callable
from typing import Final, Literal

from entrepot.addons import accesslog
from entrepot.addons.exchange import Exchange
from entrepot.addons.http1 import response_head
from entrepot.addons.pump import Pump, Records, Sent
from entrepot.addons.ready import Ready, ReadyAnswers
from entrepot.addons.readylines import Batch, line
from entrepot.addons.tallies import Tallies
from entrepot.addons.tls import ServerContexts
from entrepot.counters import Counters
from entrepot.engine import audit
from entrepot.engine.engine import Engine, failure
from entrepot.engine.messages import Answer, PullRequest, TokenRequest, Trace
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Catalogue, HostMatch
from entrepot.registry.routes import TokenRoute
from entrepot.upstream.errors import LoopDetected
from entrepot.upstream.fields import is_own

_tls_log = logging.getLogger("entrepot.tls")
MISDIRECTED: Final = 421
NOT_MODIFIED: Final = 304


class Pulls:
    """Answers every `Exchange` of this worker."""

    name = "pulls"
    """By which mitmproxy finds it."""

    def __init__(
        self,
        engine: Engine,
        catalogue: Catalogue,
        contexts: ServerContexts,
        counters: Counters,
        version: Callable[[], object],
        *,
        pseudonym: str,
    ) -> None:
        """`version` of the records: see `ready`."""
        self._engine, self._counters, self._pseudonym = engine, counters, pseudonym
        self.contexts = contexts
        self.catalogue, self._tallies = catalogue, Tallies(catalogue)
        self.draining = False
        self.records, self.ready, self._lines = Records(), ReadyAnswers(version), Batch()

    def use(self, catalogue: Catalogue) -> None:
        """From the next request on."""
        self.catalogue, self._tallies = catalogue, Tallies(catalogue)
        self.ready.clear()

    def refused(self, client: str, name: str) -> None:
        """A handshake for a name that is not ours, or for which there is no certificate."""
        self._counters.add("handshakes_refused")
        _tls_log.info("handshake refused client=%s name=%s", client, name)

    async def registry_pull(self, exchange: Exchange) -> None:
        """Our hook: see `entrepot.addons.pull`."""
        started, trace, version = time.perf_counter(), Trace(), self.ready.version()
        match = self.catalogue.match(exchange.name)
        answer = await self._answer(exchange, match, trace)
        keep_alive = exchange.head.keep_alive and not self.draining
        try:
            pump = Pump(exchange, self.records)
        except KeyError:  # the client left while the engine was at it
            sent = Sent(error="client gone before the answer")
            if not isinstance(answer.body, bytes):
                answer.body.close()
        else:
            sent = await pump.send(answer, keep_alive=keep_alive)
        entry = self._note(exchange, match.registry.name if match else "", answer, sent, trace, started)
        repeatable = bool(exchange.raw) and sent.whole and _is_repeatable(answer) and not self.draining
        if repeatable and self.ready.is_worth_it(exchange.name, exchange.raw):
            self._make_ready(exchange, match, answer, entry, version)

    def note_ready(self, client: str, ready: Ready) -> None:
        """A ready answer has been written."""
        count = self._counters
        count.add("requests")
        count.add(f"requests_{ready.verdict}")
        count.add(ready.tally)
        count.add("bytes_sent", ready.size)
        count.add("bytes_hit", ready.size)
        for each in ready.lines:
            each.write(client)

    def _make_ready(
        self, exchange: Exchange, match: HostMatch | None, answer: Answer, entry: accesslog.Entry, version: object
    ) -> None:
        if match is None or exchange.route is None or not isinstance(answer.body, bytes):
            return
        lines = [line(self._lines, accesslog.LOG, {**entry, "upstream": 0, "first_ms": 0.0, "ms": 0.0})]
        if (audited := self._engine.audited(self._request(exchange, match, Trace()), answer)) is not None:
            lines.append(line(self._lines, audit.LOG, audited, audit.HEAD))
        tally = self._tallies(match.registry.name, answer.verdict, exchange.route)
        known = tuple(one for one in lines if one is not None)
        if len(known) != len(lines):
            return
        silent = exchange.head.method == "HEAD" or answer.status == NOT_MODIFIED
        length = len(answer.body) if answer.length is None else answer.length
        head = response_head(answer, length=length, keep_alive=exchange.head.keep_alive, now=time.time())
        body = b"" if silent else answer.body
        self.ready.put(
            exchange.name,
            exchange.raw,
            Ready(head + body, len(body), exchange.head.keep_alive, self.ready.until(), known, answer.verdict, tally),
            version,
        )

    async def _answer(self, exchange: Exchange, match: HostMatch | None, trace: Trace) -> Answer:
        head = exchange.head
        if exchange.refuse:
            return _refusal(MISDIRECTED, exchange.refuse)
        if is_own(head.headers.get_all("via"), self._pseudonym):
            return failure(LoopDetected(exchange.name, "this request has passed through here already"))
        if match is None or exchange.route is None:
            return _refusal(MISDIRECTED, f"{exchange.name} is not served here any more")
        address = exchange.client.address
        if isinstance(exchange.route, TokenRoute):
            method: Literal["GET", "POST"] = "POST" if head.method == "POST" else "GET"
            return await self._engine.token(
                TokenRequest(method, match.registry, match.origin, exchange.route, head.headers, address, exchange.body)
            )
        return await self._engine.answer(self._request(exchange, match, trace))

    @staticmethod
    def _request(exchange: Exchange, match: HostMatch, trace: Trace) -> PullRequest:
        head = exchange.head
        method: Literal["GET", "HEAD"] = "HEAD" if head.method == "HEAD" else "GET"
        if exchange.route is None:
            raise ValueError("a request that is refused is no pull")
        return PullRequest(method, match.registry, exchange.route, head.headers, exchange.client.address, trace=trace)

    def _note(
        self, exchange: Exchange, registry: str, answer: Answer, sent: Sent, trace: Trace, started: float
    ) -> accesslog.Entry:
        ended, count = time.perf_counter(), self._counters
        count.add("requests")
        count.add(f"requests_{answer.verdict}")
        count.add(self._tallies(registry, answer.verdict, exchange.route))
        count.add("bytes_sent", sent.body)
        if answer.verdict in {"hit", "held", "proved", "revalidated", "stale"}:
            count.add("bytes_hit", sent.body)
        first = started if sent.first is None else sent.first
        entry = accesslog.fields(
            exchange, registry, answer, sent, asked=trace.upstream, first=first - started, total=ended - started
        )
        accesslog.write(entry)
        return entry


def _is_repeatable(answer: Answer) -> bool:
    """From the store, to somebody of whom it was known that he may have it; and no more than bytes."""
    return answer.verdict in {"hit", "held"} and answer.status in {200, NOT_MODIFIED} and isinstance(answer.body, bytes)


def _refusal(status: int, why: str) -> Answer:
    body = oci_errors.error_body(oci_errors.DENIED, f"entrepot: {why}")
    return Answer(status, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body, "failed", why)
