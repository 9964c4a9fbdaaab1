"""Starts the upstream in its machine, and is the tests' window on it: its log of requests, its images, its faults."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import images, pki, world
from tests.lab.front import BLOB
from tests.lab.net import Machine, wait_for

ROOT = Path(__file__).parents[2]
LONGEST_LINE = 1 << 16  # bytes of the log; headers are longest

NGINX = """
user root; worker_processes 2; daemon off; pid {state}/nginx.pid; error_log {state}/nginx.log warn;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_max_body_size 0; keepalive_timeout 60s; server_tokens off;
  client_body_temp_path {state}/nginx-body; proxy_temp_path {state}/nginx-proxy; fastcgi_temp_path {state}/nginx-f;
  uwsgi_temp_path {state}/nginx-u; scgi_temp_path {state}/nginx-s;
  server {{
    listen 443 ssl; listen 80; server_name _;
    ssl_certificate {state}/$ssl_server_name.crt; ssl_certificate_key {state}/$ssl_server_name.key;
    location / {{
      proxy_pass http://127.0.0.1:{port}; proxy_http_version 1.1; proxy_read_timeout 300s;
      proxy_set_header Host $host; proxy_set_header Connection ""; proxy_set_header X-Lab-Sni $ssl_server_name;
      proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
"""

REGISTRY = """
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {storage}}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}", secret: lab}}
"""

DNSMASQ = (
    "--keep-in-foreground",
    "--no-resolv",
    "--no-hosts",
    "--user=root",
    "--bind-interfaces",
    "--conf-file=/dev/null",
)


@dataclass(slots=True)
class Request:
    """One request as the upstream saw it. `status` and `sent` (body bytes) are 0 until the answer is finished."""

    n: int
    host: str
    method: str
    path: str
    authorization: bool
    sni: str  # of its TLS connection; empty for plain HTTP
    headers: dict[str, str] = field(repr=False)
    status: int = 0
    sent: int = 0

    @property
    def blob(self) -> str | None:
        """The digest, if this is a request for a blob at a registry; the redirect's second half is not counted."""
        found = BLOB.fullmatch(self.path)
        return found["digest"] if found else None

    @property
    def is_manifest(self) -> bool:
        return "/manifests/" in self.path


class Requests(list[Request]):
    """What the upstream was asked, with the questions tests put to it."""

    def blob_gets(self) -> list[str]:
        """But for those that ended in 401, as with manifests: containerd asks for a layer before it has a token."""
        return [each.blob for each in self if each.blob and each.method == "GET" and each.status != 401]

    def manifest_gets(self) -> list[str]:
        """But for those that ended in 401: a client without a token is refused in the upstream's own words."""
        return [each.path for each in self if each.is_manifest and each.method == "GET" and each.status != 401]

    def to(self, *hosts: str) -> "Requests":
        return Requests(each for each in self if each.host in hosts)


class Upstream:
    def __init__(self, machine: Machine, state: Path) -> None:
        self.machine = machine
        self._state = state
        self._log = state / "requests.jsonl"
        self._owners: dict[str, str] = {}
        self._faults: list[dict[str, Any]] = []
        self._fault_ids = 0
        self.authority = pki.authority("Lab Public Web")
        self.ca_file = state / "upstream-ca.crt"
        self._prepare()
        self._start()

    def _prepare(self) -> None:
        self._log.touch()
        self.ca_file.write_bytes(self.authority.pem)
        pki.write_leaves(self._state, world.addresses(), self.authority)
        token = pki.authority("Lab Tokens")
        (self._state / "token.crt").write_bytes(token.pem)
        (self._state / "token.key").write_bytes(token.key_pem)
        self._write_passwords(world.PASSWORDS)
        self._write_owners()
        self._write_faults()
        for registry in world.REGISTRIES:
            self.storage(registry).mkdir(parents=True)

    def _start(self) -> None:
        spawn = self.machine.spawn
        owned = [f"--host-record={name},{address}" for name, address in world.addresses().items()]
        local = [f"--local=/{name}/" for name in world.addresses()]  # AAAA: no data, instead of refused
        listen = [f"--listen-address={world.UPSTREAM_DNS}"]
        spawn("dns", "dnsmasq", *DNSMASQ, *listen, *owned, *local)
        for registry in world.REGISTRIES:
            spawn(f"registry-{registry.name}", "docker-registry", "serve", str(self._registry_config(registry)))
        spawn("front", sys.executable, "-m", "tests.lab.front", str(self._state), env={"PYTHONPATH": str(ROOT)})
        config = self._state / "nginx.conf"
        config.write_text(NGINX.format(state=self._state, port=world.FRONT_PORT))
        spawn("nginx", "nginx", "-e", str(self._state / "nginx.log"), "-c", str(config))
        for port in (world.FRONT_PORT, *(registry.port for registry in world.REGISTRIES)):
            self._wait("127.0.0.1", port)
        self._wait(world.UPSTREAM_DNS, 443)
        self._wait(world.UPSTREAM_DNS, 53)

    def _wait(self, address: str, port: int) -> None:
        wait_for(lambda: self.machine.answers(address, port), f"upstream {address}:{port}")

    def _registry_config(self, registry: world.Registry) -> Path:
        text = REGISTRY.format(storage=self.storage(registry), port=registry.port)
        if registry.auth == "basic":
            text += f"auth: {{htpasswd: {{realm: {registry.name}, path: {self._state}/htpasswd}}}}\n"
        elif registry.auth is not None:
            auth = registry.auth
            text += (
                f"auth: {{token: {{realm: 'https://{auth.host}{auth.path}', service: {auth.service}, "
                f"issuer: {auth.host}, rootcertbundle: {self._state}/token.crt}}}}\n"
            )
        path = self._state / f"registry-{registry.name}.yml"
        path.write_text(text)
        return path

    # Images

    def storage(self, registry: world.Registry) -> Path:
        return self._state / "storage" / registry.name

    def publish(
        self, registry: world.Registry, image: images.Image, *, private: bool = False, owner: str = world.USER
    ) -> world.Repository:
        """Put an image into a new repository, with tag 1. Nothing that runs needs to know: no cache has seen it."""
        repository = world.new_repository(registry, private=private, owner=owner)
        self.move(repository, image)
        return repository

    def move(self, repository: world.Repository, image: images.Image, tag: str = world.TAG) -> None:
        """Let a tag be this image from now on."""
        images.publish(self.storage(repository.registry), repository.path, tag, image)

    def untag(self, repository: world.Repository, tag: str = world.TAG) -> None:
        """Take a tag away; the manifest stays."""
        shutil.rmtree(self._home(repository) / "_manifests/tags" / tag)

    def unlink(self, repository: world.Repository, digest: str) -> None:
        """Let the repository not have this blob, whatever its manifests say."""
        shutil.rmtree(self._home(repository) / "_layers" / digest.replace(":", "/"))

    def refer(self, repository: world.Repository, digest: str, referrers: bytes) -> None:
        """What refers to a manifest of the repository, an index, as the registry lists it from now on."""
        file = self._state / "referrers" / repository.registry.name / repository.path / digest
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(referrers)

    def _home(self, repository: world.Repository) -> Path:
        return self.storage(repository.registry) / "docker/registry/v2/repositories" / repository.path

    def tag(self, repository: world.Repository) -> str | None:
        """The digest its tag 1 points to, as the registry has it on disk; None when it has no such tag."""
        return images.read_tag(self.storage(repository.registry), repository.path, world.TAG)

    def discard_images(self) -> None:
        """Free the disk: pytest keeps the folders of its last runs."""
        shutil.rmtree(self._state / "storage")

    # Accounts

    @contextmanager
    def password(self, user: str, password: str) -> Iterator[None]:
        """The user's password is this one, one of `world.BCRYPT`, and no other, for as long as the block lasts."""
        self._write_passwords({**world.PASSWORDS, user: password})
        try:
            yield
        finally:
            self._write_passwords(world.PASSWORDS)

    def _write_passwords(self, passwords: Mapping[str, str]) -> None:
        _replace(self._state / "passwords.json", json.dumps(dict(passwords)))
        lines = [f"{user}:{world.BCRYPT[password]}\n" for user, password in passwords.items()]
        _replace(self._state / "htpasswd", "".join(lines))

    @contextmanager
    def owned(self, repository: world.Repository, owner: str) -> Iterator[None]:
        """Only this user may read the repository, whatever its name says, for as long as the block lasts."""
        self._owners[repository.path] = owner
        self._write_owners()
        try:
            yield
        finally:
            del self._owners[repository.path]
            self._write_owners()

    def _write_owners(self) -> None:
        _replace(self._state / "owners.json", json.dumps(self._owners))

    # Log

    @contextmanager
    def watched(self) -> Iterator[Requests]:
        """Fills the list with what the upstream is asked within the block; complete when the block is left."""
        start = self._end()
        seen = Requests()
        yield seen
        seen.extend(self._since(start))

    def _end(self) -> int:
        """Where the next line of the log begins; the file may end in the middle of one that is just being written."""
        with self._log.open("rb") as log:
            start = max(0, log.seek(0, os.SEEK_END) - LONGEST_LINE)
            log.seek(start)
            return start + log.read().rfind(b"\n") + 1

    def _since(self, start: int) -> Requests:
        found: dict[int, Request] = {}
        with self._log.open("rb") as log:
            log.seek(start)
            for line in log.read().splitlines(keepends=True):
                if not line.endswith(b"\n"):
                    break  # still being written
                entry = json.loads(line)
                if "method" in entry:
                    found[entry["n"]] = Request(**entry)
                elif entry["n"] in found:
                    found[entry["n"]].status, found[entry["n"]].sent = entry["status"], entry["sent"]
        return Requests(found.values())

    # Faults

    @contextmanager
    def fault(self, **fault: Any) -> Iterator[None]:
        """A fault, see `front`, for as long as the block lasts."""
        self._fault_ids += 1
        entry = {"id": self._fault_ids, **fault}
        self._faults.append(entry)
        self._write_faults()
        try:
            yield
        finally:
            self._faults.remove(entry)
            self._write_faults()

    def _write_faults(self) -> None:
        _replace(self._state / "faults.json", json.dumps(self._faults))


def _replace(file: Path, text: str) -> None:
    """At once, for those who read it meanwhile."""
    fresh = file.with_suffix(".new")
    fresh.write_text(text)
    fresh.replace(file)
