"""All of it together: rules of the package and rule 11 of the design, as clients see them."""

import asyncio
import dataclasses
import ipaddress
import logging
from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dns.fakes import (
    QUICK,
    Clock,
    FakeUpstream,
    Health,
    Islands,
    Row,
    Running,
    dead_port,
    intercepts,
    serving,
    texts,
)

from entrepot.dns.handling import Here
from entrepot.dns.responder import Responder, serve_dns
from entrepot.dns.settings import DnsSettings
from entrepot.dns.sockets import bind
from entrepot.dns.wire import HEADER
from entrepot.tasks import spawn

QUESTION = ("example.com", "A")
A_ROW = Row(answer=("example.com. 3600 A 192.0.2.1",))
REAL = Row(answer=("quay.io. 3600 A 192.0.2.99",))


async def test_serve_dns_serves_until_it_is_stopped_and_closes_its_sockets() -> None:
    stop = asyncio.Event()
    sockets = bind(["127.0.0.1"], 0)
    port = sockets[0].getsockname()[1]
    settings = DnsSettings(intercepts)
    task = spawn(serve_dns(settings, sockets, stop), name="dns")
    assert texts(await Running(Responder(settings), port).ask("quay.io")) == ["quay.io. 30 A 127.0.0.1"]
    stop.set()
    await task
    assert [sock.fileno() for sock in sockets] == [-1, -1]


