"""One worker in this process, real TLS in front of it, a registry on loopback behind it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.fakes.images import Image, push_image
from tests.fakes.registry import FakeRegistry, running

from entrepot.addons.worker import Worker, WorkerSettings
from entrepot.cache.space import Limits
from entrepot.certs.authority import Authority
from entrepot.engine.policy import Policy
from entrepot.registry.catalogue import Catalogue, RegistryOverride
from entrepot.tasks import spawn

NAME = "registry.test"
POLICY = Policy(tag=60.0, access=300.0)


@dataclass
class Reply:
    """One response, parsed by hand from the wire."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


@dataclass
class Client:
    """A TLS connection to the worker; `clean` says after the end whether it ended with close_notify."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    clean: bool = True

    def send(self, text: str, body: bytes = b"") -> None:
        self.writer.write(text.replace("\n", "\r\n").encode() + body)

    def ask(self, method: str, target: str, *fields: str, host: str = NAME) -> None:
        self.send("\n".join([f"{method} {target} HTTP/1.1", f"Host: {host}", *fields, "", ""]))

    async def reply(self, *, head_only: bool = False) -> Reply:
        status_line, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        reply = Reply(int(status_line.split()[1]), headers)
        if head_only or reply.status in {204, 304}:
            return reply
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await self.reader.readline(), 16):
                reply.body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readline()
        else:
            reply.body = await self.reader.readexactly(int(headers["content-length"]))
        return reply

    async def get(self, target: str, *fields: str) -> Reply:
        self.ask("GET", target, *fields)
        return await self.reply()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (ConnectionError, ssl.SSLError):
            self.clean = False


@dataclass
class Box:
    """A running worker."""

    worker: Worker
    port: int
    registry: FakeRegistry
    image: Image
    trust: ssl.SSLContext
    stop: asyncio.Event
    serving: "asyncio.Task[None]"
    store: Path
    clients: list[Client] = field(default_factory=list)

    async def connect(self, name: str | None = NAME, context: ssl.SSLContext | None = None) -> Client:
        context = context or self.trust
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    def manifest(self, reference: object = "1") -> str:
        return f"/v2/org/app/manifests/{reference}"

    def blob(self, digest: object) -> str:
        return f"/v2/org/app/blobs/{digest}"


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    async with running() as registry:
        image = push_image(registry, "org/app")
        catalogue = Catalogue([]).with_overrides([RegistryOverride(NAME, upstream=registry.url)])
        authority = Authority.ensure(tmp_path / "ca", catalogue.permitted_subtrees(), datetime.now(UTC))
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        settings = WorkerSettings(
            index=0,
            sockets=(listening.detach(),),
            store=tmp_path / "store",
            limits=Limits(),
            certs=tmp_path / "ca",
            leaf_days=7,
            drain=5.0,
            nameservers=(),
            own_addresses=frozenset(),
            own_ports=frozenset({port}),
            connect_timeout=2.0,
            read_timeout=2.0,
            connections=4,
            pseudonym="entrepot-test",
            version="0",
            fetcher=tmp_path / "nobody.sock",
        )
        settings.store.mkdir()
        worker = Worker(settings, catalogue, POLICY)
        ready, stop = asyncio.Event(), asyncio.Event()
        serving = spawn(worker.serve(ready, stop), name="serve", quiet=True)
        await ready.wait()
        trust = ssl.create_default_context(cadata=authority.pem.decode())
        box = Box(worker, port, registry, image, trust, stop, serving, settings.store)
        yield box
        for client in box.clients:
            await client.close()
        stop.set()
        await serving
