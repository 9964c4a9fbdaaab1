"""The UDP server on real sockets."""

import asyncio
import logging
import socket

import dns.flags
import dns.message
import dns.rcode
import pytest
from tests.dns.fakes import Clock, FakeUpstream, Row, Running, intercepts, serving, texts

from entrepot.dns.handling import Here
from entrepot.dns.responder import Responder
from entrepot.dns.settings import DnsSettings
from entrepot.tasks import spawn


async def exchange(port: int, *packets: bytes, replies: int = 1, at: str = "127.0.0.1") -> list[bytes]:
    """Sends packets as they are; whatever comes back, as it is."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((at, port))
        for packet in packets:
            sock.send(packet)
        return [await asyncio.wait_for(loop.sock_recv(sock, 4096), 20) for _ in range(replies)]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9"])
async def test_rule_11_the_answer_is_the_address_that_was_asked(address: str) -> None:
    """dnspython takes no reply from another address than it asked."""
    async with serving(DnsSettings(intercepts), addresses=("0.0.0.0", "::")) as running:
        for _ in range(2):  # built, then ready
            reply = await running.ask("quay.io", at=address)
            assert texts(reply) == [f"quay.io. 30 A {address}"]
            assert (await running.ask("quay.io", "AAAA", at=address)).answer == []


async def test_rule_11_over_ipv6() -> None:
    async with serving(DnsSettings(intercepts), addresses=("0.0.0.0", "::")) as running:
        assert texts(await running.ask("quay.io", "AAAA", at="::1")) == ["quay.io. 30 AAAA ::1"]
        assert texts(await running.ask("quay.io", "A", at="::1")) == ["quay.io. 30 A 127.0.0.1"]


async def test_the_same_question_again_is_answered_the_same_but_for_its_id() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        packet = dns.message.make_query("quay.io", "A", id=1).to_wire()
        again = dns.message.make_query("quay.io", "A", id=2).to_wire()
        first, second = await exchange(running.port, packet, again, replies=2)
        assert (first[:2], second[:2]) == (b"\0\1", b"\0\2")
        assert first[2:] == second[2:]
        counters = running.responder.counters
        assert (counters.queries, counters.intercepted) == (2, 2)


async def test_a_ready_reply_is_another_for_another_local_address_or_another_edns() -> None:
    async with serving(DnsSettings(intercepts), addresses=("0.0.0.0",)) as running:
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1"):
            for want in ({"use_edns": False}, {"use_edns": 0}):
                reply = await running.ask("quay.io", at=address, want=want)
                assert texts(reply) == [f"quay.io. 30 A {address}"]
                assert (reply.edns == 0) == (want["use_edns"] is not False)


async def test_cached_answers_count_down_on_the_fast_path() -> None:
    clock = Clock()
    async with (
        FakeUpstream({("example.com", "A"): Row(answer=("example.com. 60 A 192.0.2.1",))}) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,)), clock=clock) as running,
    ):
        seen = []
        for _ in range(4):
            seen.append(texts(await running.ask("example.com"))[0].split()[1])
            seen.append(texts(await running.ask("example.com"))[0].split()[1])
            clock.now += 19.7
        assert seen == ["60", "60", "41", "41", "21", "21", "1", "1"]
        clock.now += 19.7
        await running.ask("example.com")
        assert len(upstream.asked) == 2
        counters = running.responder.counters
        assert (counters.forwarded, counters.cached, counters.queries) == (2, 7, 9)


async def test_many_packets_at_once_are_all_answered() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        packets = [dns.message.make_query("quay.io", "A", id=number).to_wire() for number in range(200)]
        replies = await exchange(running.port, *packets, replies=200)
        assert {reply[:2] for reply in replies} == {number.to_bytes(2) for number in range(200)}


async def test_what_is_no_query_gets_nothing_and_what_is_broken_an_error() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        response = dns.message.make_response(dns.message.make_query("quay.io", "A")).to_wire()
        broken = b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff"
        update = b"\x00\x08\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00"
        first, second = await exchange(running.port, b"", b"x", response, broken, update, replies=2)
        assert dns.message.from_wire(first).rcode() == dns.rcode.FORMERR
        assert second == b"\x00\x08\xa8\x04" + bytes(8)
        assert running.responder.counters.malformed == 5


async def test_an_answer_too_large_for_udp_is_truncated_and_whole_over_tcp() -> None:
    row = Row(answer=tuple(f"example.com. 60 A 192.0.2.{number}" for number in range(1, 200)), truncate=True)
    async with (
        FakeUpstream({("example.com", "A"): row}) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        for _ in range(2):  # upstream's TC, then ours: the whole answer is cached by then
            reply = await running.ask("example.com")
            assert reply.flags & dns.flags.TC
            assert len(texts(await running.ask("example.com", tcp=True))) == 199
        assert [asked.tcp for asked in upstream.asked] == [False, True]


async def test_every_query_is_in_the_log_when_debugging(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(DnsSettings(intercepts)) as running:
        await running.ask("quay.io")
        assert "quay.io" not in caplog.text
        caplog.set_level(logging.DEBUG, "entrepot.dns")
        await running.ask("quay.io")
        await running.ask("quay.io", "HTTPS")
        assert caplog.messages[-2:] == [
            "quay.io. A for 127.0.0.1: intercepted",
            "quay.io. HTTPS for 127.0.0.1: intercepted",
        ]


async def test_a_bug_costs_one_answer_not_the_service(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(DnsSettings(intercepts)) as running:
        responder = running.responder
        decide = responder._decide

        def broken(query: object, here: Here) -> object:
            monkeypatch.setattr(responder, "_decide", decide)
            raise RuntimeError("a bug")

        monkeypatch.setattr(responder, "_decide", broken)
        packet = dns.message.make_query("quay.io", "A").to_wire()
        replies = await exchange(running.port, packet, packet)
        assert len(replies) == 1
        assert responder.counters.crashed == 1
        assert "a bug" in caplog.text
        responder.counters.crashed = 0


async def test_a_reply_the_kernel_will_not_take_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be sent to port 0; a forged packet may come from there."""
    real = socket.socket.recvmsg
    ports = [0, 0]

    def recvmsg(self: socket.socket, *sizes: int) -> object:
        data, notes, flags, peer = real(self, *sizes)
        return data, notes, flags, ("127.0.0.1", ports.pop()) if ports else peer

    monkeypatch.setattr(socket.socket, "recvmsg", recvmsg)
    async with serving(DnsSettings(intercepts)) as running:
        packet = dns.message.make_query("quay.io", "A").to_wire()
        await exchange(running.port, packet, packet, packet)  # built, ready, and one that arrives
        assert running.responder.counters.unsent == 2


