"""HTTP towards registries and their CDNs: one exchange (`open`) or one with its redirects (`follow`).

Decides how connections are made, kept and given up, what is sent besides the caller's fields, and how failures are
told apart. Leaves tokens, quotas and what an outage is to others; `redirects` decides where a redirect may lead.
HTTP/1.1 only: every registry speaks it, and one connection per transfer is what bulk wants. Why aiohttp:
`docs/decisions/0004-upstream-http-client.md`.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, override
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from entrepot.headers import Headers
from entrepot.upstream.contexts import TrustStore
from entrepot.upstream.errors import (
    BadRedirect,
    InvalidResponse,
    LoopDetected,
    TimedOut,
    TooManyRedirects,
    Unreachable,
    Untrusted,
    UpstreamError,
    cause_of,
)
from entrepot.upstream.fields import outgoing
from entrepot.upstream.redirects import REDIRECTS, Step, host_of, http_url, next_step, origin, printable
from entrepot.upstream.resolver import Resolver
from entrepot.upstream.response import Response

READ_BUFFER: Final = 256 * 1024
"""Bytes. The socket is stopped at twice this; as much as one read of asyncio's TLS gives."""

MAX_FIELD: Final = 64 * 1024
"""Bytes of one header field. gcr.io sends tokens far beyond the usual 8 KiB in `Location`."""

MAX_FIELDS: Final = 256
"""Header fields of one answer."""

IDLE_SECONDS: Final = 15.0
"""An idle connection is given up before the front ends of the big registries do (60 s and more), so that a
request rarely meets one that is being closed."""

DRAIN_BYTES: Final = 16 * 1024
"""A redirect's body up to this size is read so that the connection can be used again; a longer one is cut."""

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


class UpstreamClient:
    """Exchanges with registries over one pool of connections. Belongs to the event loop that first uses it."""

    def __init__(self, settings: ClientSettings, resolver: Resolver) -> None:
        self._settings = settings
        self._resolver = resolver
        self._trust = TrustStore()
        self._session: aiohttp.ClientSession | None = None

    async def aclose(self) -> None:
        """Drops all connections, those in use included. Safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: Headers, *, ca: tuple[Path, ...] = (), body: bytes | None = None
    ) -> AsyncIterator[Response]:
        """One exchange; a redirect is an answer like any other.

        A request with an idempotent method is sent once more when the connection goes away before the answer.
        Leaving the block early closes the connection at once. Raises the errors of `errors`; ValueError for a
        header field with a line break.
        """
        step = Step(method.upper(), url, headers)
        async with self._exchange(step, ca=ca, body=body, hop=0, elsewhere=False) as response:
            yield response

    @asynccontextmanager
    async def follow(
        self, method: str, url: str, headers: Headers, *, ca: tuple[Path, ...] = (), max_redirects: int = 5
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
                exchange = self._exchange(step, ca=ca, body=None, hop=hop, elsewhere=elsewhere)
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
        self, step: Step, *, ca: tuple[Path, ...], body: bytes | None, hop: int, elsewhere: bool
    ) -> AsyncIterator[Response]:
        host = _checked(step.url)
        fields = outgoing(step.headers, via=self._settings.via, user_agent=self._settings.user_agent)
        context: ssl.SSLContext | bool = True
        if step.url.startswith("https:"):
            context = await self._trust.context(ca, host=host)
        try:
            raw = await self._pool().request(
                step.method,
                yarl.URL(step.url, encoded=True),
                headers=fields,
                data=body,
                ssl=context,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            # The cause is left out: aiohttp's texts quote whole URLs, and a signed URL is a credential.
            raise _translated(error, host) from None
        _log.debug("%s %s: %d", step.method, printable(step.url), raw.status)
        try:
            yield Response(
                raw,
                method=step.method,
                url=step.url,
                host=host,
                redirected=hop > 0,
                elsewhere=elsewhere,
                read_timeout=self._settings.read_timeout,
            )
        finally:
            _give_up(raw)

    def _pool(self) -> aiohttp.ClientSession:
        """The session, made on first use: it belongs to the running loop."""
        if self._session is None:
            settings = self._settings
            connector = _Connector(
                resolver=_ResolverPort(self._resolver),
                use_dns_cache=False,
                limit=0,
                limit_per_host=settings.per_host,
                keepalive_timeout=IDLE_SECONDS,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(
                    total=None, connect=None, sock_connect=settings.connect_timeout, sock_read=settings.read_timeout
                ),
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
                read_bufsize=READ_BUFFER,
                max_line_size=MAX_FIELD,
                max_field_size=MAX_FIELD,
                max_headers=MAX_FIELDS,
                trust_env=False,
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


class _Connector(aiohttp.TCPConnector):
    """A pool that does not hand out a connection on which something has arrived unasked.

    aiohttp takes that for the answer to the next request (aio-libs/aiohttp#13656): one surplus answer, and a HEAD
    that was to prove a credential is answered by what belongs to another. A test watches that aiohttp asks here.
    """

    @override
    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                return connection
            connection.close()
        return None


class _ResolverPort(AbstractResolver):
    """Our resolver in the shape aiohttp asks for."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET,
                proto=0,
                flags=flags,
            )
            for address in await self._resolver.resolve(host, port)
        ]

    @override
    async def close(self) -> None:
        """Nothing to release: a query's socket lives as long as the query."""


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


def _translated(error: Exception, host: str) -> UpstreamError:
    """aiohttp's failure before the answer, as one of ours."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return Untrusted(host, cause_of(error.certificate_error))
        case aiohttp.ClientConnectorError():
            return Unreachable(host, f"cannot connect: {cause_of(error.os_error)}")
        case aiohttp.ConnectionTimeoutError():
            return TimedOut(host, "no connection in time")
        case asyncio.TimeoutError():
            return TimedOut(host, "no answer in time")
        case aiohttp.ServerDisconnectedError():
            return Unreachable(host, "closed the connection before it answered")
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return InvalidResponse(host, "sent no valid http answer")
        case _:
            return Unreachable(host, f"connection lost before the answer: {cause_of(error)}")
