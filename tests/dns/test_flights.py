"""One question on its way: order, lateness, forgery, over UDP and TCP."""

import asyncio
import time
from collections.abc import Callable, Sequence

import dns.rcode
import pytest
from tests.dns.fakes import PATIENT, QUICK, FakeUpstream, Row, dead_port, make_query

from entrepot.dns.counters import Counters
from entrepot.dns.flights import Timing, UdpFlight, ask_over_tcp
from entrepot.dns.records import Answer
from entrepot.dns.upstreams import Pool

A_ROW = Row(answer=("example.com. 60 A 192.0.2.1",))
QUESTION = ("example.com", "A")


class Trip:
    """A flight over UDP and what came of it."""

    def __init__(self, upstreams: Sequence[tuple[str, int]], timing: Timing = PATIENT) -> None:
        self.pool = Pool(upstreams)
        self.counters = Counters()
        self.landed: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        query = make_query("eXample.com", use_edns=0)
        attempts = self.pool.attempts(0)
        clock = time.monotonic
        self.flight = UdpFlight(query, attempts, self.pool, timing, self.counters, clock, self.landed.set_result)

    async def fly(self) -> Answer | None:
        self.flight.start()
        return await self.landed


async def test_an_answer_lands() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        trip = Trip([upstream.address])
        answer = await trip.fly()
        assert answer is not None
        assert (answer.rcode, answer.life) == (0, 60)
        assert [(asked.name, asked.tcp) for asked in upstream.asked] == [("eXample.com", False)]
        assert trip.pool.all[0].failures == 0


async def test_each_question_has_a_port_and_an_id_of_its_own() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        for _ in range(8):
            await Trip([upstream.address]).fly()
        assert len({asked.port for asked in upstream.asked}) > 4
        assert len({asked.message.id for asked in upstream.asked}) > 4


async def test_a_silent_upstream_is_overtaken_by_the_next() -> None:
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        with dead_port() as silent:
            trip = Trip([silent, upstream.address], QUICK)
            answer = await trip.fly()
        assert answer is not None
        assert trip.counters.timeouts == 1
        assert [it.failures > 0 for it in trip.pool.all] == [True, False]


async def test_a_closed_port_costs_no_waiting() -> None:
    with dead_port() as closed:
        pass
    async with FakeUpstream({QUESTION: A_ROW}) as upstream:
        trip = Trip([closed, upstream.address], PATIENT)
        assert await trip.fly() is not None
        assert trip.counters.timeouts == 0
        assert trip.pool.all[0].failures == 1


async def test_a_late_answer_still_counts() -> None:
    hold = asyncio.Event()
    async with (
        FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as slow,
        FakeUpstream({QUESTION: Row(silent=True)}) as silent,
    ):
        trip = Trip([slow.address, silent.address], Timing(attempt=0.05, total=20))
        trip.flight.start()
        await silent.wait_for(1)  # so the first is late
        hold.set()
        assert await trip.landed is not None
        assert trip.pool.all[0].failures == 0


async def test_a_lost_packet_is_sent_again() -> None:
    row = Row(silent=True)
    async with FakeUpstream({QUESTION: row}) as upstream:
        trip = Trip([upstream.address], Timing(attempt=0.05, total=20))
        trip.flight.start()
        await upstream.wait_for(1)
        row.silent, row.answer = False, A_ROW.answer
        assert await trip.landed is not None
        assert len(upstream.asked) == 2


async def test_when_all_are_silent_nothing_lands_in_the_end() -> None:
    with dead_port() as one, dead_port() as other:
        trip = Trip([one, other], QUICK)
        assert await trip.fly() is None
        assert trip.counters.timeouts >= 2
        assert all(upstream.failures for upstream in trip.pool.all)


async def test_with_no_way_out_nothing_lands_at_once() -> None:
    trip = Trip([("192.0.2.1", 53)], PATIENT)
    trip.pool.all[0].host = "fe80::1%nowhere"
    assert await trip.fly() is None


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.NOTIMP])
async def test_another_may_know_what_one_refuses(rcode: dns.rcode.Rcode) -> None:
    async with (
        FakeUpstream({QUESTION: Row(rcode=rcode)}) as refuses,
        FakeUpstream({QUESTION: A_ROW}) as knows,
    ):
        answer = await Trip([refuses.address, knows.address]).fly()
        assert answer is not None
        assert answer.rcode == dns.rcode.NOERROR


async def test_a_refusal_is_passed_on_if_nobody_knows_better() -> None:
    async with FakeUpstream({QUESTION: Row(rcode=dns.rcode.REFUSED)}) as upstream:
        answer = await Trip([upstream.address]).fly()
        assert answer is not None
        assert answer.rcode == dns.rcode.REFUSED
        assert len(upstream.asked) == 1


async def test_no_such_name_is_an_answer() -> None:
    async with (
        FakeUpstream({QUESTION: Row(rcode=dns.rcode.NXDOMAIN)}) as first,
        FakeUpstream({QUESTION: A_ROW}) as second,
    ):
        answer = await Trip([first.address, second.address]).fly()
        assert answer is not None
        assert answer.rcode == dns.rcode.NXDOMAIN
        assert second.asked == []