async def test_a_socket_without_notes_has_one_address() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.3", 0))
        stop = asyncio.Event()
        responder = Responder(DnsSettings(intercepts))
        task = spawn(responder.serve([sock], stop), name="responder")
        for _ in range(2):
            reply = await Running(responder, sock.getsockname()[1]).ask("quay.io", at="127.0.0.3")
            assert texts(reply) == ["quay.io. 30 A 127.0.0.3"]
        stop.set()
        await task


async def test_what_one_packet_brings_is_no_matter_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that an earlier reply brought back, and a packet that was sent to a group."""
    real = socket.socket.recvmsg
    group = (socket.IPPROTO_IPV6, 50, socket.inet_pton(socket.AF_INET6, "ff02::1") + bytes(4))
    odd = ["error", "group"]

    def recvmsg(self: socket.socket, *sizes: int) -> object:
        what = odd.pop(0) if odd else ""
        if what == "error":
            raise ConnectionRefusedError
        data, notes, flags, peer = real(self, *sizes)
        return data, [group] if what == "group" else notes, flags, peer

    monkeypatch.setattr(socket.socket, "recvmsg", recvmsg)
    async with serving(DnsSettings(intercepts)) as running:
        packets = [dns.message.make_query("quay.io", "A", id=number).to_wire() for number in (1, 2)]
        (reply,) = await exchange(running.port, *packets)
        assert reply[:2] == b"\0\2"
        assert running.responder.counters.queries == 1


async def test_however_many_local_addresses_are_asked_they_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.dns.udp._MAX_PLACES", 2)
    async with serving(DnsSettings(intercepts), addresses=("0.0.0.0",)) as running:
        for address in ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"):
            assert texts(await running.ask("quay.io", at=address)) == [f"quay.io. 30 A {address}"]
