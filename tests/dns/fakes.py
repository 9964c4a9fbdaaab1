"""What the tests of the responder stand on: an upstream resolver made of rows, and a responder that runs.

The upstream and the client speak dnspython, which shares no line with the code under test. A question without a row
fails the test that asked it.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Self, cast, override

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rrset

from entrepot.dns.flights import Timing
from entrepot.dns.responder import Responder
from entrepot.dns.settings import DnsSettings
from entrepot.dns.sockets import bind
from entrepot.dns.tcp import TcpLimits
from entrepot.dns.wire import CLASS_IN, Query, read_query
from entrepot.tasks import spawn

QUICK = Timing(attempt=0.1, total=0.4)
PATIENT = Timing(attempt=20.0, total=40.0)  # for tests in which nothing may be late, however slow the machine


@dataclass
class Row:
    """What an upstream says to one question; records as zone file lines."""

    answer: tuple[str, ...] = ()
    authority: tuple[str, ...] = ()
    additional: tuple[str, ...] = ()
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR
    truncate: bool = False  # over UDP: TC and no records
    silent: bool = False  # takes the question and says nothing
    hold: asyncio.Event | None = None  # answers when it is set
    forged: Callable[[bytes], list[bytes]] | None = None  # packets sent before the true answer, made from it
    raw: bytes | None = None  # what is sent instead, after the ID


@dataclass(frozen=True)
class Asked:
    """One question that reached the upstream."""

    name: str
    rtype: str
    tcp: bool
    port: int  # of who asked
    message: dns.message.Message


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Health:
    """Whether the cache is well, as the test says."""

    well: bool = True

    def __call__(self) -> bool:
        return self.well


@dataclass
class Islands:
    """Interfaces this machine has not: the IPv4 address beside (IPv6 address, index)."""

    beside: dict[tuple[str, int], str]

    def ipv4_beside(self, address: str, index: int) -> str | None:
        return self.beside.get((address, index))

    def is_local(self, address: str) -> bool:
        return False


@dataclass
class FakeUpstream:
    """A resolver on 127.0.0.1, UDP and TCP on one free port, that answers from `rows`."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    host: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.arrived = asyncio.Condition()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    async def wait_for(self, count: int) -> None:
        """Until this many questions have arrived."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.asked) >= count)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        udp, tcp = _pair(self.host)
        self._address: tuple[str, int] = udp.getsockname()[:2]
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=udp)
        self._server = await asyncio.start_server(self._stream, sock=tcp)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()
        assert self.unexpected == []

    async def answers(self, data: bytes, port: int, *, tcp: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        name = query.question[0].name.to_text(omit_final_dot=True)
        rtype = dns.rdatatype.to_text(query.question[0].rdtype)
        async with self.arrived:
            self.asked.append(Asked(name, rtype, tcp, port, query))
            self.arrived.notify_all()
        row = self.rows.get((name.lower(), rtype))
        if row is None and name.endswith(".test"):  # a loop probe, which a true resolver knows nothing of
            row = Row(rcode=dns.rcode.NXDOMAIN)
        if row is None:
            self.unexpected.append(f"{name} {rtype}")
            row = Row(rcode=dns.rcode.SERVFAIL)
        if row.hold:
            await row.hold.wait()
        if row.silent:
            return []
        if row.raw is not None:
            return [data[:2] + row.raw]
        true = _response(query, row, tcp=tcp)
        return [*(row.forged(true) if row.forged else []), true]

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        port = writer.get_extra_info("peername")[1]
        try:
            with suppress(EOFError, ConnectionError):
                while True:
                    data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
                    for answer in await self.answers(data, port, tcp=True):
                        writer.write(len(answer).to_bytes(2) + answer)
        finally:
            self._writers.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, upstream: FakeUpstream) -> None:
        self._upstream = upstream

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        spawn(self._reply(data, addr), name="fake-upstream")

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        for answer in await self._upstream.answers(data, addr[1], tcp=False):
            self._transport.sendto(answer, addr)


def _response(query: dns.message.Message, row: Row, *, tcp: bool) -> bytes:
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(row.rcode)
    if row.truncate and not tcp:
        response.flags |= dns.flags.TC
    else:
        for section, lines in zip(response.sections[1:], (row.answer, row.authority, row.additional), strict=True):
            section.extend(_record(line) for line in lines)
    return response.to_wire(max_size=65535)


def _record(line: str) -> dns.rrset.RRset:
    name, ttl, rtype, data = line.split(maxsplit=3)
    return dns.rrset.from_text(dns.name.from_text(name), int(ttl), "IN", rtype, data)


def _pair(host: str) -> tuple[socket.socket, socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(16):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        udp.bind((host, 0))
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            tcp.bind((host, udp.getsockname()[1]))
        except OSError:
            udp.close()
            tcp.close()
            continue
        return udp, tcp
    raise AssertionError("no port is free for both UDP and TCP")


@contextmanager
def dead_port(host: str = "127.0.0.1") -> Iterator[tuple[str, int]]:
    """An address that takes questions and never answers: the socket is there, nobody reads it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()


@dataclass
class Running:
    """A responder that serves."""

    responder: Responder
    port: int

    async def ask(
        self,
        name: str,
        rtype: str = "A",
        *,
        at: str = "127.0.0.1",
        tcp: bool = False,
        want: Mapping[str, object] | None = None,
    ) -> dns.message.Message:
        """As a client would; `want` are arguments of dnspython's make_query."""
        return await self.send(dns.message.make_query(name, rtype, **(want or {})), at=at, tcp=tcp)  # type: ignore[arg-type]

    async def send(
        self, query: dns.message.Message, *, at: str = "127.0.0.1", tcp: bool = False
    ) -> dns.message.Message:
        """dnspython checks that the reply comes from where the query went and answers what was asked."""
        exchange = dns.query.tcp if tcp else dns.query.udp
        return await asyncio.to_thread(exchange, query, at, port=self.port, timeout=20)


@asynccontextmanager
async def serving(
    settings: DnsSettings,
    *,
    addresses: tuple[str, ...] = ("127.0.0.1", "::1"),
    timing: Timing = PATIENT,
    limits: TcpLimits | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Running]:
    """A responder on a free port of these addresses."""
    stop = asyncio.Event()
    sockets = bind(addresses, 0)
    responder = Responder(settings, timing=timing, limits=limits, clock=clock)
    task = spawn(responder.serve(sockets, stop), name="responder")
    try:
        yield Running(responder, sockets[0].getsockname()[1])
    finally:
        stop.set()
        await task
    assert responder.counters.crashed == 0


def intercepts(name: str) -> bool:
    """The catalogue of the tests."""
    return name in {"quay.io", "ghcr.io"} or name.endswith(".gcr.io")


def make_query(name: str, rtype: str = "A", **want: object) -> Query:
    """The query our own code reads from what dnspython writes."""
    query = read_query(dns.message.make_query(name, rtype, **want).to_wire())  # type: ignore[arg-type]
    assert isinstance(query, Query)
    assert query.rclass == CLASS_IN
    return query


def texts(message: dns.message.Message) -> list[str]:
    """The answer section, a line per record: name, TTL, type and data."""
    return [
        f"{rrset.name} {rrset.ttl} {dns.rdatatype.to_text(rrset.rdtype)} {item}"
        for rrset in message.answer
        for item in rrset
    ]
