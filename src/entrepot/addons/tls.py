"""TLS towards clients, with leaves of our own authority.

Which certificate, which names and how a connection ends is decided here. A name outside the catalogue never gets a
certificate. One context per name, kept while its leaf is good: building one costs more than a handshake. A connection
begins with a context that has no certificate, and gets the one of its name when that has been read.
"""

import logging
from collections.abc import Callable
from typing import Final

from cryptography import x509
from mitmproxy.proxy import commands, context, events, layer
from mitmproxy.proxy.layers.tls import ClientTLSLayer
from mitmproxy.proxy.tunnel import TunnelState
from OpenSSL import SSL

from entrepot.certs.errors import CertsError
from entrepot.certs.leaves import Leaf, LeafIssuer

_log: Final = logging.getLogger("entrepot.tls")
UNRECOGNIZED_NAME: Final = b"\x15\x03\x03\x00\x02\x02\x70"  # a fatal alert record: level 2, description 112
CIPHERS: Final = (  # TLS 1.2 only; forward secrecy and AEAD, with an EC key. TLS 1.3 has its own list
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305"
)
TLS13_CIPHERS: Final = b"TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384"  # cheapest first
PARTIAL_WRITE: Final = 1  # SSL_MODE_ENABLE_PARTIAL_WRITE, which pyOpenSSL sets: a call for each record instead of one
HTTP1: Final = b"http/1.1"


class ServerContexts:
    """An `SSL.Context` per name, made on first use."""

    def __init__(self) -> None:
        self._leaves: LeafIssuer | None = None
        self._intercepts: Callable[[str], bool] = lambda name: False
        self._made: dict[str, tuple[Leaf, SSL.Context]] = {}
        self._first = _context()
        self._first.set_tlsext_servername_callback(self._choose)
        self._refused: dict[SSL.Connection, str] = {}

    def connection(self) -> SSL.Connection:
        """A server's side of a connection, before the handshake."""
        made = SSL.Connection(self._first)
        made.set_accept_state()
        return made

    def refused(self, tls: SSL.Connection) -> str | None:
        """The name for which the handshake had to fail; None if it failed for another reason. To be asked once."""
        return self._refused.pop(tls, None)

    def _choose(self, tls: SSL.Connection) -> None:
        """OpenSSL's question, once it has read the ClientHello."""
        sni = tls.get_servername()
        name = sni.decode("ascii", "replace") if sni else None
        try:
            made = self.get(name)
        except CertsError as e:
            _log.error("no certificate for %s: %s", name, e)
            made = None
        if made is None:
            self._refused[tls] = name or "?"
        else:
            tls.set_context(made)

    def use(self, leaves: LeafIssuer, intercepts: Callable[[str], bool]) -> None:
        """From the next handshake on."""
        self._leaves, self._intercepts = leaves, intercepts

    def get(self, sni: str | None) -> SSL.Context | None:
        """None for a name that is not ours, or without a name: the handshake is to be refused."""
        if sni is None:
            return None
        name = sni.lower().removesuffix(".")
        if self._leaves is None or not self._intercepts(name):
            return None
        try:
            leaf = self._leaves.issue(name)
        except CertsError:
            self._made.pop(name, None)
            raise
        kept = self._made.get(name)
        if kept is None or kept[0] is not leaf:
            kept = self._made[name] = (leaf, _server_context(leaf))
        return kept[1]


def _context() -> SSL.Context:
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.set_min_proto_version(SSL.TLS1_2_VERSION)
    made.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    made.set_mode(SSL.MODE_RELEASE_BUFFERS)
    made.clear_mode(PARTIAL_WRITE)
    made.set_cipher_list(CIPHERS)
    made.set_tls13_ciphersuites(TLS13_CIPHERS)
    made.set_alpn_select_callback(_select_alpn)
    return made


def _server_context(leaf: Leaf) -> SSL.Context:
    made = _context()
    first, *rest = x509.load_pem_x509_certificates(leaf.chain_pem)
    made.use_certificate(first)
    made.use_privatekey(leaf.key)
    for issuer in rest:
        made.add_extra_chain_cert(issuer)
    return made


def _select_alpn(connection: SSL.Connection, offers: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return HTTP1 if HTTP1 in offers else SSL.NO_OVERLAPPING_PROTOCOLS


class RegistryTLSLayer(ClientTLSLayer):
    """mitmproxy's client TLS on a connection whose handshake is over; says goodbye when it ends."""

    clean_end = True
    """Whether closing sends close_notify; False after a body that ended short, so that no client takes it for whole."""

    def __init__(
        self, ctx: context.Context, child: Callable[[context.Context], layer.Layer], tls: SSL.Connection, read: bytes
    ) -> None:
        """`read`: what has come over it and has not been answered."""
        super().__init__(ctx)
        self.tls, self._read = tls, read
        sni = tls.get_servername()
        self.conn.sni = sni.decode("ascii", "replace") if sni else None
        self.conn.alpn = tls.get_alpn_proto_negotiated()
        self.conn.cipher = tls.get_cipher_name()
        self.conn.tls = True
        self.conn.timestamp_tls_setup = self.conn.timestamp_start
        self.child_layer = child(ctx)

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            self.tunnel_state = TunnelState.OPEN
            yield from self.event_to_child(event)
            read, self._read = self._read, b""
            yield from self.event_to_child(events.DataReceived(self.conn, read))
            return
        yield from super()._handle_event(event)

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        if self.clean_end:
            try:
                self.tls.shutdown()
            except SSL.Error:  # the peer is gone already
                pass
            else:
                yield from self.tls_interact()
        yield from super().send_close(command)
