"""The layer that reads requests from the decrypted stream.

1. A pull of the registry API, or a request for a token, becomes an `Exchange`: a simple request that the engine takes,
   with the small form that some clients send to token services. The layer pauses while the pump writes the answer, then
   reads on; what the client sends meanwhile is queued.
2. Every other request goes, byte for byte, to mitmproxy's HTTP layer on this connection, which passes it through to
   the real host; when that is done the layer reads the next request itself.
3. What the parser does not accept as HTTP gets 400 and reaches nobody.
4. The name in the handshake and the name in `Host` must agree (421, RFC 9110 15.5.20): certificates and catalogue
   entries are per name.
"""

from dataclasses import dataclass, field
from typing import Final

from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.http import HttpLayer

from entrepot.addons.handler import Handler
from entrepot.addons.http1 import END, MAX_HEAD, Head, host_of, parse_head
from entrepot.addons.onward import onward_layer
from entrepot.addons.tls import RegistryTLSLayer
from entrepot.engine.engine import Engine
from entrepot.registry.routes import Route, TokenRoute, parse_target

BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass(eq=False)
class Exchange:
    """One request that we answer ourselves."""

    handler: Handler
    tls: RegistryTLSLayer
    head: Head
    name: str  # the host asked for, in the catalogue's spelling
    route: Route | None  # None: a request that is refused, see `refuse`
    refuse: str = ""  # why, when it is
    body: bytes = field(default=b"", repr=False)  # the form; may hold a password
    keep_alive: bool = False  # set by whoever answered: whether the connection may be used again


@dataclass
class RegistryPullHook(commands.StartHook):
    """Blocking: the addon answers the exchange before the layer goes on."""

    exchange: Exchange


@dataclass(eq=False)
class Onward:
    """A connection about to be passed through; the addon says where to."""

    context: context.Context
    name: str
    error: str = ""


@dataclass
class RegistryOnwardHook(commands.StartHook):
    """Blocking: the addon resolves the real host before mitmproxy connects to it."""

    onward: Onward


class PullLayer(layer.Layer):
    """See the module."""

    def __init__(self, ctx: context.Context, handler: Handler) -> None:
        super().__init__(ctx)
        self._handler = handler
        self._buffer = b""
        self._awaiting: tuple[Head, int] | None = None  # a head of ours whose form is on its way, and its bytes
        self._http: HttpLayer | None = None

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            return
        if isinstance(event, events.DataReceived) and event.connection is self.context.client:
            if self._passing():
                yield from self._to_http(event)
            else:
                self._buffer += event.data
                yield from self._requests()
        elif self._http is not None:
            yield from self._to_http(event)
        elif isinstance(event, events.ConnectionClosed):
            yield commands.CloseConnection(self.context.client)

    def _passing(self) -> bool:
        """Whether mitmproxy's HTTP layer is in the middle of a request."""
        return self._http is not None and bool(self._http.streams)

    def _requests(self) -> layer.CommandGenerator[None]:
        """Takes whole requests off the buffer until it needs more bytes, passes on, or closes."""
        while self._buffer:
            if (found := self._awaiting or (yield from self._head())) is None:
                return
            head, end = found
            if len(self._buffer) < end + head.form:
                self._awaiting = found
                return
            body = self._buffer[end : end + head.form]
            self._buffer, self._awaiting = self._buffer[end + head.form :], None
            exchange = self._exchange(head, body)
            self._handler.busy = True
            yield RegistryPullHook(exchange)
            self._handler.busy = False
            if not exchange.keep_alive:
                yield commands.CloseConnection(self.context.client)
                return

    def _head(self) -> layer.CommandGenerator[tuple[Head, int] | None]:
        """The next head if it is ours to answer, and its bytes; else passes on, refuses, or waits for more of it."""
        end = self._buffer.find(END)
        if end < 0:
            if len(self._buffer) > MAX_HEAD or b"\n\n" in self._buffer:
                yield from self._pass_on()
            return None
        end += len(END)
        head = parse_head(self._buffer[:end])
        if head is None:
            yield commands.SendData(self.context.client, BAD_REQUEST)
            yield commands.CloseConnection(self.context.client)
            return None
        if not self._mine(head):
            yield from self._pass_on()
            return None
        return head, end

    def _mine(self, head: Head) -> bool:
        """Whether we answer: a pull, a request for a token, or a simple request that must be refused."""
        if not head.simple:
            return False
        if not head.form and host_of(head.headers) != self._sni():
            return True
        route = parse_target(head.target)
        if isinstance(route, TokenRoute) and "cookie" in head.headers:
            return False  # a person with a browser, on a page that looks like a token service
        return Engine.takes(head.method, route) and (not head.form or host_of(head.headers) == self._sni())

    def _exchange(self, head: Head, body: bytes) -> Exchange:
        name = self._sni()
        agrees = host_of(head.headers) == name
        route = parse_target(head.target) if agrees else None
        refuse = "" if agrees else f"this connection is for {name}"
        return Exchange(self._handler, self._tls(), head, name, route, refuse, body)

    def _sni(self) -> str:
        return (self.context.client.sni or "").lower().removesuffix(".")

    def _tls(self) -> RegistryTLSLayer:
        return next(above for above in self.context.layers if isinstance(above, RegistryTLSLayer))

    def _pass_on(self) -> layer.CommandGenerator[None]:
        if self._http is None:
            onward = Onward(self.context, self._sni())
            yield RegistryOnwardHook(onward)
            self._http = onward_layer(self.context)
            yield from self._to_http(events.Start())
        data, self._buffer = self._buffer, b""
        yield from self._to_http(events.DataReceived(self.context.client, data))

    def _to_http(self, event: events.Event) -> layer.CommandGenerator[None]:
        if self._http is not None:
            yield from self._http.handle_event(event)
            self._handler.busy = bool(self._http.streams)
