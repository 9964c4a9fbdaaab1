"""The layer that reads requests of a connection that mitmproxy has, because something was asked that is not ours.

1. A request that is not ours goes, byte for byte, to mitmproxy's HTTP layer on this connection, which passes it through
   to the real host; when that is done the layer reads the next request itself.
2. A request that is ours becomes an `Exchange`. The layer pauses while the pump writes the answer, then reads on; what
   the client sends meanwhile is queued.
3. What the parser does not accept as HTTP gets 400 and reaches nobody.
"""

import asyncio
from dataclasses import dataclass

from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.http import HttpLayer
from OpenSSL import SSL

from entrepot.addons.exchange import Exchange, exchange_for, is_ours
from entrepot.addons.handler import Handler
from entrepot.addons.http1 import BAD_REQUEST, END, MAX_HEAD, Head, parse_head
from entrepot.addons.onward import onward_layer
from entrepot.addons.tls import RegistryTLSLayer


class Layered:
    """The client of a connection that mitmproxy has: `entrepot.addons.exchange.Client`."""

    def __init__(self, handler: Handler, layer: RegistryTLSLayer) -> None:
        self._handler, self._layer = handler, layer

    @property
    def clean_end(self) -> bool:
        return self._layer.clean_end

    @clean_end.setter
    def clean_end(self, clean: bool) -> None:
        self._layer.clean_end = clean

    @property
    def address(self) -> str:
        return self._handler.address

    @property
    def tls(self) -> SSL.Connection:
        return self._layer.tls

    @property
    def writer(self) -> asyncio.StreamWriter:
        return self._handler.writer


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
            exchange = exchange_for(Layered(self._handler, self._tls()), head, self._sni(), body, b"")
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
        if not is_ours(head, self._sni()):
            yield from self._pass_on()
            return None
        return head, end

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
