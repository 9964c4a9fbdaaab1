"""TLS towards clients, with leaves of our own authority.

mitmproxy's TLS layer does the protocol; which certificate, which names and how a connection ends is ours. A name
outside the catalogue never gets a certificate: the handshake ends with the alert `unrecognized_name` (RFC 6066 3).
One context per name, kept while its leaf is good: building one costs more than a handshake.
"""

from collections.abc import Callable
from typing import Final

from cryptography import x509
from mitmproxy import tls
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, context, layer
from mitmproxy.proxy.layers.tls import ClientTLSLayer, TlsStartClientHook
from OpenSSL import SSL

from entrepot.certs.errors import CertsError
from entrepot.certs.leaves import Leaf, LeafIssuer

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


def _server_context(leaf: Leaf) -> SSL.Context:
    made = SSL.Context(SSL.TLS_SERVER_METHOD)
    made.set_min_proto_version(SSL.TLS1_2_VERSION)
    made.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    made.set_mode(SSL.MODE_RELEASE_BUFFERS)
    made.clear_mode(PARTIAL_WRITE)
    made.set_cipher_list(CIPHERS)
    made.set_tls13_ciphersuites(TLS13_CIPHERS)
    first, *rest = x509.load_pem_x509_certificates(leaf.chain_pem)
    made.use_certificate(first)
    made.use_privatekey(leaf.key)
    for issuer in rest:
        made.add_extra_chain_cert(issuer)
    made.set_alpn_select_callback(_select_alpn)
    return made


def _select_alpn(connection: SSL.Connection, offers: list[bytes]) -> bytes | SSL._NoOverlappingProtocols:
    return HTTP1 if HTTP1 in offers else SSL.NO_OVERLAPPING_PROTOCOLS


class RegistryTLSLayer(ClientTLSLayer):
    """mitmproxy's client TLS, which says why when it refuses and says goodbye when it ends."""

    clean_end = True
    """Whether closing sends close_notify; False after a body that ended short, so that no client takes it for whole."""

    def __init__(self, ctx: context.Context, child: Callable[[context.Context], layer.Layer]) -> None:
        super().__init__(ctx)
        self.child_layer = child(ctx)

    def start_tls(self) -> layer.CommandGenerator[None]:
        data = tls.TlsData(self.conn, self.context)
        yield TlsStartClientHook(data)
        if data.ssl_conn is None:
            yield commands.SendData(self.conn, UNRECOGNIZED_NAME)
            self.conn.state = ConnectionState.CLOSED  # from which our caller concludes that it has to close
            return
        self.tls = data.ssl_conn

    def send_close(self, command: commands.CloseConnection) -> layer.CommandGenerator[None]:
        if self.clean_end and self.tls is not None:
            try:
                self.tls.shutdown()
            except SSL.Error:  # the peer is gone already
                pass
            else:
                yield from self.tls_interact()
        yield from super().send_close(command)
