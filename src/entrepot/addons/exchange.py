"""One request that we answer ourselves, and the client connection it came on.

Decides which requests these are: pulls of the registry API and requests for a token, if they are simple enough for
`http1` to read. Every other request is mitmproxy's.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from OpenSSL import SSL

from entrepot.addons.http1 import Head, host_of
from entrepot.engine.engine import Engine
from entrepot.registry.routes import Route, TokenRoute, parse_target


class Writer(Protocol):
    """What a `Client` is written to, encrypted."""

    @property
    def transport(self) -> asyncio.WriteTransport:
        """Raises KeyError when the client is gone."""

    def write(self, data: bytes) -> None:
        """Behind what the socket has not taken yet."""

    async def drain(self) -> None:
        """Returns when there is room for more. Raises OSError when the client is gone."""


class Client(Protocol):
    """A connection of a client, for whoever answers on it."""

    clean_end: bool
    """Whether closing says goodbye; False after a body that ended short, so that no client takes it for whole."""

    @property
    def address(self) -> str:
        """For the log."""

    @property
    def tls(self) -> SSL.Connection:
        """What is written goes through it, and then to `writer`."""

    @property
    def writer(self) -> "Writer":
        """Raises KeyError when the client is gone."""


@dataclass(eq=False, slots=True)
class Exchange:
    """One request that we answer ourselves."""

    client: Client
    head: Head
    name: str  # the host asked for, in the catalogue's spelling
    route: Route | None  # None: a request that is refused, see `refuse`
    refuse: str = ""  # why, when it is
    body: bytes = field(default=b"", repr=False)  # the form; may hold a password
    raw: bytes = field(default=b"", repr=False)  # the head as it came; holds the credential
    keep_alive: bool = False  # set by whoever answered: whether the connection may be used again


def is_ours(head: Head, name: str) -> bool:
    """Whether we answer: a pull, a request for a token, or a simple request that must be refused."""
    if not head.simple:
        return False
    agrees = host_of(head.headers) == name
    if not head.form and not agrees:
        return True
    route = parse_target(head.target)
    if isinstance(route, TokenRoute) and "cookie" in head.headers:
        return False  # a person with a browser, on a page that looks like a token service
    return Engine.takes(head.method, route) and (not head.form or agrees)


def exchange_for(client: Client, head: Head, name: str, body: bytes, raw: bytes) -> Exchange:
    """The name in the handshake and the name in `Host` must agree (421, RFC 9110 15.5.20)."""
    agrees = host_of(head.headers) == name
    route = parse_target(head.target) if agrees else None
    return Exchange(client, head, name, route, "" if agrees else f"this connection is for {name}", body, raw)
