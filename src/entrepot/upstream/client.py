"""HTTP towards registries and their CDNs: one exchange (`open`) or one with its redirects (`follow`).

Decides how connections are made, kept and given up, what is sent besides the caller's fields, and how failures are
told apart. Leaves tokens, quotas and what an outage is to others; `redirects` decides where a redirect may lead.
HTTP/1.1 only: every registry speaks it, and one connection per transfer is what bulk wants. Why aiohttp:
`docs/decisions/0004-upstream-http-client.md`.
"""

import asyncio
import ipaddress
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import yarl

from entrepot.headers import Headers
from entrepot.upstream.bulk import Bulks
from entrepot.upstream.contexts import TrustStore
from entrepot.upstream.errors import BadRedirect, Down, LoopDetected, TimedOut, TooManyRedirects, UpstreamError
from entrepot.upstream.fields import outgoing
from entrepot.upstream.pool import new_session, translated
from entrepot.upstream.redirects import REDIRECTS, Step, host_of, http_url, next_step, origin, printable
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.response import Response
from entrepot.upstream.watch import Attempt, Unwatched, Watch

DRAIN_BYTES: Final = 16 * 1024
"""A redirect's body up to this size is read so that the connection can be used again; a longer one is cut."""

PROBE_CONNECT: Final = 2.0  # seconds
PROBE_ANSWER: Final = 3.0  # seconds

