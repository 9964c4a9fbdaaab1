"""The addon for what is not a pull: token requests, pushes, web pages; streamed both ways to the real host.

mitmproxy's HTTP layer does the work. This decides where the real host is (its address comes from our resolver, never
from ours), that bodies are never held in memory, and that neither a loop nor a foreign `Host` gets through.
"""

import ipaddress
import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from urllib.parse import urlsplit

from mitmproxy import connection, http, tls
from OpenSSL import SSL

from entrepot.addons.pull import Onward
from entrepot.counters import Counters
from entrepot.engine.owntokens import holds_own_token
from entrepot.errors import EntrepotError
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Catalogue, HostMatch, Registry
from entrepot.registry.routes import ManifestRoute, parse_target
from entrepot.upstream.errors import UpstreamError
from entrepot.upstream.fields import is_own
from entrepot.upstream.resolver import Resolver

type Changed = Callable[[Registry, ManifestRoute], Awaitable[None]]
"""Told of a manifest that upstream has just accepted, or removed."""

_log = logging.getLogger("entrepot.access")
HTTPS = 443
CHANGING = frozenset({"PUT", "DELETE"})
MISDIRECTED = 421
LOOP_DETECTED = 508
BAD_GATEWAY = 502
NO_PARTIAL_WILDCARDS = 0x4  # X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS
NEVER_CHECK_SUBJECT = 0x20  # X509_CHECK_FLAG_NEVER_CHECK_SUBJECT


class PassThrough:
    """Hooks of mitmproxy's HTTP layer and of the connection to the real host."""

    def __init__(
        self, catalogue: Catalogue, resolver: Resolver, counters: Counters, *, via: str, changed: Changed
    ) -> None:
        self.catalogue, self._changed = catalogue, changed
        self._resolver, self._counters, self._via = resolver, counters, via
        self._pseudonym = via.partition(" ")[2]

    async def registry_onward(self, onward: Onward) -> None:
        """Our hook: where a connection that is passed through goes to."""
        host, port, secure = _origin(self.catalogue.match(onward.name), onward.name)
        server = onward.context.server
        server.tls = secure
        server.sni = host
        try:
            addresses = await self._resolver.resolve(host, port)
        except UpstreamError as e:
            onward.error = str(e)
            server.address = (host, port)
            server.error = onward.error
            return
        server.address = (addresses[0], port)

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuses what must not get through; streams the rest."""
        name = (flow.client_conn.sni or "").lower().removesuffix(".")
        via = flow.request.headers.get_all("via")
        asked = {host.lower().removesuffix(".") for host in _hosts_asked(flow.request)}
        flow.request.authority = ""  # an absolute-form target goes on in origin form, as every registry expects it
        if asked != {name}:
            flow.response = _refusal(MISDIRECTED, f"this connection is for {name}")
        elif is_own(via, self._pseudonym):
            flow.response = _refusal(LOOP_DETECTED, "this request has passed through here already")
        else:
            flow.request.headers.set_all("via", [*via, self._via])
            if holds_own_token(flow.request.headers.get("authorization", "")):
                del flow.request.headers["authorization"]  # upstream challenges anew
            flow.request.stream = True

    async def responseheaders(self, flow: http.HTTPFlow) -> None:
        """mitmproxy's hook, before the client gets a byte: what it has pushed is what the next one is to get."""
        if flow.request.method in CHANGING and flow.response is not None and flow.response.status_code < 300:
            match, route = self.catalogue.match(flow.client_conn.sni or ""), parse_target(flow.request.path)
            if match is not None and isinstance(route, ManifestRoute):
                try:
                    await self._changed(match.registry, route)
                except EntrepotError as e:
                    _log.warning("%s is not known to have changed: %s", route.path, e)
        if flow.response is not None and flow.response.raw_content is None:
            flow.response.stream = True

    def response(self, flow: http.HTTPFlow) -> None:
        self._note(flow, flow.response.status_code if flow.response else 0, "")

    def error(self, flow: http.HTTPFlow) -> None:
        self._note(flow, BAD_GATEWAY, flow.error.msg if flow.error else "")

    def _note(self, flow: http.HTTPFlow, status: int, error: str) -> None:
        self._counters.add("requests")
        self._counters.add("requests_through")
        peer = flow.client_conn.peername
        _log.info(
            "client=%s method=%s host=%s path=%s status=%d verdict=through%s",
            peer[0] if peer else "?",
            flow.request.method,
            flow.client_conn.sni,
            flow.request.path.partition("?")[0],
            status,
            f" error={error!r}" if error else "",
        )

    def tls_start_server(self, data: tls.TlsData) -> None:
        """mitmproxy's hook: TLS to the real host, verified."""
        server = data.conn
        if not isinstance(server, connection.Server) or server.sni is None:
            return
        match = self.catalogue.match(server.sni) or self.catalogue.match(data.context.client.sni or "")
        ca = tuple(str(path) for path in match.registry.ca) if match else ()
        made = SSL.Connection(_client_context(ca))
        _verify_name(made, server.sni)
        made.set_connect_state()
        data.ssl_conn = made


def _hosts_asked(request: http.Request) -> list[str]:
    """The names in `Host` and in an absolute-form target (RFC 9112 3.2.2), without ports."""
    found = [*request.headers.get_all("host"), *([request.authority] if request.authority else [])]
    return [(urlsplit(f"//{one}").hostname or "") for one in found]


def _origin(match: HostMatch | None, name: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS, of the real place behind an intercepted name."""
    place = urlsplit(match.origin if match is not None else f"https://{name}")
    secure = place.scheme == "https"
    return place.hostname or name, place.port or (HTTPS if secure else 80), secure


@lru_cache(64)
def _client_context(ca: tuple[str, ...]) -> SSL.Context:
    """The system's store, and `ca` files for a private registry."""
    made = SSL.Context(SSL.TLS_CLIENT_METHOD)
    made.set_min_proto_version(SSL.TLS1_2_VERSION)
    made.set_verify(SSL.VERIFY_PEER)
    made.set_default_verify_paths()
    for path in ca:
        made.load_verify_locations(path)
    return made


def _verify_name(conn: SSL.Connection, name: str) -> None:
    """Sends SNI and makes the handshake fail unless the certificate is for `name`. pyOpenSSL has no call for it."""
    param = SSL._lib.SSL_get0_param(conn._ssl)  # type: ignore[attr-defined]
    SSL._lib.X509_VERIFY_PARAM_set_hostflags(  # type: ignore[attr-defined]
        param, NO_PARTIAL_WILDCARDS | NEVER_CHECK_SUBJECT
    )
    try:
        packed = ipaddress.ip_address(name).packed
    except ValueError:
        encoded = name.encode("idna")
        conn.set_tlsext_host_name(encoded)
        ok = SSL._lib.X509_VERIFY_PARAM_set1_host(param, encoded, len(encoded))  # type: ignore[attr-defined]
    else:
        ok = SSL._lib.X509_VERIFY_PARAM_set1_ip(param, packed, len(packed))  # type: ignore[attr-defined]
    if ok != 1:
        raise ValueError(f"cannot verify the name {name!r}")


def _refusal(status: int, why: str) -> http.Response:
    body = oci_errors.error_body(oci_errors.DENIED, f"entrepot: {why}")
    return http.Response.make(status, body, {"Content-Type": oci_errors.CONTENT_TYPE})
