"""The least of a registry over TLS on loopback, and a proxy that takes every CONNECT to it, whatever the name."""

import hashlib
import http.server
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_BODY = json.dumps({"schemaVersion": 2, "mediaType": _MANIFEST, "layers": []}).encode()


@dataclass(frozen=True, slots=True)
class Ports:
    registry: int
    proxy: int


class _Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Refused handshakes are what is tested."""


class _Registry(_Quiet):
    def do_GET(self) -> None:
        body = _BODY if "/manifests/" in self.path else b"{}"
        self.send_response(200)
        self.send_header("Content-Type", _MANIFEST if body is _BODY else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(body).hexdigest()}")
        self.end_headers()
        self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        """As above."""


@contextmanager
def serving(chain: Path) -> Iterator[Ports]:
    """Serves with the chain and the key beside it until the block ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, chain.with_suffix(".key"))
    with _Server(("127.0.0.1", 0), _Registry) as registry:
        registry.socket = context.wrap_socket(registry.socket, server_side=True, do_handshake_on_connect=False)
        address = ("127.0.0.1", registry.server_port)

        class Proxy(_Quiet):
            def do_CONNECT(self) -> None:
                self.close_connection = True
                self.send_response(200)
                self.end_headers()
                with closing(socket.create_connection(address)) as upstream:
                    back = threading.Thread(target=_pump, args=(upstream, self.connection))
                    back.start()
                    _pump(self.connection, upstream)
                    back.join()

        with _Server(("127.0.0.1", 0), Proxy) as proxy:
            threads = [threading.Thread(target=server.serve_forever, args=(0.02,)) for server in (registry, proxy)]
            for thread in threads:
                thread.start()
            try:
                yield Ports(registry.server_port, proxy.server_port)
            finally:
                for server in (registry, proxy):
                    server.shutdown()
                for thread in threads:
                    thread.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
