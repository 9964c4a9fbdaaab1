"""The upstream of the miss benchmark: nginx with files below the paths of the registry API, and what it was asked.

Decides what a registry without accounts answers; tokens and redirects are the lab tests' business. Its machine also
runs the DNS that everybody but Entrepot's clients asks. No byte passes through Python.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import content
from bench.wires import FAST, WIRES, Wire
from tests.lab import images, pki
from tests.lab.net import HOME, Daemon, Machine, wait_for

REPOSITORY = content.REPOSITORY
MANIFEST_TYPE = content.MANIFEST_TYPE

ROOT = HOME / "www"  # in the machine

NGINX = """
user root; worker_processes 1; daemon off; pid {dir}/nginx.pid; error_log {dir}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  log_format asked escape=json '{{"from": "$remote_addr", "host": "$host", "method": "$request_method",'
    ' "path": "$uri", "status": $status, "sent": $body_bytes_sent, "range": "$http_range"}}';
  access_log {dir}/access.log asked; sendfile on; tcp_nopush on; keepalive_requests 100000; server_tokens off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  default_type application/octet-stream; root {root};
  map $uri $digest {{ "~/manifests/(sha256:[0-9a-f]+)$" $1; "~/manifests/d-([0-9a-f]+)$" sha256:$1; default ""; }}
  {servers}
}}
"""
SERVER = """
  server {{
    listen {address}:443 ssl; server_name {host}; keepalive_timeout {keep}s;
    ssl_certificate {dir}/{host}.crt; ssl_certificate_key {dir}/{host}.key; ssl_protocols TLSv1.2 TLSv1.3;
    add_header Docker-Distribution-Api-Version registry/2.0;
    location = /v2/ {{ return 200; }}
    location /v2/{repository}/manifests/ {{
      default_type {manifest_type}; add_header Docker-Content-Digest $digest;
      add_header Docker-Distribution-Api-Version registry/2.0;
    }}
    location /v2/{repository}/blobs/ {{ limit_rate {rate}; }}
  }}
"""
DNSMASQ = (
    "--keep-in-foreground",
    "--no-resolv",
    "--no-hosts",
    "--user=root",
    "--conf-file=/dev/null",
    "--local-ttl=60",
)


@dataclass(frozen=True, slots=True)
class Blob:
    digest: str
    size: int  # bytes
    file: Path

    @property
    def path(self) -> str:
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"


@dataclass(frozen=True, slots=True)
class Request:
    """One line of the access log."""

    client: str  # address
    host: str
    method: str
    path: str
    status: int
    sent: int  # bytes of the body
    range: str


class Origin:
    """Runs until its machine is closed."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self._machine, self._folder = machine, folder
        self._root = machine.path(ROOT)  # in memory: the disk is Entrepot's
        self._blobs, self._manifests = (self._root / "v2" / REPOSITORY / kind for kind in ("blobs", "manifests"))
        for each in (self._blobs, self._manifests):
            each.mkdir(parents=True)
        authority = pki.authority("Entrepot benchmark")
        self.ca_file = folder / "ca.crt"
        self.ca_file.write_bytes(authority.pem)
        pki.write_leaves(folder, (wire.host for wire in WIRES), authority)
        self._log = folder / "access.log"
        self._made = 0

    def start(self) -> None:
        """Returns when both servers answer."""
        servers = "".join(self._server(wire) for wire in WIRES)
        config = self._folder / "nginx.conf"
        config.write_text(NGINX.format(dir=self._folder, root=ROOT, servers=servers))
        names = [f"--host-record={wire.host},{wire.upstream}" for wire in WIRES]
        local = [f"--local=/{wire.host}/" for wire in WIRES]  # AAAA: no data, instead of refused
        dns = self._machine.spawn("dns", "dnsmasq", *DNSMASQ, f"--listen-address={FAST.upstream}", *names, *local)
        web = self._machine.spawn("nginx", "nginx", "-e", str(self._folder / "nginx.log"), "-c", str(config))
        self._wait(dns, 53)
        self._wait(web, 443)

    def _wait(self, daemon: Daemon, port: int) -> None:
        def there() -> bool:
            if not daemon.running:
                raise RuntimeError(f"{daemon.log.stem} has ended:\n{daemon.output()[-2000:]}")
            return self._machine.answers(FAST.upstream, port)

        wait_for(there, daemon.log.stem)

    def _server(self, wire: Wire) -> str:
        return SERVER.format(
            address=wire.upstream,
            host=wire.host,
            keep=60 if wire.keeps else 0,
            dir=self._folder,
            repository=REPOSITORY,
            manifest_type=MANIFEST_TYPE,
            rate=wire.per_connection,
        )

    def leaf(self, wire: Wire) -> tuple[Path, Path]:
        """(certificate, key) of the upstream's name on a wire."""
        return self._folder / f"{wire.host}.crt", self._folder / f"{wire.host}.key"

    # Content

    def blob(self, mebibytes: int) -> Blob:
        """A new one of random bytes, in no manifest."""
        made = content.make(self._root, mebibytes)
        file = made.blob.rename(self._blobs / made.digest)
        return Blob(made.digest, made.size, file)

    def image(self, layers: Sequence[int]) -> str:
        """A new one with layers of so many bytes. Returns its tag."""
        image = images.build(layers, "oci")
        for blob in image.blobs:
            (self._blobs / blob.digest).write_bytes(blob.data)
        tag = f"d-{image.digest.partition(':')[2]}"
        for reference in (image.digest, tag):
            (self._manifests / reference).write_bytes(image.manifest.data)
        return tag

    def discard(self) -> None:
        """Everything that was made: the memory is needed."""
        for folder in (self._blobs, self._manifests):
            shutil.rmtree(folder)
            folder.mkdir()

    def touch_memory(self, mebibytes: int) -> None:
        """For what is about to be written to files.

        A host that takes free memory back from a virtual machine must give it again, and that makes the first write
        to it ten times as dear as any other.
        """
        file, piece = self._root / "memory", bytes(1 << 20)
        with file.open("wb", buffering=0) as out:
            for _ in range(mebibytes):
                out.write(piece)
        file.unlink()

    # What it was asked

    def mark(self) -> int:
        """A position in the log, for `asked`."""
        return self._log.stat().st_size

    def asked(self, mark: int, path: str) -> list[Request]:
        """What Entrepot and the direct client have asked for under `path` since `mark`, and has been answered."""
        with self._log.open() as log:
            log.seek(mark)
            lines = [json.loads(line) for line in log if line.endswith("\n")]
        requests = [Request(client=line.pop("from"), **line) for line in lines]
        return [each for each in requests if each.path == path]
