"""A proxy mode of our own inside mitmproxy: `registry:FD[,FD...]`, listening sockets inherited from the supervisor.

Decides what is made of an accepted connection: our handler, our TLS layer, our pull layer. The supervisor keeps the
sockets open while a worker restarts, so that connections wait instead of being refused.
"""

import asyncio
import socket

from mitmproxy import ctx
from mitmproxy.proxy import context, events, layer
from mitmproxy.proxy.mode_servers import AsyncioServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from entrepot.addons.handler import Handler
from entrepot.addons.pull import PullLayer
from entrepot.addons.tls import RegistryTLSLayer

BACKLOG = 4096  # connections; docker opens one for every request


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
    """The outermost layer: holds the connection's context and starts TLS."""

    def __init__(self, ctx: context.Context, handler: Handler) -> None:
        super().__init__(ctx)
        self.child_layer = RegistryTLSLayer(ctx, lambda inner: PullLayer(inner, handler))

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        yield from self.child_layer.handle_event(event)


class RegistryServer(AsyncioServerInstance[RegistryMode]):
    """Accepts on the inherited sockets."""

    def make_top_layer(self, context: context.Context) -> layer.Layer:
        raise NotImplementedError("made together with its handler, in handle_stream")

    async def listen(self, host: str, port: int) -> list[asyncio.Server]:  # type: ignore[override]
        return [
            await asyncio.start_server(self.handle_stream, sock=socket.socket(fileno=fd), backlog=BACKLOG)
            for fd in self.mode.descriptors()
        ]

    async def handle_stream(  # type: ignore[override]
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        handler = Handler(ctx.master, reader, writer, ctx.options, self.mode)
        handler.layer = RegistryTop(handler.layer.context, handler)
        try:
            with self.manager.register_connection(handler.client.id, handler):
                await handler.handle_client()
        finally:
            # A handler that is cancelled while it waits for its own lock leaves the socket open.
            writer.close()