_log = logging.getLogger("entrepot.upstream")


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How to talk to upstream."""

    connect_timeout: float
    """Seconds for TCP and TLS to one address; the next address is tried after that."""
    read_timeout: float
    """Seconds without a byte, before the answer or within it."""
    via: str
    """Our entry in `Via`, such as "1.1 entrepot-1a2b3c"."""
    user_agent: str | None
    """Sent for clients that name none; None sends none."""
    per_host: int
    """Connections to one origin; 0 sets no limit. A request waits for a free one without a time limit."""
    reuse: bool = True
    """A connection may serve one exchange after the other."""


class UpstreamClient:
    """Exchanges with registries over one pool of connections. Belongs to the event loop that first uses it."""

    def __init__(self, settings: ClientSettings, resolver: Resolver, *, trust: TrustStore | None = None) -> None:
        self._settings = settings
        self._resolver = resolver
        self._trust = trust or TrustStore()
        self._session: aiohttp.ClientSession | None = None
        self._watch: Watch = Unwatched()
        self._prober: UpstreamClient | None = None
        self._bulks = Bulks()
        self._closed = False

    def watched_by(self, watch: Watch) -> None:
        """From now on `watch` sees every exchange, but for probes, and may forbid it."""
        self._watch = watch

    async def aclose(self) -> None:
        """Drops all connections, those in use included, and makes no more. Safe to call twice."""
        self._closed = True
        self._bulks.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        if self._prober is not None:
            await self._prober.aclose()

    async def probe(self, url: str, ca: tuple[Path, ...] = ()) -> int:
        """The status of a GET without any credential: is somebody there? Over a connection of its own.

        An idle connection may be dead although the host is not. Raises the errors of `errors`.
        """
        if self._closed:
            raise UpstreamError(host_of(url), "not asked, we are shutting down")
        if self._prober is None:
            settings = replace(
                self._settings, connect_timeout=PROBE_CONNECT, read_timeout=PROBE_ANSWER, per_host=0, reuse=False
            )
            self._prober = UpstreamClient(settings, self._resolver, trust=self._trust)
        try:
            async with asyncio.timeout(PROBE_CONNECT + PROBE_ANSWER):  # also when a name has many dead addresses
                async with self._prober.open("GET", url, Headers(), ca=ca) as response:
                    return response.status
        except TimeoutError:
            raise TimedOut(host_of(url), "no answer in time") from None

    @asynccontextmanager
    async def open(
        self,
        method: str,
        url: str,
        headers: Headers,
        *,
        ca: tuple[Path, ...] = (),
        body: bytes | None = None,
        insist: bool = False,
    ) -> AsyncIterator[Response]:
        """One exchange; a redirect is an answer like any other.

        A request with an idempotent method is sent once more when the connection goes away before the answer.
        Leaving the block early closes the connection at once. Raises the errors of `errors`; ValueError for a
        header field with a line break. `insist`: also if the host is known to be down.
        """
        step = Step(method.upper(), url, headers)
        async with self._exchange(step, ca=ca, body=body, hop=0, elsewhere=False, insist=insist) as response:
            yield response

    @asynccontextmanager
    async def follow(
        self,
        method: str,
        url: str,
        headers: Headers,
        *,
        ca: tuple[Path, ...] = (),
        max_redirects: int = 5,
        insist: bool = False,
    ) -> AsyncIterator[Response]:
        """The same for GET and HEAD, redirects followed; `Response.url` says where it ended.

        `ca` is trusted on the whole way: private registries keep their blobs behind the same CA.
        """
        if method.upper() not in {"GET", "HEAD"}:
            raise ValueError(f"{method} is not followed: only GET and HEAD can be sent again elsewhere")
        allow_http = urlsplit(url).scheme == "http"
        step = first = Step(method.upper(), url, headers)
        elsewhere = False
        for hop in range(max_redirects + 1):
            elsewhere = elsewhere or origin(urlsplit(step.url)) != origin(urlsplit(first.url))
            async with AsyncExitStack() as stack:
                exchange = self._exchange(step, ca=ca, body=None, hop=hop, elsewhere=elsewhere, insist=insist)
                response = await stack.enter_async_context(exchange)
                if response.status not in REDIRECTS:
                    yield response
                    return
                target = next_step(step, response.headers.get("location"), allow_http=allow_http)
                if response.content_length is not None and response.content_length <= DRAIN_BYTES:
                    with suppress(UpstreamError):
                        await response.read(DRAIN_BYTES)
            self.refuse_inward(target.url, first=url)
            step = target
        raise TooManyRedirects(host_of(url), f"more than {max_redirects} redirects, last to {host_of(step.url)}")

    @asynccontextmanager
    async def _exchange(
        self, step: Step, *, ca: tuple[Path, ...], body: bytes | None, hop: int, elsewhere: bool, insist: bool
    ) -> AsyncIterator[Response]:
        host = _checked(step.url)
        fields = outgoing(step.headers, via=self._settings.via, user_agent=self._settings.user_agent)
        context: ssl.SSLContext | bool = True
        if step.url.startswith("https:"):
            context = await self._trust.context(ca, host=host)
        if self._closed:  # a task that has outlived it would open a pool that nobody closes
            raise UpstreamError(host, "not asked, we are shutting down")
        attempt = await self._begin(step.url, ca, insist=insist)
        try:
            raw = await self._send(step, fields, body, context, host)
        except UpstreamError as error:
            attempt.failed(error)
            raise
        except asyncio.CancelledError:
            attempt.dropped()
            raise
        _log.debug("%s %s: %d", step.method, printable(step.url), raw.status)
        try:
            response = Response(
                raw,
                method=step.method,
                url=step.url,
                host=host,
                redirected=hop > 0,
                elsewhere=elsewhere,
                read_timeout=self._settings.read_timeout,
                bulks=self._bulks,
            )
            attempt.answered(response.status, response.headers)
            yield response
        finally:
            _give_up(raw)

    async def _begin(self, url: str, ca: tuple[Path, ...], *, insist: bool) -> Attempt:
        """Who asks for what is known to be down has nothing else to serve: it may be back, which is looked at first."""
        try:
            return self._watch.begin(url, ca, insist=insist)
        except Down:
            if not await self._watch.returned(url):
                raise
        return self._watch.begin(url, ca, insist=insist)

    async def _send(
        self, step: Step, fields: list[tuple[str, str]], body: bytes | None, context: ssl.SSLContext | bool, host: str
    ) -> aiohttp.ClientResponse:
        """Returns with the head of the answer. Raises `UpstreamError`."""
        url = yarl.URL(step.url, encoded=True)
        try:
            return await self._pool().request(
                step.method, url, headers=fields, data=body, ssl=context, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError) as error:
            # The cause is left out: aiohttp's texts quote whole URLs, and a signed URL is a credential.
            raise translated(error, host) from None

    def _pool(self) -> aiohttp.ClientSession:
        """The session, made on first use: it belongs to the running loop."""
        if self._session is None:
            settings = self._settings
            self._session = new_session(
                self._resolver,
                connect_timeout=settings.connect_timeout,
                read_timeout=settings.read_timeout,
                per_host=settings.per_host,
                reuse=settings.reuse,
            )
        return self._session

    def refuse_inward(self, url: str, *, first: str) -> None:
        """A registry out there must not send us to ourselves or to what only this machine can reach.

        Names are checked when they are resolved; an address in a redirect never gets that far.
        """
        target, start = urlsplit(url), urlsplit(first)
        host = target.hostname or ""
        if host == start.hostname or self._is_inward(start.hostname or "", start.port):
            return
        if self._resolver.is_own(host, target.port):
            raise LoopDetected(host_of(first), f"redirects to our own address {host}")
        if self._is_inward(host, target.port):
            raise BadRedirect(host_of(first), f"redirects to {host}, which is on this machine or link")

    def _is_inward(self, host: str, port: int | None) -> bool:
        if host == "localhost" or host.endswith(".localhost") or self._resolver.is_own(host, port):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or address.is_link_local or address.is_unspecified


def _give_up(raw: aiohttp.ClientResponse) -> None:
    """Ends an exchange. An unread rest means the connection is of no use: it is cut, not wound down.

    A TLS close in asyncio waits up to 30 s for the peer's farewell behind whatever it is still sending.
    """
    connection = raw.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    raw.close()


def _checked(url: str) -> str:
    """The host of a URL that can be asked for; UpstreamError for any other."""
    host = host_of(url)
    try:
        parts = http_url(url)
    except ValueError as error:
        raise UpstreamError(host, str(error)) from None
    if "@" in parts.netloc:
        raise UpstreamError(host, "credentials in the url are not sent: configure them apart")
    return host
