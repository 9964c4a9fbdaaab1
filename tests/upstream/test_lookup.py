"""DNS questions and what is read from answers; another implementation (dnspython) reads and writes the other side."""

import asyncio
import struct
from contextlib import suppress

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.upstream.loopback import NOWHERE, name_server

from entrepot.upstream.lookup import AAAA, NXDOMAIN, A, Answer, NotAnAnswer, ask, question, read

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,9}[a-z0-9])?", fullmatch=True)
NAME = st.lists(LABEL, min_size=1, max_size=5).map(".".join)


def reply(asked: bytes, *zone: str, rcode: int = 0) -> bytes:
    message = dns.message.make_response(dns.message.from_wire(asked))
    message.set_rcode(dns.rcode.Rcode(rcode))
    for line in zone:
        owner, ttl, rtype, value = line.split()
        message.answer.append(dns.rrset.from_text(owner, int(ttl), "IN", rtype, value))
    return message.to_wire()


def answered(asked: bytes, records: bytes, count: int = 1) -> bytes:
    """An answer with these records, written by hand."""
    return asked[:2] + b"\x81\x80" + struct.pack("!4H", 1, count, 0, 0) + asked[12:] + records


def record(owner: bytes, rtype: int, data: bytes, rclass: int = 1) -> bytes:
    return owner + struct.pack("!HHIH", rtype, rclass, 60, len(data)) + data


OWNER = b"\xc0\x0c"  # the name in the question
ADDRESS = record(OWNER, 1, bytes([192, 0, 2, 1]))


@given(NAME, st.sampled_from([A, AAAA]))
def test_another_implementation_reads_our_question(name: str, kind: int) -> None:
    parsed = dns.message.from_wire(question(name, kind))
    assert [(str(asked.name), asked.rdtype, asked.rdclass) for asked in parsed.question] == [(f"{name}.", kind, 1)]
    assert parsed.flags == dns.flags.RD
    assert parsed.opcode() == 0


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


@pytest.mark.parametrize(("first", "second", "last"), [(300, 20, 60), (20, 300, 60), (300, 60, 20)])
def test_a_chain_of_aliases_counts_with_its_shortest_life(first: int, second: int, last: int) -> None:
    asked = question("a.test", A)
    zone = [f"b.test. {second} CNAME C.test.", f"a.test. {first} CNAME b.test.", f"c.test. {last} A 192.0.2.9"]
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
        good[:5] + b"\x02" + good[6:],  # two questions
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
    "records",
    [
        b"\xc0\xff" + bytes(10),  # a name that points behind itself
        b"\xc0\x1c" + bytes(10),  # at itself
        b"\x40" + bytes(11),  # a label type nobody has
        b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x03abc",  # an address of three bytes
        record(OWNER, 1, b"abcde"),  # of five
        record(OWNER, 1, b""),
        record(b"\x40" + b"x" * 64 + b"\0", 1, b"abcd"),  # a label of 64 bytes
        record(b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0", 1, b"abcd"),  # a name of 257 bytes
        record(OWNER, 5, b"\xc0\xff"),  # an alias that points behind itself
        record(OWNER, 5, b"\x02\xff\xfe\0"),  # one that is no text
        record(OWNER, 5, b"\x01a\0 "),  # one that ends before its record does
        record(OWNER, 5, b"\x01a") + b"\0",  # or after it
    ],
)
def test_malformed_records(records: bytes) -> None:
    asked = question("a.test", A)
    with pytest.raises(NotAnAnswer):
        read(answered(asked, records), asked)


def test_a_name_that_goes_round_in_circles() -> None:
    """Both pointers lead backwards from where they stand; one stands inside the label before the other."""
    asked = question("a.test", A)
    filler = record(OWNER, 16, bytes(0x290 - len(asked) - 12))
    circle = b"\x02\xc2\x90\xc2\x91"
    with pytest.raises(NotAnAnswer):
        read(answered(asked, filler + record(circle, 1, b"abcd"), 2), asked)


def test_a_message_can_be_full_but_not_laborious() -> None:
    asked = question("registry.region.example.test", A)
    assert len(read(answered(asked, ADDRESS * 4000, 4000), asked).addresses) == 4000
    asked = question(".".join("a" * 126), A)
    assert read(answered(asked, ADDRESS), asked).addresses
    with pytest.raises(NotAnAnswer):
        read(answered(asked, ADDRESS * 4000, 4000), asked)


@pytest.mark.parametrize(
    "other",
    [
        record(OWNER, 16, b""),  # TXT without a string
        record(OWNER, 29, b"\x01"),  # LOC of another version
        record(OWNER, 65, b"\xff" * 5),  # HTTPS
        record(OWNER, 41, b"\xff" * 5),  # OPT where none belongs
        record(OWNER, 65280, b"\xff"),  # private use
        record(OWNER, 1, b"abcde", rclass=3),  # CHAOS
        record(OWNER, 5, b"\xff", rclass=3),
    ],
)
def test_records_nobody_asked_for_are_passed_over(other: bytes) -> None:
    asked = question("a.test", A)
    assert read(answered(asked, other + ADDRESS, 2), asked).addresses == ("192.0.2.1",)


def test_only_the_answer_section_is_read() -> None:
    asked = question("a.test", A)
    message = bytearray(answered(asked, ADDRESS + b"\xff" * 9))
    message[8:12] = b"\0\x02\0\x01"
    assert read(bytes(message), asked).addresses == ("192.0.2.1",)


@given(st.dictionaries(st.integers(0, 200), st.integers(0, 255), max_size=6))
def test_a_garbled_answer_is_read_or_refused(changes: dict[int, int]) -> None:
    asked = question("a.test", A)
    zone = ["a.test. 60 CNAME b.test.", "b.test. 60 CNAME c.b.test.", "c.b.test. 60 A 192.0.2.1"]
    message = bytearray(reply(asked, *zone))
    for place, value in changes.items():
        message[place % len(message)] = value
    with suppress(NotAnAnswer):
        assert isinstance(read(bytes(message), asked), Answer)


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
