"""The cache before the upstreams, one flight for identical questions, limits, loops."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import dns.flags
import dns.message
import dns.rcode
import pytest
from tests.dns.fakes import PATIENT, QUICK, Clock, FakeUpstream, Row, dead_port, make_query, texts

from entrepot.dns.answers import Forward
from entrepot.dns.counters import Counters
from entrepot.dns.flights import Timing
from entrepot.dns.forwarder import MAX_WAITERS, Forwarder
from entrepot.dns.records import Answer
from entrepot.dns.wire import Query, compose, read_query

QUESTION = ("example.com", "A")
A_ROW = Row(answer=("example.com. 60 A 192.0.2.1",))
CLIENT = "10.9.9.9"


class Desk:
    """A forwarder and those who stand before it."""

    made: ClassVar[list["Desk"]] = []

    def __init__(self, *upstreams: tuple[str, int], timing: Timing = PATIENT, max_flights: int = 256) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.forwarder = Forwarder(upstreams, self.clock, timing, self.counters, max_flights=max_flights)
        self.said: list[str] = []
        self.made.append(self)

    def ask(
        self, query: Query, *, client: str = CLIENT, how: Forward | None = None, over_tcp: bool = False
    ) -> asyncio.Future[Answer | None]:
        landed: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        said = self.forwarder.ask(query, client, how or Forward(), landed.set_result, over_tcp=over_tcp)
        self.said.append(said)
        return landed

    def cached(self, query: Query) -> list[str] | None:
        found = self.forwarder.lookup(query)
        return texts(dns.message.from_wire(compose(query, found[0], 65535))) if found else None


@pytest.fixture(autouse=True)
async def _closed() -> AsyncIterator[None]:
    """Nothing is left in flight, probes included, whatever the test did."""
    yield
    while Desk.made:
        Desk.made.pop().forwarder.close()


async def test_an_answer_is_kept_and_counts_down() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        desk = Desk(upstream.address)
        query = make_query("example.com")
        assert desk.cached(query) is None
        assert await desk.ask(query) is not None
        desk.clock.now += 59
        assert desk.cached(query) == ["example.com. 1 A 192.0.2.1"]
        assert desk.cached(make_query("EXAMPLE.com")) == ["EXAMPLE.com. 1 A 192.0.2.1"]
        desk.clock.now += 1
        assert desk.cached(query) is None
        assert desk.said == ["forwarded"]


@pytest.mark.parametrize(
    "other",
    [
        {"rtype": "AAAA"},
        {"use_edns": 0, "want_dnssec": True},
        {"use_edns": False},
        {"use_edns": 0, "flags": dns.flags.RD | dns.flags.CD},
        {"use_edns": 0, "flags": 0},
    ],
)
async def test_what_asks_for_another_answer_is_another_question(other: dict[str, Any]) -> None:
    async with FakeUpstream({QUESTION: A_ROW, ("example.com", "AAAA"): Row()}) as upstream:
        desk = Desk(upstream.address)
        await desk.ask(make_query("example.com", use_edns=0))
        query = make_query("example.com", **other)
        assert desk.cached(query) is None
        await desk.ask(query)
        assert len(upstream.asked) == 2


async def test_who_asks_the_same_at_the_same_time_waits_for_one_answer() -> None:
    hold = asyncio.Event()
    async with FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as upstream:
        desk = Desk(upstream.address)
        waiting = [desk.ask(make_query(name)) for name in ("example.com", "Example.com", "example.COM")]
        assert desk.said == ["forwarded", "joined", "joined"]
        assert desk.forwarder.busy
        await upstream.wait_for(1)
        hold.set()
        answers = await asyncio.gather(*waiting)
        assert len({id(answer) for answer in answers}) == 1
        assert len(upstream.asked) == 1
        assert not desk.forwarder.busy


async def test_tcp_and_udp_fly_apart() -> None:
    hold = asyncio.Event()
    async with FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as upstream:
        desk = Desk(upstream.address)
        waiting = [desk.ask(make_query("example.com"), over_tcp=over_tcp) for over_tcp in (False, True)]
        hold.set()
        await asyncio.gather(*waiting)
        assert sorted(asked.tcp for asked in upstream.asked) == [False, True]


async def test_too_many_who_wait_for_one_answer_are_turned_away() -> None:
    with dead_port() as silent:
        desk = Desk(silent)
        for _ in range(MAX_WAITERS + 1):
            desk.ask(make_query("example.com"))
        assert desk.said[-2:] == ["joined", "overloaded"]


async def test_too_many_questions_in_flight_are_turned_away() -> None:
    with dead_port() as silent:
        desk = Desk(silent, max_flights=2)
        for name in ("a.example", "b.example", "c.example", "a.example"):
            desk.ask(make_query(name))
        assert desk.said == ["forwarded", "forwarded", "overloaded", "joined"]


async def test_with_nobody_to_ask_it_says_so() -> None:
    desk = Desk()
    desk.ask(make_query("example.com"))
    assert desk.said == ["overloaded"]


async def test_a_truncated_answer_is_passed_on_and_the_whole_one_kept() -> None:
    row = Row(answer=tuple(f"example.com. 60 A 192.0.2.{number}" for number in range(1, 200)), truncate=True)
    async with FakeUpstream({QUESTION: row}) as upstream:
        desk = Desk(upstream.address)
        query = make_query("example.com")
        answer = await desk.ask(query)
        assert answer is not None
        assert answer.reply.flags & dns.flags.TC
        assert desk.cached(query) is None
        assert await desk.ask(query, over_tcp=True) is not None
        assert len(desk.cached(query) or ()) == 199


async def test_negative_answers_are_kept_too() -> None:
    row = Row(authority=("example.com. 60 SOA a. b. 1 2 3 4 5",), rcode=dns.rcode.NXDOMAIN)
    async with FakeUpstream({QUESTION: row}) as upstream:
        desk = Desk(upstream.address)
        query = make_query("example.com")
        await desk.ask(query)
        desk.clock.now += 4
        assert desk.cached(query) == []
        desk.clock.now += 1
        assert desk.cached(query) is None


async def test_a_cap_holds_for_the_answer_and_the_cache() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        desk = Desk(upstream.address)
        query = make_query("example.com")
        answer = await desk.ask(query, how=Forward(cap=7))
        assert answer is not None
        assert texts(dns.message.from_wire(compose(query, answer.reply, 512))) == ["example.com. 7 A 192.0.2.1"]
        desk.clock.now += 6
        assert desk.cached(query) == ["example.com. 1 A 192.0.2.1"]
        desk.clock.now += 1
        assert desk.cached(query) is None


async def test_failure_is_told_to_all_and_not_kept() -> None:
    with dead_port() as silent:
        desk = Desk(silent, timing=QUICK)
        waiting = [desk.ask(make_query("example.com")) for _ in range(3)]
        assert await asyncio.gather(*waiting) == [None, None, None]
        assert desk.counters.failed == 1
        assert desk.cached(make_query("example.com")) is None


async def test_private_questions_go_to_private_upstreams_only() -> None:
    desk = Desk(("192.0.2.53", 53))
    desk.ask(make_query("1.0.0.10.in-addr.arpa", "PTR"), how=Forward(private_only=True))
    assert desk.said == ["overloaded"]


async def test_an_upstream_that_is_back_is_found_beside_a_question_another_answers() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as first, FakeUpstream({QUESTION: A_ROW}) as second:
        desk = Desk(first.address, second.address)
        desk.forwarder.pool.failed(desk.forwarder.pool.all[0], desk.clock.now)
        desk.clock.now += 1
        await desk.ask(make_query("example.com"))
        assert len(second.asked) == 1  # who waited, waited for this one only
        await first.wait_for(1)
        desk.clock.now += 100
        while desk.forwarder.pool.all[0].failures:
            await asyncio.wait([desk.ask(make_query("example.com"))])
        assert desk.forwarder.pool.attempts(desk.clock.now)[0].port == first.address[1]


async def test_closing_leaves_nobody_an_answer() -> None:
    hold = asyncio.Event()
    async with FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as upstream:
        desk = Desk(upstream.address)
        waiting = [desk.ask(make_query("example.com"), over_tcp=over_tcp) for over_tcp in (False, True)]
        await upstream.wait_for(2)
        desk.forwarder.close()
        hold.set()
        assert not desk.forwarder.busy
        assert not any(landed.done() for landed in waiting)


async def test_a_bug_on_the_way_over_tcp_is_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("entrepot.dns.flights.read_answer", broken)
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        assert await Desk(upstream.address).ask(make_query("example.com"), over_tcp=True) is None
    assert "a bug" in caplog.text


class TestLoops:
    """We ask an upstream, and the upstream asks us."""

    async def probe(self, upstream: FakeUpstream, number: int) -> Query:
        """The probe as it would come back to us."""
        await upstream.wait_for(number)
        asked = upstream.asked[number - 1]
        assert asked.rtype == "TXT"
        assert asked.name.endswith(".test")
        query = read_query(asked.message.to_wire())
        assert isinstance(query, Query)
        return query

    async def test_a_question_that_comes_back_from_its_upstream_is_found_out(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with FakeUpstream({QUESTION: Row(silent=True)}) as upstream:
            desk = Desk(upstream.address)
            desk.ask(make_query("example.com"))
            desk.ask(make_query("example.com"), client="127.0.0.1")
            probe = await self.probe(upstream, 2)
            assert desk.forwarder.caught(probe)
            assert "leads back" in caplog.text
            assert not desk.forwarder.caught(probe)
            desk.ask(make_query("other.example"))
            assert desk.said[-1] == "overloaded"
            desk.clock.now += 300
            desk.ask(make_query("other.example"))
            assert desk.said[-1] == "forwarded"

    async def test_a_loop_over_others_is_found_when_nobody_answers(self) -> None:
        async with FakeUpstream({QUESTION: Row(silent=True)}) as upstream:
            desk = Desk(upstream.address, timing=QUICK)
            assert await desk.ask(make_query("example.com")) is None
            assert desk.forwarder.caught(await self.probe(upstream, 4))

    async def test_an_ordinary_question_is_no_sign(self) -> None:
        async with FakeUpstream({QUESTION: A_ROW}) as upstream:
            desk = Desk(upstream.address)
            desk.ask(make_query("example.com"))
            await desk.ask(make_query("example.com"))
            assert not desk.forwarder.caught(make_query("example.com"))
            assert len(upstream.asked) == 1

    async def test_a_suspect_that_answers_its_probe_is_still_asked(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        hold = asyncio.Event()
        async with FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as upstream:
            desk = Desk(upstream.address)
            first = desk.ask(make_query("example.com"))
            desk.ask(make_query("example.com"), client="127.0.0.1")
            await upstream.wait_for(2)
            hold.set()
            assert await first is not None
            assert caplog.text == ""
            assert await desk.ask(make_query("EXAMPLE.com")) is not None