async def test_rule_11_other_names_pass_through() -> None:
    rows = {
        ("example.com", "A"): A_ROW,
        ("example.com", "AAAA"): Row(authority=("example.com. 60 SOA a. b. 1 2 3 4 5",)),
        ("example.com", "HTTPS"): Row(answer=("example.com. 60 HTTPS 1 . alpn=h2 ipv4hint=192.0.2.7",)),
        ("example.com", "TXT"): Row(answer=('example.com. 60 TXT "a" "b"',)),
        ("nowhere.example", "A"): Row(rcode=dns.rcode.NXDOMAIN),
        ("sub.quay.io", "A"): Row(answer=("sub.quay.io. 60 A 192.0.2.8",)),
    }
    async with (
        FakeUpstream(rows) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        assert texts(await running.ask("eXample.com")) == ["eXample.com. 3600 A 192.0.2.1"]
        no_data = await running.ask("example.com", "AAAA")
        assert (no_data.rcode(), no_data.answer, len(no_data.authority)) == (dns.rcode.NOERROR, [], 1)
        assert "ipv4hint" in texts(await running.ask("example.com", "HTTPS"))[0]
        assert texts(await running.ask("example.com", "TXT")) == ['example.com. 60 TXT "a" "b"']
        assert (await running.ask("nowhere.example")).rcode() == dns.rcode.NXDOMAIN
        assert texts(await running.ask("sub.quay.io")) == ["sub.quay.io. 60 A 192.0.2.8"]


async def test_an_upstream_may_be_ipv6() -> None:
    async with (
        FakeUpstream({QUESTION: A_ROW}, host="::1") as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        assert texts(await running.ask("example.com")) == ["example.com. 3600 A 192.0.2.1"]
        assert texts(await running.ask("example.com", tcp=True)) == ["example.com. 3600 A 192.0.2.1"]


@pytest.mark.parametrize("name", ["quay.io", "example.com"])
@pytest.mark.parametrize("tcp", [False, True])
async def test_edns_is_answered_with_ours_and_no_option(name: str, tcp: bool) -> None:
    options: list[dns.edns.Option] = [
        dns.edns.ECSOption("198.51.100.0", 24),
        dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678"),
    ]
    async with (
        FakeUpstream({QUESTION: A_ROW}) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        for _ in range(2):
            want = {"use_edns": 0, "payload": 4096, "options": options, "want_dnssec": True}
            reply = await running.ask(name, tcp=tcp, want=want)
            assert (reply.edns, reply.payload, reply.options) == (0, 1232, ())
            assert reply.ednsflags & dns.flags.DO
            reply = await running.ask(name, tcp=tcp, want={"use_edns": False})
            assert reply.edns == -1
        assert all(asked.message.options == () for asked in upstream.asked)
        assert [asked.message.edns for asked in upstream.asked] == ([0, -1] if name == "example.com" else [])


async def test_a_newer_edns_is_told_which_one_we_speak() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        reply = await running.ask("quay.io", want={"use_edns": 1})
        assert (reply.rcode(), reply.edns, reply.answer) == (dns.rcode.BADVERS, 0, [])


async def test_browsers_are_told_to_stay_with_us() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        assert (await running.ask("use-application-dns.net")).rcode() == dns.rcode.NXDOMAIN
        assert running.responder.counters.special == 1


async def test_without_an_upstream_other_names_fail_at_once() -> None:
    async with serving(DnsSettings(intercepts)) as running:
        assert (await running.ask("example.com")).rcode() == dns.rcode.SERVFAIL
        assert texts(await running.ask("quay.io")) == ["quay.io. 30 A 127.0.0.1"]
        assert running.responder.counters.overloaded == 1


async def test_when_upstreams_are_dead_our_names_are_not() -> None:
    with dead_port() as silent:
        async with serving(DnsSettings(intercepts, upstream=(silent,)), timing=QUICK) as running:
            waiting = asyncio.gather(running.ask("example.com"), running.ask("example.com", tcp=True))
            assert texts(await running.ask("quay.io")) == ["quay.io. 30 A 127.0.0.1"]
            assert [reply.rcode() for reply in await waiting] == [dns.rcode.SERVFAIL] * 2
            assert running.responder.counters.failed == 2


class TestAdvertise:
    @pytest.mark.parametrize(
        ("advertise", "at", "v4", "v6"),
        [
            (("auto",), "127.0.0.1", ["127.0.0.1"], []),
            (("auto",), "::1", ["127.0.0.1"], ["::1"]),
            (("192.0.2.1", "192.0.2.2"), "127.0.0.1", ["192.0.2.1", "192.0.2.2"], []),
            (("192.0.2.1", "192.0.2.2"), "::1", ["192.0.2.1", "192.0.2.2"], []),
            (("2001:db8::1",), "127.0.0.1", [], ["2001:db8::1"]),
            (("auto", "2001:db8::1"), "127.0.0.1", ["127.0.0.1"], ["2001:db8::1"]),
            (("auto", "127.0.0.1"), "127.0.0.1", ["127.0.0.1"], []),
        ],
    )
    async def test_what_is_advertised(self, advertise: tuple[str, ...], at: str, v4: list[str], v6: list[str]) -> None:
        async with serving(DnsSettings(intercepts, advertise=advertise)) as running:
            for rtype, expected in (("A", v4), ("AAAA", v6)):
                reply = await running.ask("quay.io", rtype, at=at)
                assert texts(reply) == [f"quay.io. 30 {rtype} {address}" for address in expected]
                assert len(reply.authority) == (0 if expected else 1)

    def test_a_link_local_address_is_given_to_nobody(self) -> None:
        responder = Responder(DnsSettings(intercepts), interfaces=Islands({("fe80::1", 7): "192.0.2.7"}))
        here = responder.here("fe80::1", 7)
        assert (here.v4, here.v6) == (("192.0.2.7",), ())

    def test_an_interface_without_ipv4_has_none_to_give(self) -> None:
        here = Responder(DnsSettings(intercepts), interfaces=Islands({})).here("2001:db8::1", 7)
        assert (here.v4, here.v6) == ((), ("2001:db8::1",))

    def test_an_address_that_changes_is_noticed(self) -> None:
        clock = Clock()
        islands = Islands({("2001:db8::1", 7): "192.0.2.7"})
        responder = Responder(DnsSettings(intercepts), interfaces=islands, clock=clock)
        responder.tick()
        generation = responder.generation
        assert responder.here("2001:db8::1", 7).v4 == ("192.0.2.7",)
        islands.beside["2001:db8::1", 7] = "192.0.2.8"
        clock.now += 30
        responder.tick()
        assert responder.generation > generation
        assert responder.here("2001:db8::1", 7).v4 == ("192.0.2.8",)

    def test_however_many_local_addresses_there_are_they_are_bounded(self) -> None:
        responder = Responder(DnsSettings(intercepts))
        for number in range(1_000):
            assert responder.here(f"10.0.{number >> 8}.{number & 255}", 1).v4
        assert len(responder._heres) <= 256


class TestAccess:
    ELSEWHERE = DnsSettings(intercepts, allow=(ipaddress.ip_network("10.0.0.0/8"),))

    @pytest.mark.parametrize("name", ["quay.io", "example.com", "localhost"])
    async def test_rule_11_strangers_are_refused_whatever_they_ask(self, name: str) -> None:
        async with serving(self.ELSEWHERE) as running:
            for _ in range(2):
                query = dns.message.make_query(name, "A", use_edns=0)
                reply = await running.send(query)
                assert (reply.rcode(), reply.answer, reply.edns) == (dns.rcode.REFUSED, [], -1)
                assert len(reply.to_wire()) <= len(query.to_wire())
            assert running.responder.counters.refused == 2

    def test_strangers_get_so_many_refusals_a_second_and_then_silence(self) -> None:
        clock = Clock()
        responder = Responder(self.ELSEWHERE, clock=clock)
        packet = dns.message.make_query("quay.io", "A").to_wire()

        def answered() -> int:
            return sum(bool(handle(responder, packet, client="8.8.8.8")) for _ in range(150))

        assert answered() == 100
        clock.now += 1
        assert answered() == 100
        assert responder.counters.refused == 300

    def test_strangers_get_no_answer_to_what_is_broken(self) -> None:
        responder = Responder(self.ELSEWHERE)
        assert handle(responder, b"\0\1\1\0" + bytes(8), client="8.8.8.8") == b""
        assert handle(responder, b"", client="8.8.8.8") == b""

    async def test_a_friend_s_ready_reply_is_not_for_strangers(self) -> None:
        settings = DnsSettings(intercepts, allow=(ipaddress.ip_network("127.0.0.1/32"),))
        async with serving(settings, addresses=("0.0.0.0", "::")) as running:
            assert texts(await running.ask("quay.io"))
            query = dns.message.make_query("quay.io", "A")
            friend = await asyncio.to_thread(query_from, "127.0.0.1", query, running.port)
            stranger = await asyncio.to_thread(query_from, "127.0.0.2", query, running.port)
            assert (friend.rcode(), stranger.rcode()) == (dns.rcode.NOERROR, dns.rcode.REFUSED)


def query_from(source: str, query: dns.message.Message, port: int) -> dns.message.Message:
    return dns.query.udp(query, "127.0.0.1", port=port, source=source, timeout=20)


class TestFailOpen:
    async def test_rule_11_a_sick_cache_steps_aside_and_comes_back(self, caplog: pytest.LogCaptureFixture) -> None:
        health = Health()
        rows = {("quay.io", "A"): REAL, ("quay.io", "AAAA"): Row(answer=("quay.io. 5 AAAA 2001:db8::99",))}
        async with (
            FakeUpstream(rows) as upstream,
            serving(DnsSettings(intercepts, upstream=(upstream.address,), healthy=health)) as running,
        ):
            for tcp in (False, True):
                assert texts(await running.ask("quay.io", tcp=tcp)) == ["quay.io. 30 A 127.0.0.1"]
            health.well = False
            for tcp in (False, True, False, True):
                assert texts(await running.ask("quay.io", tcp=tcp)) == ["quay.io. 30 A 192.0.2.99"]
            assert texts(await running.ask("quay.io", "AAAA")) == ["quay.io. 5 AAAA 2001:db8::99"]
            assert running.responder.counters.bypassed == 5
            assert "sick" in caplog.text
            health.well = True
            for tcp in (False, True):
                assert texts(await running.ask("quay.io", tcp=tcp)) == ["quay.io. 30 A 127.0.0.1"]
            assert (await running.ask("quay.io", "AAAA")).answer == []
            assert len(upstream.asked) == 2

    async def test_a_responder_may_begin_sick(self) -> None:
        async with (
            FakeUpstream({("quay.io", "A"): REAL}) as upstream,
            serving(DnsSettings(intercepts, upstream=(upstream.address,), healthy=Health(well=False))) as running,
        ):
            assert texts(await running.ask("quay.io")) == ["quay.io. 30 A 192.0.2.99"]

    async def test_without_fail_open_health_does_not_matter(self) -> None:
        settings = DnsSettings(intercepts, fail_open=False, healthy=Health(well=False))
        async with serving(settings) as running:
            assert texts(await running.ask("quay.io")) == ["quay.io. 30 A 127.0.0.1"]

    async def test_who_cannot_tell_is_sick(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken() -> bool:
            raise RuntimeError("who knows")

        async with (
            FakeUpstream({("quay.io", "A"): REAL}) as upstream,
            serving(DnsSettings(intercepts, upstream=(upstream.address,), healthy=broken)) as running,
        ):
            assert texts(await running.ask("quay.io")) == ["quay.io. 30 A 192.0.2.99"]
            assert "who knows" in caplog.text


class TestReconfigure:
    async def test_new_settings_hold_from_the_next_question_on(self) -> None:
        async with FakeUpstream({QUESTION: A_ROW, ("quay.io", "A"): REAL}) as upstream:
            settings = DnsSettings(intercepts, upstream=(upstream.address,))
            async with serving(settings) as running:
                for name in ("quay.io", "example.com", "quay.io", "example.com"):
                    await running.ask(name)
                assert len(upstream.asked) == 1
                changed = dataclasses.replace(
                    settings, intercepts=lambda name: name == "example.com", advertise=("192.0.2.5",), ttl=7
                )
                running.responder.reconfigure(changed)
                assert texts(await running.ask("example.com")) == ["example.com. 7 A 192.0.2.5"]
                assert texts(await running.ask("quay.io")) == ["quay.io. 3600 A 192.0.2.99"]
                running.responder.reconfigure(dataclasses.replace(settings, allow=()))
                assert (await running.ask("quay.io")).rcode() == dns.rcode.REFUSED

    async def test_questions_in_flight_are_answered_by_the_old_upstream(self) -> None:
        hold = asyncio.Event()
        async with (
            FakeUpstream({QUESTION: dataclasses.replace(A_ROW, hold=hold)}) as old,
            FakeUpstream({QUESTION: Row(answer=("example.com. 60 A 192.0.2.2",))}) as new,
            serving(DnsSettings(intercepts, upstream=(old.address,))) as running,
        ):
            waiting = spawn(running.ask("example.com"), name="asker")
            await old.wait_for(1)
            running.responder.reconfigure(DnsSettings(intercepts, upstream=(new.address,)))
            assert texts(await running.ask("example.com")) == ["example.com. 60 A 192.0.2.2"]
            hold.set()
            assert texts(await waiting) == ["example.com. 3600 A 192.0.2.1"]
            assert texts(await running.ask("example.com")) == ["example.com. 60 A 192.0.2.2"]
            assert (len(old.asked), len(new.asked)) == (1, 1)

    async def test_stopping_lets_go_of_old_flights_too(self) -> None:
        with dead_port() as silent:
            settings = DnsSettings(intercepts, upstream=(silent,))
            async with serving(settings) as running:
                packet = dns.message.make_query("example.com", "A").to_wire()
                assert handle(running.responder, packet) is None
                running.responder.reconfigure(settings)
                assert handle(running.responder, packet) is None


class TestLoops:
    async def test_an_upstream_that_is_ourselves_is_not_used(self, caplog: pytest.LogCaptureFixture) -> None:
        stop = asyncio.Event()
        sockets = bind(["127.0.0.1"], 0)
        own = sockets[0].getsockname()
        async with FakeUpstream({QUESTION: A_ROW}) as upstream:
            responder = Responder(DnsSettings(intercepts, upstream=(own, upstream.address)), timing=QUICK)
            task = spawn(responder.serve(sockets, stop), name="responder")
            assert texts(await Running(responder, own[1]).ask("example.com")) == ["example.com. 3600 A 192.0.2.1"]
            assert responder.counters.queries == 1
            assert "is this responder" in caplog.text
            stop.set()
            await task

    @pytest.mark.parametrize(
        ("listened", "upstream", "ours"),
        [
            ("0.0.0.0", "127.0.0.1", True),
            ("0.0.0.0", "127.0.0.53", True),
            ("0.0.0.0", "198.51.100.1", False),
            ("0.0.0.0", "::1", False),
            ("::", "::1", True),
            ("127.0.0.1", "127.0.0.2", False),
        ],
    )
    def test_a_wildcard_is_every_address_of_the_box(self, listened: str, upstream: str, ours: bool) -> None:
        responder = Responder(DnsSettings(intercepts))
        responder._own = [(listened, 53)]
        assert responder._is_ours(upstream, 53) == ours
        assert not responder._is_ours(upstream, 54)

    async def test_two_that_ask_each_other_find_out(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        async with serving(DnsSettings(intercepts), timing=QUICK) as one:
            settings = DnsSettings(intercepts, upstream=(("127.0.0.1", one.port),))
            async with serving(settings, timing=QUICK) as other:
                one.responder.reconfigure(DnsSettings(intercepts, upstream=(("127.0.0.1", other.port),)))
                assert (await one.ask("example.com")).rcode() == dns.rcode.SERVFAIL
                while not one.responder.counters.looped + other.responder.counters.looped:
                    await asyncio.gather(one.ask("example.com"), one.ask("example.com"))
                assert "leads back to this responder" in caplog.text
                # No storm: what went round is a handful.
                assert one.responder.counters.queries + other.responder.counters.queries < 40


def handle(responder: Responder, packet: bytes, *, client: str = "127.0.0.1", over_tcp: bool = False) -> bytes | None:
    """As a server would, for an asker who is not there any more when a late reply comes."""
    return responder.handle(packet, client, responder.here("127.0.0.1", 1), lambda _: None, over_tcp=over_tcp)


async def test_every_message_is_of_one_kind() -> None:
    async with (
        FakeUpstream({QUESTION: A_ROW}) as upstream,
        serving(DnsSettings(intercepts, upstream=(upstream.address,))) as running,
    ):
        for name in ("quay.io", "quay.io", "localhost", "example.com", "example.com", "EXAMPLE.com"):
            for tcp in (False, True):
                await running.ask(name, tcp=tcp)
        await running.ask("quay.io", "AXFR", tcp=True)
        handle(running.responder, b"")
        exported = dataclasses.asdict(running.responder.counters)
        kinds = [
            "intercepted",
            "special",
            "cached",
            "forwarded",
            "joined",
            "refused",
            "malformed",
            "overloaded",
            "looped",
        ]
        assert sum(exported[kind] for kind in kinds) == exported["queries"] == 14
        assert (exported["tcp"], exported["forwarded"], exported["cached"]) == (7, 1, 5)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("entrepot.dns.responder._REMEMBERED", 16)
    responder = Responder(DnsSettings(intercepts))
    for number in range(100):
        handle(responder, dns.message.make_query(f"{number}.gcr.io", "A", use_edns=False).to_wire())
    here = responder.here("127.0.0.1", 1)
    assert 0 < len(here.ready) <= 16
    assert 0 < len(here.decisions) <= 16


@pytest.mark.parametrize("want", [{"options": [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")]}, {}])
def test_what_is_never_asked_twice_is_not_kept_ready(want: dict[str, Any]) -> None:
    responder = Responder(DnsSettings(intercepts))
    handle(responder, dns.message.make_query("quay.io" if want else "QuaY.io", "A", **want).to_wire())
    assert responder.here("127.0.0.1", 1).ready == {}


PACKETS = st.one_of(
    st.binary(max_size=64),
    st.builds(
        lambda flags, counts, body: HEADER.pack(1, flags, *counts) + body,
        st.integers(0, 0xFFFF),
        st.tuples(*[st.integers(0, 2)] * 4),
        st.binary(max_size=64),
    ),
    st.builds(
        lambda name, rtype, rclass, tail: (
            HEADER.pack(1, 0x0100, 1, 0, 0, 1 if tail else 0) + name + rtype.to_bytes(2) + rclass.to_bytes(2) + tail
        ),
        st.sampled_from([b"\x04quay\x02io\x00", b"\x00", b"\x01\x00\x07invalid\x00", b"\x07quay.io\x00"]),
        st.integers(0, 300),
        st.sampled_from([1, 3, 255]),
        st.one_of(st.just(b""), st.binary(max_size=24), st.just(b"\x00\x00\x29\xff\xff\x00\x00\x80\x00\x00\x00")),
    ),
)


@given(st.lists(PACKETS, max_size=6), st.booleans(), st.booleans())
def test_whatever_arrives_the_reply_is_a_message_or_nothing(packets: list[bytes], tcp: bool, friend: bool) -> None:
    responder = Responder(DnsSettings(intercepts))
    for packet in packets:
        reply = handle(responder, packet, client="127.0.0.1" if friend else "8.8.8.8", over_tcp=tcp)
        assert reply is not None  # there is no upstream to wait for
        if reply:
            message = dns.message.from_wire(reply)
            assert reply[:2] == packet[:2]
            assert message.flags & dns.flags.QR
            assert not packet[2] & 0x80  # a response answered would be a loop for two
            assert friend or len(reply) <= len(packet)


@given(st.data())
def test_a_query_spoiled_anywhere_is_answered_or_not(data: st.DataObject) -> None:
    responder = Responder(DnsSettings(intercepts))
    packet = bytearray(dns.message.make_query("quay.io", "A", use_edns=0, payload=1232, id=1).to_wire())
    for _ in range(data.draw(st.integers(1, 4))):
        packet[data.draw(st.integers(0, len(packet) - 1))] = data.draw(st.integers(0, 255))
    reply = handle(responder, bytes(packet[: data.draw(st.integers(0, len(packet)))]))
    assert reply is not None
    if reply:
        dns.message.from_wire(reply)


def test_a_here_is_given_out_again() -> None:
    responder = Responder(DnsSettings(intercepts))
    here = responder.here("127.0.0.1", 1)
    assert isinstance(here, Here)
    assert responder.here("127.0.0.1", 1) is here