def wrong_id(true: bytes) -> bytes:
    return bytes([true[0] ^ 0xFF]) + true[1:-1] + b"\x66"


@pytest.mark.parametrize(
    "forge",
    [
        wrong_id,
        lambda true: true.replace(b"\x07eXample", b"\x07evample"),
        lambda true: true[:2] + b"\x01" + true[3:],
        lambda true: b"\0",  # not b"": asyncio before 3.13 sends no empty datagram
        lambda true: true[:20],
    ],
)
async def test_forged_answers_are_passed_over(forge: Callable[[bytes], bytes]) -> None:
    row = Row(answer=A_ROW.answer, forged=lambda true: [forge(true)] * 3)
    async with FakeUpstream({QUESTION: row}) as upstream:
        trip = Trip([upstream.address])
        answer = await trip.fly()
        assert answer is not None
        assert answer.reply.body.endswith(b"\xc0\x00\x02\x01")
        assert trip.counters.strays == 3


async def test_a_guesser_is_left_behind_on_the_old_port() -> None:
    row = Row(answer=A_ROW.answer, forged=lambda true: [wrong_id(true)] * 16)
    async with FakeUpstream({QUESTION: row}) as guessed:
        trip = Trip([guessed.address])
        assert await trip.fly() is None
        assert len({asked.port for asked in guessed.asked}) == len(guessed.asked) == 3
        assert trip.counters.strays == 48


async def test_an_answer_from_another_address_does_not_count() -> None:
    forged_from_elsewhere = asyncio.Event()

    async def forge(upstream: FakeUpstream) -> None:
        """The right answer, ID and all, from a socket that is not the upstream's."""
        await upstream.wait_for(1)
        asked = upstream.asked[0]
        loop = asyncio.get_running_loop()
        true = (await upstream.answers(asked.message.to_wire(), asked.port, tcp=False))[0]
        transport, _ = await loop.create_datagram_endpoint(asyncio.DatagramProtocol, local_addr=("127.0.0.1", 0))
        transport.sendto(true, ("127.0.0.1", asked.port))
        transport.close()
        forged_from_elsewhere.set()

    row = Row(answer=A_ROW.answer)
    async with FakeUpstream({QUESTION: Row(silent=True)}) as upstream:
        trip = Trip([upstream.address], QUICK)
        trip.flight.start()
        await upstream.wait_for(1)
        upstream.rows[QUESTION] = row
        await forge(upstream)
        upstream.rows[QUESTION] = Row(silent=True)
        assert forged_from_elsewhere.is_set()
        assert await trip.landed is None


async def test_a_closed_flight_never_lands() -> None:
    hold = asyncio.Event()
    async with FakeUpstream({QUESTION: Row(answer=A_ROW.answer, hold=hold)}) as upstream:
        trip = Trip([upstream.address], QUICK)
        trip.flight.start()
        await upstream.wait_for(1)
        trip.flight.close()
        hold.set()
        await asyncio.sleep(0)
        assert not trip.landed.done()


class TestTcp:
    async def ask(self, upstreams: Sequence[tuple[str, int]], timing: Timing = PATIENT) -> Answer | None:
        self.pool = Pool(upstreams)
        self.counters = Counters()
        query = make_query("example.com", use_edns=0)
        return await ask_over_tcp(query, self.pool.attempts(0), self.pool, timing, self.counters, time.monotonic)

    async def test_a_large_answer_comes_whole(self) -> None:
        row = Row(answer=tuple(f"example.com. 60 TXT {'x' * 200}{number}" for number in range(200)))
        async with FakeUpstream({QUESTION: row}) as upstream:
            answer = await self.ask([upstream.address])
            assert answer is not None
            assert (answer.reply.answers, len(answer.reply.body) > 40_000) == (200, True)
            assert [asked.tcp for asked in upstream.asked] == [True]

    async def test_the_next_is_asked_if_one_refuses_the_connection(self) -> None:
        with dead_port() as closed:
            async with FakeUpstream({QUESTION: A_ROW}) as upstream:
                assert await self.ask([closed, upstream.address]) is not None
                assert [it.failures for it in self.pool.all] == [1, 0]

    async def test_the_next_is_asked_if_one_is_silent(self) -> None:
        async with (
            FakeUpstream({QUESTION: Row(silent=True)}) as silent,
            FakeUpstream({QUESTION: A_ROW}) as upstream,
        ):
            assert await self.ask([silent.address, upstream.address], Timing(attempt=0.1, total=1.0)) is not None
            assert self.counters.timeouts == 1

    async def test_the_next_is_asked_if_one_talks_nonsense(self) -> None:
        async with (
            FakeUpstream({QUESTION: Row(raw=b"nonsense")}) as nonsense,
            FakeUpstream({QUESTION: A_ROW}) as upstream,
        ):
            assert await self.ask([nonsense.address, upstream.address]) is not None

    async def test_a_refusal_is_passed_on_if_nobody_knows_better(self) -> None:
        async with FakeUpstream({QUESTION: Row(rcode=dns.rcode.SERVFAIL)}) as upstream:
            answer = await self.ask([upstream.address])
            assert answer is not None
            assert answer.rcode == dns.rcode.SERVFAIL

    async def test_nobody_answers(self) -> None:
        with dead_port() as closed:
            assert await self.ask([closed]) is None
