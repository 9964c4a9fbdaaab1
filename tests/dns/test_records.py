"""An upstream's answer: is it ours, how long does it live, where are its TTLs."""

from collections.abc import Callable

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dns.fakes import make_query, texts

from entrepot.dns.records import Answer, read_answer
from entrepot.dns.wire import HEADER, Query, compose, upstream_query

IDENT = 4711
SOA = "com. {ttl} SOA a.com. b.com. 1 2 3 4 {minimum}"


def response(
    query: Query,
    *,
    answer: tuple[str, ...] = (),
    authority: tuple[str, ...] = (),
    additional: tuple[str, ...] = (),
    rcode: dns.rcode.Rcode = dns.rcode.NOERROR,
) -> dns.message.Message:
    message = dns.message.make_response(dns.message.from_wire(upstream_query(query, IDENT)), recursion_available=True)
    message.set_rcode(rcode)
    for section, lines in zip(message.sections[1:], (answer, authority, additional), strict=True):
        for line in lines:
            name, ttl, rtype, data = line.split(maxsplit=3)
            section.append(dns.rrset.from_text(dns.name.from_text(name), int(ttl), "IN", rtype, data))
    return message


def read(query: Query, message: dns.message.Message) -> Answer:
    answer = read_answer(message.to_wire(), IDENT, query)
    assert answer is not None
    return answer


def test_an_answer_passes_through_with_all_its_sections() -> None:
    query = make_query("www.example.com")
    message = response(
        query,
        answer=("www.example.com. 300 CNAME x.example.com.", "x.example.com. 60 A 192.0.2.1"),
        authority=("example.com. 3600 NS ns.example.com.",),
        additional=("ns.example.com. 7200 A 192.0.2.53",),
    )
    answer = read(query, message)
    again = dns.message.from_wire(compose(query, answer.reply, 4096))
    assert again.answer == message.answer
    assert again.authority == message.authority
    assert again.additional == message.additional
    assert sorted(ttl for _, ttl in answer.ttls) == [60, 300, 3600, 7200]
    assert answer.life == 60


def test_ttls_count_down_together_and_stop_at_zero() -> None:
    query = make_query("example.com")
    answer = read(query, response(query, answer=("example.com. 60 A 192.0.2.1", "example.com. 60 A 192.0.2.2")))
    assert texts(dns.message.from_wire(compose(query, answer.aged(59), 512))) == [
        "example.com. 1 A 192.0.2.1",
        "example.com. 1 A 192.0.2.2",
    ]
    assert texts(dns.message.from_wire(compose(query, answer.aged(1000), 512)))[0] == "example.com. 0 A 192.0.2.1"


def test_a_kept_answer_is_not_authoritative() -> None:
    query = make_query("example.com")
    message = response(query, answer=("example.com. 60 A 192.0.2.1",))
    message.flags |= dns.flags.AA
    answer = read(query, message)
    assert dns.message.from_wire(compose(query, answer.reply, 512)).flags & dns.flags.AA
    assert not dns.message.from_wire(compose(query, answer.aged(0), 512)).flags & dns.flags.AA


def test_a_cap_holds_for_every_ttl() -> None:
    query = make_query("example.com")
    answer = read(query, response(query, answer=("example.com. 600 A 192.0.2.1", "a.example.com. 5 A 192.0.2.2")))
    capped = answer.capped(30)
    assert texts(dns.message.from_wire(compose(query, capped.reply, 512))) == [
        "example.com. 30 A 192.0.2.1",
        "a.example.com. 5 A 192.0.2.2",
    ]
    assert capped.life == 5
    assert texts(dns.message.from_wire(compose(query, capped.aged(2), 512)))[0] == "example.com. 28 A 192.0.2.1"


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
@pytest.mark.parametrize(("ttl", "minimum", "life"), [(900, 60, 60), (60, 900, 60), (9000, 9000, 3600)])
def test_rfc2308_a_negative_answer_lives_by_its_soa(rcode: dns.rcode.Rcode, ttl: int, minimum: int, life: int) -> None:
    query = make_query("example.com")
    answer = read(query, response(query, authority=(SOA.format(ttl=ttl, minimum=minimum),), rcode=rcode))
    assert answer.life == life
    again = dns.message.from_wire(compose(query, answer.reply, 512))
    assert again.authority[0].ttl == min(ttl, minimum)


@pytest.mark.parametrize("rcode", [dns.rcode.NXDOMAIN, dns.rcode.NOERROR])
def test_rfc2308_a_negative_answer_without_soa_is_not_kept(rcode: dns.rcode.Rcode) -> None:
    query = make_query("example.com")
    referral = response(query, authority=("com. 3600 NS a.com.",), rcode=rcode)
    assert read(query, referral).life == 0


def test_an_alias_to_nowhere_is_negative() -> None:
    query = make_query("www.example.com")
    alias = ("www.example.com. 300 CNAME x.example.com.",)
    assert read(query, response(query, answer=alias)).life == 0
    kept = read(query, response(query, answer=alias, authority=(SOA.format(ttl=900, minimum=70),)))
    assert kept.life == 70
    assert texts(dns.message.from_wire(compose(query, kept.reply, 512))) == [
        "www.example.com. 300 CNAME x.example.com."
    ]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR])
def test_failures_are_not_kept(rcode: dns.rcode.Rcode) -> None:
    query = make_query("example.com")
    answer = read(query, response(query, answer=("example.com. 60 A 192.0.2.1",), rcode=rcode))
    assert (answer.life, answer.rcode) == (0, rcode)


