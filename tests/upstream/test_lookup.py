"""DNS questions and what is read from answers; the answers are built by another implementation (dnslib)."""

import asyncio

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.upstream.loopback import NOWHERE, name_server

from entrepot.upstream.lookup import AAAA, NXDOMAIN, A, Answer, NotAnAnswer, ask, question, read

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


def reply(asked: bytes, *zone: str, rcode: int = 0) -> bytes:
    message = dnslib.DNSRecord.parse(asked).reply()
    message.header.rcode = rcode
    for line in zone:
        message.add_answer(*dnslib.RR.fromZone(line))
    return bytes(message.pack())


@given(NAME, st.sampled_from([A, AAAA]))
def test_another_implementation_reads_our_question(name: str, kind: int) -> None:
    parsed = dnslib.DNSRecord.parse(question(name, kind))
    assert str(parsed.q.qname) == f"{name}."
    assert parsed.q.qtype == kind
    assert parsed.header.rd == 1
    assert parsed.header.qr == 0


def test_questions_cannot_be_guessed() -> None:
    assert len({question("a.test", A)[:2] for _ in range(50)}) > 40


@pytest.mark.parametrize("name", ["", ".", "a..test", "x" * 64, ".".join(["x" * 60] * 5), "b\u00fccher.test"])
def test_what_cannot_be_a_name(name: str) -> None:
    with pytest.raises(ValueError):
        question(name, A)


def test_addresses_of_either_family() -> None:
    asked = question("a.test", A)
    assert read(reply(asked, "a.test. 60 A 192.0.2.1", "a.test. 50 A 192.0.2.2"), asked) == Answer(
        0, False, ("192.0.2.1", "192.0.2.2"), 50.0
    )
    asked = question("a.test", AAAA)
    assert read(reply(asked, "a.test. 60 AAAA 2001:db8::1"), asked).addresses == ("2001:db8::1",)


def test_a_chain_of_aliases_counts_with_its_shortest_life() -> None:
    asked = question("a.test", A)
    zone = ["b.test. 20 CNAME C.test.", "a.test. 300 CNAME b.test.", "c.test. 60 A 192.0.2.9"]
    assert read(reply(asked, *zone), asked) == Answer(0, False, ("192.0.2.9",), 20.0)


def test_addresses_of_other_names_are_nobodys() -> None:
    asked = question("a.test", A)
    assert read(reply(asked, "evil.test. 60 A 192.0.2.9"), asked).addresses == ()


def test_a_circle_of_aliases_ends() -> None:
    asked = question("a.test", A)
    assert read(reply(asked, "a.test. 1 CNAME b.test.", "b.test. 1 CNAME a.test."), asked).addresses == ()


def test_the_other_family_is_not_mistaken() -> None:
    asked = question("a.test", AAAA)
    assert read(reply(asked, "a.test. 60 A 192.0.2.1"), asked).addresses == ()


def test_nxdomain() -> None:
    asked = question("a.test", A)
    assert read(reply(asked, rcode=NXDOMAIN), asked) == Answer(NXDOMAIN, False, (), 0.0)


def test_case_does_not_matter() -> None:
    asked = question("A.Test", A)
    assert read(reply(asked, "a.tEST. 60 A 192.0.2.1"), asked).addresses == ("192.0.2.1",)


def test_answers_to_other_questions_are_refused() -> None:
    asked, other = question("a.test", A), question("b.test", A)
    good = reply(asked, "a.test. 60 A 192.0.2.1")
    for message in (
        reply(other, "a.test. 60 A 192.0.2.1"),
        bytes([good[0] ^ 1]) + good[1:],  # another id
        asked,  # a question
        asked[:2] + reply(other)[2:],  # our id, another name
        good[:2] + bytes([good[2] | 0x08]) + good[3:],  # another opcode
    ):
        with pytest.raises(NotAnAnswer):
            read(message, asked)


def test_a_cut_answer_is_refused_wherever_it_is_cut() -> None:
    asked = question("a.test", A)
    good = reply(asked, "a.test. 60 CNAME b.test.", "b.test. 60 A 192.0.2.1")
    assert read(good, asked).addresses
    for end in range(len(good)):
        with pytest.raises(NotAnAnswer):
            read(good[:end], asked)


@pytest.mark.parametrize(
    "record",
    [
        b"\xc0\xff" + bytes(10),  # a name that points behind itself
        b"\xc0\x1c" + bytes(10),  # at itself
        b"\x40" + bytes(11),  # a label type nobody has
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03abc",  # an address of three bytes
    ],
)
def test_malformed_records(record: bytes) -> None:
    asked = question("a.test", A)
    message = asked[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + asked[12:] + record
    with pytest.raises(NotAnAnswer):
        read(message, asked)


@given(st.binary(max_size=120))
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    asked = question("a.test", A)
    for message in (
        tail,
        asked[:2] + b"\x81\x80" + tail,
        asked[:2] + b"\x81\x80\x00\x01\x00\x03\0\0\0\0" + asked[12:] + tail,
    ):
        try:
            answer = read(message, asked)
        except NotAnAnswer:
            continue
        assert isinstance(answer, Answer)


async def test_a_stray_datagram_does_not_matter() -> None:
    async with name_server(a_test=["60 A 192.0.2.1"]) as zone:  # sends one before each answer
        answer = await ask(("127.0.0.1", zone.port), question("a.test", A), seconds=10)
    assert answer.addresses == ("192.0.2.1",)


async def test_what_does_not_fit_comes_over_tcp() -> None:
    async with name_server(a_test=[f"60 A 192.0.2.{n}" for n in range(1, 100)]) as zone:
        zone.truncating = True
        answer = await ask(("127.0.0.1", zone.port), question("a.test", A), seconds=10)
        assert zone.over_tcp == 1
    assert len(answer.addresses) == 99


async def test_a_closed_port_is_heard_of_at_once() -> None:
    with pytest.raises(ConnectionRefusedError):
        await ask(("127.0.0.1", NOWHERE), question("a.test", A), seconds=30)


async def test_silence_ends_in_time() -> None:
    async with name_server() as zone:
        zone.silent = True
        with pytest.raises(TimeoutError):
            await ask(("127.0.0.1", zone.port), question("a.test", A), seconds=0.05)


async def test_a_cut_tcp_answer_is_none() -> None:
    async with name_server(a_test=[]) as zone:
        zone.truncating = True
        zone.answer_tcp = b"\0\x09short"
        with pytest.raises(NotAnAnswer):
            await ask(("127.0.0.1", zone.port), question("a.test", A), seconds=10)


async def test_asking_can_be_cancelled() -> None:
    async with name_server(a_test=["60 A 192.0.2.1"]) as zone:
        zone.hold = asyncio.Event()
        task = asyncio.ensure_future(ask(("127.0.0.1", zone.port), question("a.test", A), seconds=30))
        await zone.was_asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        zone.hold.set()
