"""The TCP server on real sockets: framing, several messages, idleness, limits (RFC 7766)."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import dns.message
import dns.rcode
import pytest
from tests.dns.fakes import FakeUpstream, Row, intercepts, serving, texts

from entrepot.dns.handling import Here
from entrepot.dns.settings import DnsSettings
from entrepot.dns.tcp import TcpLimits

type Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(port: int, at: str = "127.0.0.1") -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection(at, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def framed(name: str, rtype: str = "A", ident: int = 1) -> bytes:
    message = dns.message.make_query(name, rtype, id=ident).to_wire()
    return len(message).to_bytes(2) + message


async def receive(reader: asyncio.StreamReader) -> dns.message.Message:
    return dns.message.from_wire(await reader.readexactly(int.from_bytes(await reader.readexactly(2))))


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed, orderly or not."""
    try:
        return await reader.read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(("address", "rtype"), [("127.0.0.1", "A"), ("127.0.0.4", "A"), ("::1", "AAAA")])
async def test_rule_11_the_answer_is_the_address_that_was_asked(address: str, rtype: str) -> None:
    async with serving(DnsSettings(intercepts), addresses=("0.0.0.0", "::")) as running:
        reply = await running.ask("qUAY.io", rtype, at=address, tcp=True)
        assert texts(reply) == [f"qUAY.io. 30 {rtype} {address}"]
        assert running.responder.counters.tcp == 1


async def test_several_messages_on_one_connection_however_they_are_cut() -> None:
    async with serving(DnsSettings(intercepts)) as running, connected(running.port) as (reader, writer):
        stream = framed("quay.io", ident=1) + framed("ghcr.io", ident=2) + framed("eu.gcr.io", ident=3)
        for at in range(len(stream)):
            writer.write(stream[at : at + 1])
            await writer.drain()
        assert [(await receive(reader)).id for _ in range(3)] == [1, 2, 3]
        writer.write(stream)
        assert [(await receive(reader)).id for _ in range(3)] == [1, 2, 3]


async def test_a_slow_answer_holds_up_no_other() -> None:
    hold = asyncio.Event()
    row = Row(answer=("slow.example. 60 A 192.0.2.1",), hold=hold)
    async with FakeUpstream({("slow.example", "A"): row}) as upstream:
        settings = DnsSettings(intercepts, upstream=(upstream.address,))
        async with serving(settings) as running, connected(running.port) as (reader, writer):
            writer.write(framed("slow.example", ident=1) + framed("quay.io", ident=2))
            assert (await receive(reader)).id == 2
            hold.set()
            assert (await receive(reader)).id == 1
        assert [asked.tcp for asked in upstream.asked] == [True]


async def test_who_closes_its_half_is_still_answered() -> None:
    hold = asyncio.Event()
    row = Row(answer=("slow.example. 60 A 192.0.2.1",), hold=hold)
    async with FakeUpstream({("slow.example", "A"): row}) as upstream:
        settings = DnsSettings(intercepts, upstream=(upstream.address,))
        async with serving(settings) as running, connected(running.port) as (reader, writer):
            writer.write(framed("slow.example"))
            writer.write_eof()
            await upstream.wait_for(1)
            hold.set()
            assert texts(await receive(reader)) == ["slow.example. 60 A 192.0.2.1"]
            assert await ended(reader)


