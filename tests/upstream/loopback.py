"""Real servers on 127.0.0.1 that answer as told, faults included: HTTP (plain or TLS) and DNS (UDP and TCP)."""

import asyncio
import datetime
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dnslib
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from entrepot.headers import Headers
from entrepot.tasks import spawn
from entrepot.upstream.client import ClientSettings, UpstreamClient
from entrepot.upstream.resolver import Resolver

VIA = "1.1 entrepot-test"
NOWHERE = 1
"""A port nobody listens on."""


@dataclass
class Request:
    """One request as it stood on the wire."""

    line: str
    headers: Headers
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    count: int
    """How many the server had before this one."""

    def send(self, *parts: bytes) -> None:
        self.writer.write(b"".join(parts))

    def reset(self) -> None:
        """Ends the connection with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@dataclass
class Server:
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client has gone away."""

    @property
    def lines(self) -> list[str]:
        return [request.line for request in self.requests]


type Answer = Callable[[Request], Awaitable[None]]


def sends(*parts: bytes) -> Answer:
    """Answers every request with these bytes and keeps the connection."""

    async def answer(request: Request) -> None:
        request.send(*parts)

    return answer


def closes_after(*parts: bytes) -> Answer:
    async def answer(request: Request) -> None:
        request.send(*parts)
        await request.writer.drain()
        request.writer.close()

    return answer


def head(status: int, *fields: str, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def ok(body: bytes, *fields: str) -> bytes:
    return head(200, *fields, length=len(body)) + body


@asynccontextmanager
async def serving(answer: Answer, *, tls: Path | None = None) -> AsyncIterator[Server]:
    server = Server()
    tasks: set[asyncio.Task[None]] = set()
    context: ssl.SSLContext | None = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls)

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        try:
            while True:
                line, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").partition("\r\n")
                pairs = (entry.split(": ", 1) for entry in rest.split("\r\n") if entry)
                headers = Headers((name, value) for name, value in pairs)
                request = Request(line, headers, reader, writer, len(server.requests))
                server.requests.append(request)
                await answer(request)
                await writer.drain()
        except (OSError, EOFError):
            server.gone.set()
        finally:
            writer.close()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = spawn(connection(reader, writer), name="loopback connection")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def fixed(**hosts: str) -> Resolver:
    """A resolver without servers: `registry_test="127.0.0.1"` for registry.test."""
    names = {name.replace("_", "."): [address] for name, address in hosts.items()}
    return Resolver([], lambda: ["192.0.2.1"], clock=Clock(), hosts=names)


@asynccontextmanager
async def client(resolver: Resolver | None = None, **changes: float) -> AsyncIterator[UpstreamClient]:
    """A client that trusts the loopback names a.test, b.test and registry.test to be here."""
    settings = ClientSettings(
        connect_timeout=changes.get("connect_timeout", 10.0),
        read_timeout=changes.get("read_timeout", 10.0),
        via=VIA,
        user_agent="entrepot/0",
        per_host=int(changes.get("per_host", 0)),
    )
    here = {"a_test": "127.0.0.1", "b_test": "127.0.0.1", "registry_test": "127.0.0.1"}
    made = UpstreamClient(settings, resolver or fixed(**here))
    try:
        yield made
    finally:
        await made.aclose()


@dataclass(frozen=True)
class Issued:
    """A CA file, and a file with a leaf it signed and the leaf's key."""

    ca: Path
    leaf: Path


def issue(directory: Path, label: str, *, name: str = "registry.test", sloppy: bool = False) -> Issued:
    """`sloppy`: without the extensions that RFC 5280 asks for and private CAs forget."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA {label}")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    files = []
    for who, key, ca in ((issuer, keys[0], True), (subject, keys[1], False)):
        builder = (
            x509.CertificateBuilder(issuer, who, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        if not sloppy:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False
            ).add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        if not ca:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        pem = builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        if not ca:
            pem += key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        files.append(directory / f"{label}-{'ca' if ca else 'leaf'}.pem")
        files[-1].write_bytes(pem)
    return Issued(*files)


@dataclass
class Zone:
    """What a name server says, and what it was asked."""

    port: int = 0
    records: dict[str, list[str]] = field(default_factory=dict)
    """Lines such as `"a.test": ["60 A 192.0.2.7", "60 CNAME b.test."]`. An unknown name is NXDOMAIN."""
    rcode: int | None = None
    """Said to everything."""
    silent: bool = False
    truncating: bool = False
    """Over UDP nothing but the hint to use TCP."""
    hold: asyncio.Event | None = None
    """Answers only once this is set."""
    asked: list[str] = field(default_factory=list)
    over_tcp: int = 0
    answer_tcp: bytes | None = None
    """What goes out over TCP instead of an answer."""
    was_asked: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, data: bytes, *, tcp: bool) -> bytes:
        query = dnslib.DNSRecord.parse(data)
        name, kind = str(query.q.qname).rstrip("."), str(dnslib.QTYPE[query.q.qtype])
        reply = query.reply()
        if not tcp:
            self.asked.append(f"{name} {kind}")
            self.was_asked.set()
            if self.truncating:
                reply.header.tc = 1
                return bytes(reply.pack())
        self.over_tcp += tcp
        if self.rcode is not None:
            reply.header.rcode = self.rcode
        elif name.lower() not in self.records:
            reply.header.rcode = dnslib.RCODE.NXDOMAIN
        else:
            self._fill(reply, name, kind)
        return bytes(reply.pack())

    def _fill(self, reply: "dnslib.DNSRecord", name: str, kind: str) -> None:
        for line in self.records.get(name.lower(), []):
            ttl, rtype, value = line.split()
            if rtype in {kind, "CNAME"}:
                reply.add_answer(*dnslib.RR.fromZone(f"{name}. {ttl} {rtype} {value}"))
            if rtype == "CNAME":
                self._fill(reply, value.rstrip("."), kind)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        spawn(self._reply(data, addr), name="loopback dns")

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        message = self._zone.answer(data, tcp=False)
        if self._zone.hold is not None:
            await self._zone.hold.wait()
        if not self._zone.silent and self._transport is not None:
            self._transport.sendto(b"stray", addr)  # anyone may send to a port; it must not matter
            self._transport.sendto(message, addr)


@asynccontextmanager
async def name_server(**records: list[str]) -> AsyncIterator[Zone]:
    """Names as keyword arguments with `_` for the dot."""
    zone = Zone(records={name.replace("_", "."): lines for name, lines in records.items()})

    async def over_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2))
        message = zone.answer(await reader.readexactly(size), tcp=True)
        writer.write(zone.answer_tcp or len(message).to_bytes(2) + message)
        await writer.drain()
        writer.close()

    listener = await asyncio.start_server(over_tcp, "127.0.0.1", 0)
    zone.port = listener.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(zone), local_addr=("127.0.0.1", zone.port))
    try:
        yield zone
    finally:
        transport.close()
        listener.close()