def test_a_ttl_of_zero_is_not_kept_and_a_huge_one_means_zero() -> None:
    query = make_query("example.com")
    assert read(query, response(query, answer=("example.com. 0 A 192.0.2.1",))).life == 0
    data = response(query, answer=("example.com. 60 A 192.0.2.1",)).to_wire()
    huge = data.replace(b"\x00\x00\x00\x3c", b"\x80\x00\x00\x3c")  # RFC 2181 8
    answer = read_answer(huge, IDENT, query)
    assert answer is not None
    assert (answer.life, answer.ttls[0][1]) == (0, 0)
    assert texts(dns.message.from_wire(compose(query, answer.reply, 512))) == ["example.com. 0 A 192.0.2.1"]


def test_a_day_is_long_enough() -> None:
    query = make_query("example.com")
    assert read(query, response(query, answer=("example.com. 604800 A 192.0.2.1",))).life == 86_400


def test_edns_of_the_upstream_ends_here() -> None:
    query = make_query("example.com", use_edns=0)
    message = response(query, answer=("example.com. 60 A 192.0.2.1",))
    message.use_edns(0, payload=4096, options=[dns.edns.ECSOption("192.0.2.0", 24)])
    answer = read(query, message)
    again = dns.message.from_wire(compose(query, answer.reply, 512))
    assert (again.options, again.payload) == ((), 1232)
    assert texts(again) == ["example.com. 60 A 192.0.2.1"]


def test_what_follows_an_opt_is_left_out_with_it() -> None:
    query = make_query("example.com", use_edns=0)
    opt = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"
    record = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02"
    body = record + b"\x01" + record + b"\x02" + opt + record + b"\x03"
    data = HEADER.pack(IDENT, 0x8180, 1, 1, 0, 3) + query.question + body
    answer = read_answer(data, IDENT, query)
    assert answer is not None
    assert (answer.reply.answers, answer.reply.additionals) == (1, 1)
    assert len(dns.message.from_wire(compose(query, answer.reply, 512)).additional) == 1


def test_a_long_rcode_is_passed_on_and_not_kept() -> None:
    query = make_query("example.com", use_edns=0)
    message = response(query, answer=("example.com. 60 A 192.0.2.1",))
    message.use_edns(0)
    message.set_rcode(dns.rcode.BADCOOKIE)
    answer = read(query, message)
    assert answer.life == 0
    assert dns.message.from_wire(compose(query, answer.reply, 512)).rcode() == dns.rcode.BADCOOKIE


def test_a_truncated_answer_is_passed_on_empty_and_not_kept() -> None:
    query = make_query("example.com")
    message = response(query, answer=("example.com. 60 A 192.0.2.1",))
    message.flags |= dns.flags.TC
    data = message.to_wire()
    for cut in (data, data[:-7]):
        answer = read_answer(cut, IDENT, query)
        assert answer is not None
        assert answer.life == 0
        again = dns.message.from_wire(compose(query, answer.reply, 512))
        assert again.flags & dns.flags.TC
        assert again.answer == []


def test_a_server_may_refuse_without_repeating_the_question() -> None:
    query = make_query("example.com")
    answer = read_answer(HEADER.pack(IDENT, 0x8181, 0, 0, 0, 0), IDENT, query)
    assert answer is not None
    assert answer.rcode == dns.rcode.FORMERR
    assert read_answer(HEADER.pack(IDENT, 0x8180, 0, 0, 0, 0), IDENT, query) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: bytes([data[0] ^ 1]) + data[1:],  # another ID
        lambda data: data[:2] + bytes([data[2] & 0x7F]) + data[3:],  # no response
        lambda data: data[:2] + bytes([data[2] | 0x28]) + data[3:],  # another opcode
        lambda data: data.replace(b"\x07example", b"\x07exbmple"),
        lambda data: data.replace(b"\x03com\x00\x00\x01", b"\x03com\x00\x00\x1c"),  # another type
        lambda data: data[:5] + b"\x00" + data[6:],  # no question
        lambda data: data[:-1],  # a record cut short
        lambda data: data[:11],
        lambda data: data[:7] + b"\x02" + data[8:],  # one record more than there is
    ],
)
def test_what_does_not_answer_the_query_is_none(spoil: Callable[[bytes], bytes]) -> None:
    query = make_query("example.com", use_edns=False)
    good = response(query, answer=("example.com. 60 A 192.0.2.1",)).to_wire()
    assert read_answer(good, IDENT, query) is not None
    assert read_answer(spoil(good), IDENT, query) is None


def test_the_letter_case_of_the_question_does_not_matter() -> None:
    query = make_query("eXample.com", use_edns=False)
    data = response(query, answer=("example.com. 60 A 192.0.2.1",)).to_wire()
    assert read_answer(data.replace(b"eXample", b"example"), IDENT, query) is not None


@given(st.binary(max_size=120), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_any_bytes_are_an_answer_or_none(body: bytes, answers: int, authorities: int, additionals: int) -> None:
    query = make_query("example.com", use_edns=False)
    for data in (body, HEADER.pack(IDENT, 0x8180, 1, answers, authorities, additionals) + query.question + body):
        answer = read_answer(data, IDENT, query)
        if answer is not None:
            assert len(answer.aged(1).body) == len(answer.reply.body) == len(answer.capped(1).reply.body)


@given(st.data())
def test_a_spoiled_answer_is_still_an_answer_or_none(data: st.DataObject) -> None:
    query = make_query("www.example.com", use_edns=0)
    message = response(
        query,
        answer=("www.example.com. 300 CNAME x.example.com.", "x.example.com. 60 A 192.0.2.1"),
        authority=(SOA.format(ttl=10, minimum=10),),
    )
    wire = bytearray(message.to_wire())
    for _ in range(data.draw(st.integers(0, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    answer = read_answer(bytes(wire[: data.draw(st.integers(0, len(wire)))]), IDENT, query)
    assert answer is None or answer.life >= 0