async def test_who_goes_away_is_forgotten() -> None:
    hold = asyncio.Event()
    row = Row(answer=("slow.example. 60 A 192.0.2.1",), hold=hold)
    async with (
        FakeUpstream({("slow.example", "A"): row}) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        async with connected(running.port) as (_, writer):
            writer.write(framed("slow.example"))
            await upstream.wait_for(1)
            writer.transport.abort()
        hold.set()
        assert texts(await running.ask("slow.example", tcp=True)) == ["slow.example. 60 A 192.0.2.1"]


async def test_the_idle_are_cut_off() -> None:
    limits = TcpLimits(idle=0.1)
    async with serving(DnsSettings(intercepts), limits=limits) as running, connected(running.port) as (reader, writer):
        writer.write(framed("quay.io"))
        await receive(reader)
        assert await ended(reader)


async def test_half_a_message_is_idleness() -> None:
    limits = TcpLimits(idle=0.1)
    async with serving(DnsSettings(intercepts), limits=limits) as running, connected(running.port) as (reader, writer):
        writer.write(framed("quay.io")[:-1])
        assert await ended(reader)


async def test_who_waits_for_an_answer_is_not_idle() -> None:
    hold = asyncio.Event()
    row = Row(answer=("slow.example. 60 A 192.0.2.1",), hold=hold)
    async with FakeUpstream({("slow.example", "A"): row}) as upstream:
        settings = DnsSettings(intercepts, upstream=(upstream.address,))
        async with (
            serving(settings, limits=TcpLimits(idle=0.05)) as running,
            connected(running.port) as (reader, writer),
        ):
            writer.write(framed("slow.example"))
            await upstream.wait_for(1)
            async with connected(running.port) as (idle, _):
                assert await ended(idle)
            hold.set()
            assert texts(await receive(reader)) == ["slow.example. 60 A 192.0.2.1"]


async def test_too_many_connections_are_closed_at_once_and_room_is_made_again() -> None:
    limits = TcpLimits(connections=2)
    async with serving(DnsSettings(intercepts), limits=limits) as running, connected(running.port) as (reader, writer):
        writer.write(framed("quay.io"))
        await receive(reader)
        async with connected(running.port) as (second, second_writer):
            second_writer.write(framed("quay.io"))
            await receive(second)
            async with connected(running.port) as (third, _):
                assert await ended(third)
            second_writer.write_eof()
            assert await ended(second)
        assert texts(await running.ask("quay.io", tcp=True)) == ["quay.io. 30 A 127.0.0.1"]


async def test_strangers_are_closed_at_once() -> None:
    settings = DnsSettings(intercepts, allow=(ipaddress.ip_network("10.0.0.0/8"),))
    async with serving(settings) as running, connected(running.port) as (reader, _):
        assert await ended(reader)


async def test_only_so_many_messages_of_one_connection_are_in_flight() -> None:
    hold = asyncio.Event()
    names = [f"{number}.example" for number in range(6)]
    rows = {(name, "A"): Row(answer=(f"{name}. 60 A 192.0.2.1",), hold=hold) for name in names}
    async with FakeUpstream(rows) as upstream:
        settings = DnsSettings(intercepts, upstream=(upstream.address,))
        async with (
            serving(settings, limits=TcpLimits(in_flight=2)) as running,
            connected(running.port) as (reader, writer),
        ):
            writer.write(b"".join(framed(name, ident=number) for number, name in enumerate(names)))
            await upstream.wait_for(2)
            await running.ask("quay.io", tcp=True)  # time enough for a third to slip through
            assert len(upstream.asked) == 2
            hold.set()
            assert {(await receive(reader)).id for _ in names} == set(range(6))


async def test_who_does_not_read_its_replies_is_cut_off() -> None:
    """Replies of 40 kB each: the kernel's buffers are full long before the questions run out."""
    row = Row(answer=tuple(f"example.com. 60 TXT {'x' * 200}{number}" for number in range(200)))
    async with FakeUpstream({("example.com", "TXT"): row}) as upstream:
        settings = DnsSettings(intercepts, upstream=(upstream.address,))
        async with serving(settings, limits=TcpLimits(idle=0.3)) as running:
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", running.port))
                with pytest.raises(ConnectionError):
                    while True:
                        await loop.sock_sendall(sock, framed("example.com", "TXT") * 1_000)


@pytest.mark.parametrize(
    "garbage", [b"\x00\x00", b"\x00\x01x", b"GET / HTTP/1.1\r\nHost: quay.io\r\n\r\n" + bytes(20_000)]
)
async def test_what_is_not_dns_is_cut_off(garbage: bytes) -> None:
    async with (
        serving(DnsSettings(intercepts), limits=TcpLimits(idle=0.2)) as running,
        connected(running.port) as (reader, writer),
    ):
        writer.write(garbage)
        assert b"quay" not in await read_rest(reader)


async def read_rest(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await reader.read()
    return b""


async def test_a_broken_query_gets_its_error_and_the_connection_goes_on() -> None:
    async with serving(DnsSettings(intercepts)) as running, connected(running.port) as (reader, writer):
        writer.write(b"\x00\x0c\x00\x07\x01\x00\x00\x02\x00\x00\x00\x00\x00\x00" + framed("quay.io"))
        assert (await receive(reader)).rcode() == dns.rcode.FORMERR
        assert (await receive(reader)).rcode() == dns.rcode.NOERROR


async def test_a_bug_costs_one_connection_not_the_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(DnsSettings(intercepts)) as running:
        decide = running.responder._decide

        def broken(query: object, here: Here) -> object:
            raise RuntimeError("a bug")

        monkeypatch.setattr(running.responder, "_decide", broken)
        async with connected(running.port) as (reader, writer):
            writer.write(framed("quay.io"))
            assert await ended(reader)
        monkeypatch.setattr(running.responder, "_decide", decide)
        assert texts(await running.ask("quay.io", tcp=True)) == ["quay.io. 30 A 127.0.0.1"]
        assert "a bug" in caplog.text
        running.responder.counters.crashed = 0


async def test_stopping_closes_connections() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(framed("quay.io"))
        await receive(reader)
    assert await ended(reader)
    writer.close()
