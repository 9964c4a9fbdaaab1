"""mitmproxy's HTTP layer for what passes through, with our manners when it fails.

A request that cannot be passed on gets an error of the OCI distribution spec, which registry clients show to their
users, instead of mitmproxy's HTML page; and an answer that breaks off ends without a goodbye, so that nobody takes it
for whole.
"""

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, layer
from mitmproxy.proxy.layers.http import HttpLayer, HTTPMode
from mitmproxy.proxy.layers.http._events import HttpEvent, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Server

from entrepot.addons.http1 import response_head
from entrepot.addons.tls import RegistryTLSLayer
from entrepot.engine.messages import Answer
from entrepot.headers import Headers
from entrepot.registry import oci_errors


class OnwardServer(Http1Server):
    """The side of the HTTP layer that talks to the client."""

    def send(self, event: HttpEvent) -> layer.CommandGenerator[None]:
        if isinstance(event, ResponseProtocolError) and self.conn.state & ConnectionState.CAN_WRITE:
            status = event.code.http_status_code()
            if self.response is None and status is not None:
                yield commands.SendData(self.conn, refusal(status, f"{self.context.client.sni}: {event.message}"))
                yield commands.CloseConnection(self.conn)
                return
            for above in self.context.layers:
                if isinstance(above, RegistryTLSLayer):
                    above.clean_end = False
        yield from super().send(event)


def refusal(status: int, why: str) -> bytes:
    """A whole response."""
    body = oci_errors.error_body(oci_errors.UNAVAILABLE, f"entrepot: {why}")
    answer = Answer(status, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body)
    return response_head(answer, length=len(body), keep_alive=False, now=None) + body


def onward_layer(ctx: context.Context) -> HttpLayer:
    """An HTTP layer for this connection; not started."""
    made = HttpLayer(ctx, HTTPMode.transparent)
    made.connections[ctx.client] = OnwardServer(ctx.fork())
    return made
