"""Everything that is mitmproxy: the only room that imports it.

From the wire inwards:

    mode.py         the listening sockets that the supervisor gave us, and what is made of a connection
    handler.py      one connection: mitmproxy's handler, plus the way for the pump to write
    tls.py          the TLS layer and its contexts; names outside the catalogue are refused in the handshake
    pull.py         the layer that reads requests: pulls of the registry API become an `Exchange`, the rest goes on
                    to mitmproxy's own HTTP layer on the same connection
    pulls.py        the addon that answers an `Exchange` with the engine
    pump.py         writes an answer straight into TLS and the transport
    onward.py       mitmproxy's HTTP layer for what is not a pull, with our manners when it fails
    passthrough.py  the addon for it: streamed both ways, to the real host
    worker.py       one worker process put together

Rules: no decision about content, access or freshness is taken here (that is `entrepot.engine`); `mitmproxy.ctx` is
read in `mode.py` only.
"""

from entrepot.addons import lean  # noqa: F401  # before anything of mitmproxy
