"""Connections to upstream: the aiohttp session, its pool, and aiohttp's failures as ours.

Decides how large things may get and how long idle connections live. What is asked over them is `client`'s.
"""

import asyncio
import ipaddress
import socket
from typing import Any, Final, override

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from entrepot.upstream.errors import InvalidResponse, TimedOut, Unreachable, Untrusted, UpstreamError, cause_of
from entrepot.upstream.resolver import Resolver

READ_BUFFER: Final = 512 * 1024
"""Bytes. The socket is stopped at twice this: what comes while a piece is written is the next piece."""

RECORD: Final = 16 * 1024
"""Bytes of a full TLS record: no read gives more."""

MAX_FIELD: Final = 64 * 1024
"""Bytes of one header field. gcr.io sends tokens far beyond the usual 8 KiB in `Location`."""

MAX_FIELDS: Final = 256
"""Header fields of one answer."""

IDLE_SECONDS: Final = 15.0
"""An idle connection is given up before the front ends of the big registries do (60 s and more), so that a
request rarely meets one that is being closed."""


def new_session(
    resolver: Resolver, *, connect_timeout: float, read_timeout: float, per_host: int, reuse: bool
) -> aiohttp.ClientSession:
    """A session of the running loop; `reuse`: a connection may serve more than one exchange."""
    connector = _Connector(
        resolver=_ResolverPort(resolver),
        use_dns_cache=False,
        limit=0,
        limit_per_host=per_host,
        keepalive_timeout=IDLE_SECONDS if reuse else None,
        force_close=not reuse,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, connect=None, sock_connect=connect_timeout, sock_read=read_timeout),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        read_bufsize=READ_BUFFER,
        max_line_size=MAX_FIELD,
        max_field_size=MAX_FIELD,
        max_headers=MAX_FIELDS,
        trust_env=False,
    )


def translated(error: Exception, host: str) -> UpstreamError:
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


class _Connector(aiohttp.TCPConnector):
    """A pool that does not hand out a connection on which something has arrived unasked.

    aiohttp takes that for the answer to the next request (aio-libs/aiohttp#13656): one surplus answer, and a HEAD
    that was to prove a credential is answered by what belongs to another. A test watches that aiohttp asks here.
    """

    @override
    async def _wrap_create_connection(self, *args: Any, **kwargs: Any) -> tuple[asyncio.Transport, ResponseHandler]:
        transport, protocol = await super()._wrap_create_connection(*args, **kwargs)
        if (tls := getattr(transport, "_ssl_protocol", None)) is not None:
            # asyncio asks for 256 KiB at each read of a record, which allocates and gives back so much for 16 KiB.
            tls.max_size = RECORD
        return transport, protocol

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
