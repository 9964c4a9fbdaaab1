"""The servers that are compared: Debian's nginx and docker-registry, and Entrepot as users run it. Loopback only.

Decides how each is configured: the peers at their best (no access log, as long a keep-alive as they can), Entrepot as
it comes. Every one is a `Server` with a process whose descendants are all there is of it.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.content import MANIFEST_TYPE, REPOSITORY
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "registry.test"
START_SECONDS = 30.0
STOP_SECONDS = 10.0
ENTREPOT = Path(sys.executable).with_name("entrepot")

NGINX = """
worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; default_type application/octet-stream;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{
    listen 127.0.0.1:{port}{ssl}; server_name {name}; root {root};
    location = /v2/ {{ return 200; }}
    location /v2/{repository}/manifests/ {{ default_type {manifest_type}; }}
  }}
}}
"""
NGINX_TLS = " ssl; ssl_certificate {0}; ssl_certificate_key {0}; ssl_protocols TLSv1.2 TLSv1.3"

REGISTRY = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}, cache: {{blobdescriptor: inmemory}}}}
auth: {{silly: {{realm: bench, service: bench}}}}
http: {{addr: "127.0.0.1:{port}", secret: bench{tls}}}
"""
REGISTRY_TLS = ", tls: {{certificate: {0}, key: {0}}}"

CONFIGURATION = """
[listen]
address = ["127.0.0.1"]
https = {https}
dns = {dns}
workers = 1
[certs]
path = "{dir}/ca"
[store]
path = "{dir}/store"
[registries."{name}"]
upstream = "http://127.0.0.1:{upstream}"
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to what is left of its group."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def free_port() -> int:
    """A TCP port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(name: str, command: Sequence[str], port: int, directory: Path) -> Server:
    """Runs until `stop`; its output is in a file. Returns at once."""
    log = directory / f"{name.lower().replace(' ', '-')}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)
    return Server(name, port, process, log)


def wait_for(server: Server) -> None:
    """Until it accepts. Raises RuntimeError when it does not."""
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and server.process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", server.port)) == 0:
                return
        time.sleep(0.005)
    raise RuntimeError(f"{server.name} does not answer:\n{server.log.read_text(errors='replace')[-2000:]}")


@contextmanager
def running(server: Server) -> Iterator[Server]:
    try:
        wait_for(server)
        yield server
    finally:
        server.stop()


@contextmanager
def nginx(directory: Path, root: Path, leaf: Path | None) -> Iterator[Server]:
    """Serves the files below `root`; over TLS when it has a `leaf`."""
    port = free_port()
    here = directory / ("nginx-tls" if leaf else "nginx")
    here.mkdir()
    text = NGINX.format(
        dir=here,
        port=port,
        ssl=NGINX_TLS.format(leaf) if leaf else "",
        name=NAME,
        root=root,
        repository=REPOSITORY,
        manifest_type=MANIFEST_TYPE,
        user="user root;" if os.geteuid() == 0 else "",
    )
    file = here / "nginx.conf"
    file.write_text(text)
    command = [program("nginx"), "-c", str(file), "-e", str(here / "nginx.log")]
    with running(start("nginx", command, port, here)) as server:
        yield server


@contextmanager
def registry(directory: Path, storage: Path, leaf: Path | None) -> Iterator[Server]:
    """docker-registry over `storage`; over TLS when it has a `leaf`. Whoever has an Authorization field is let in."""
    port = free_port()
    here = directory / ("registry-tls" if leaf else "registry")
    here.mkdir()
    file = here / "config.yml"
    tls = REGISTRY_TLS.format(leaf) if leaf else ""
    file.write_text(REGISTRY.format(storage=storage, port=port, tls=tls))
    command = [program("docker-registry"), "serve", str(file)]
    with running(start("docker-registry", command, port, here)) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Entrepot:
    """One installation."""

    directory: Path
    port: int

    @classmethod
    def install(cls, directory: Path, upstream: int) -> "Entrepot":
        here, port = directory / "entrepot", free_port()
        here.mkdir()
        text = CONFIGURATION.format(dir=here, https=port, dns=free_port(), name=NAME, upstream=upstream)
        (here / "entrepot.toml").write_text(text)
        return cls(here, port)

    @property
    def ca(self) -> Path:
        """What clients are to trust."""
        return self.directory / "ca/current/ca.crt"

    def start(self) -> Server:
        """Returns at once."""
        command = [str(ENTREPOT), "up", "--config", str(self.directory / "entrepot.toml")]
        return start("Entrepot", command, self.port, self.directory)

    @contextmanager
    def running(self) -> Iterator[Server]:
        with running(self.start()) as server:
            yield server


def program(name: str) -> str:
    """Where a Debian package has put it. Raises SystemExit."""
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        raise SystemExit(f"{name} is missing: apt install {name}")
    return found


def version(command: Sequence[str], pattern: str) -> str:
    """What of the output of `command` is in the first group of `pattern`."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def certificates(directory: Path) -> tuple[Path, Path]:
    """An authority, and a leaf with its key for the peers, both EC P-256. Returns (CA file, leaf file)."""
    now = datetime.now(UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Entrepot benchmark")])

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder(ca_name, subject, public, x509.random_serial_number())
        return made.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=2))

    ca = builder(ca_name, ca_key.public_key()).add_extension(x509.BasicConstraints(True, 0), critical=True)
    names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    leaf = builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)]), key.public_key())
    ca_file, leaf_file = directory / "ca.pem", directory / "leaf.pem"
    pem = serialization.Encoding.PEM
    ca_file.write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    leaf_file.write_bytes(
        leaf.add_extension(names, critical=False).sign(ca_key, hashes.SHA256()).public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ca_file, leaf_file
