"""A proxy mode of our own inside mitmproxy: `registry:FD[,FD...]`, listening sockets inherited from the supervisor.

Decides what is made of an accepted connection: a `Front`, and once something is asked that is not ours mitmproxy's
handler with our layers. The supervisor keeps the sockets open while a worker restarts, so that connections wait instead
of being refused.
"""

import asyncio
import socket
from typing import Final, cast

from mitmproxy import ctx
from mitmproxy.proxy import context, events, layer
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from OpenSSL import SSL

from entrepot.addons.front import Front
from entrepot.addons.handler import Handler
from entrepot.addons.pull import PullLayer
from entrepot.addons.pulls import Pulls
from entrepot.addons.tls import RegistryTLSLayer
from entrepot.tasks import spawn

BACKLOG: Final = 4096  # connections; docker opens one for every request
SWEEP: Final = 5.0  # seconds between looks for connections on which nothing happens
READ_AHEAD: Final = 64 << 10  # bytes that a stream holds


class RegistryMode(ProxyMode):
    """Clients come by DNS and speak TLS for a registry's name."""

    description = "registry cache"
    transport_protocol = "tcp"

    def __post_init__(self) -> None:
        self.descriptors()

    def descriptors(self) -> list[int]:
        """The listening sockets. Raises ValueError."""
        return [int(fd) for fd in self.data.split(",")]


class RegistryTop(layer.Layer):
    """The outermost layer: holds the connection's context."""

    def __init__(self, ctx: context.Context, handler: Handler, tls: SSL.Connection, read: bytes) -> None:
        super().__init__(ctx)
        self.child_layer = RegistryTLSLayer(ctx, lambda inner: PullLayer(inner, handler), tls, read)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.child_layer.handle_event(event)


class RegistryServer(AsyncioServerInstance[RegistryMode]):
    """Accepts on the inherited sockets."""

    fronts: set[Front]
    """Connections that mitmproxy has not got."""

    def make_top_layer(self, context: context.Context) -> layer.Layer:
        raise NotImplementedError("made together with its handler, in _take_over")

    async def listen(self, host: str, port: int) -> list[asyncio.Server]:  # type: ignore[override]
        loop = asyncio.get_running_loop()
        pulls = cast(Pulls, ctx.master.addons.get("pulls"))
        self.fronts = set()
        self._sweeping = spawn(self._sweep(), name="idle connections")

        def front() -> Front:
            return Front(pulls, self.fronts, self._hand_over)

        return [
            await loop.create_server(front, sock=socket.socket(fileno=fd), backlog=BACKLOG)
            for fd in self.mode.descriptors()
        ]

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP)
            now = loop.time()
            for front in [one for one in self.fronts if one.overdue(now)]:
                front.end()

    def _hand_over(self, front: Front, read: bytes) -> None:
        spawn(self._take_over(front, read), name="connection passed on")

    async def _take_over(self, front: Front, read: bytes) -> None:
        loop = asyncio.get_running_loop()
        transport = front.transport
        reader = asyncio.StreamReader(READ_AHEAD, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        transport.resume_reading()
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        handler = Handler(ctx.master, reader, writer, ctx.options, self.mode)
        handler.layer = RegistryTop(handler.layer.context, handler, front.tls, read)
        try:
            with self.manager.register_connection(handler.client.id, handler):
                await handler.handle_client()
        finally:
            # A handler that is cancelled while it waits for its own lock leaves the socket open.
            writer.close()

    async def _stop(self) -> None:
        self._sweeping.cancel()
        await super()._stop()
