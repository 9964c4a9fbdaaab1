"""One client connection: mitmproxy's handler, open for the pump."""

import asyncio
from typing import cast

from mitmproxy.proxy.mode_servers import ProxyConnectionHandler


class Handler(ProxyConnectionHandler):
    """What the pump and the pull layer need of a connection beyond what layers may see."""

    busy = False
    """An answer or a pass-through is under way."""

    @property
    def writer(self) -> asyncio.StreamWriter:
        """The transport towards the client. Raises KeyError when it is gone."""
        return cast(asyncio.StreamWriter, self.transports[self.client].writer)

    @property
    def address(self) -> str:
        """The client's address, for the log."""
        peer = self.client.peername
        return str(peer[0]) if peer else "?"

    def end(self) -> None:
        """Closes the connection, whatever it is doing."""
        io = self.transports.get(self.client)
        if io is not None and io.handler is not None:
            io.handler.cancel("shutting down")
