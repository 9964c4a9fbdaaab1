"""Queries in, replies out, as bytes; dnspython reads and writes the other side."""

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dns.fakes import make_query

from entrepot.dns import wire
from entrepot.dns.wire import Fault, Query, Reply, compose, compose_fault, compose_refusal, read_query, upstream_query

A_RECORD = Reply(wire.AA | wire.RA, 1, body=b"\xc0\x0c\0\1\0\1\0\0\0\x1e\0\4\xc0\0\2\1")


def test_a_query_is_read() -> None:
    query = make_query("Quay.IO", "A", use_edns=0, payload=4096, want_dnssec=True)
    assert query.question == b"\x04Quay\x02IO\x00\x00\x01\x00\x01"
    assert query.key == b"\x04quay\x02io\x00\x00\x01\x00\x01"
    assert query.name == b"\x04quay\x02io\x00"
    assert (query.rtype, query.rclass) == (wire.TYPE_A, wire.CLASS_IN)
    assert (query.edns, query.version, query.do, query.plain) == (True, 0, True, True)
    assert query.limit == wire.UDP_SIZE  # more is asked for than fits a packet


def test_a_query_without_edns_takes_512_bytes() -> None:
    query = make_query("quay.io", use_edns=False)
    assert (query.edns, query.do, query.limit) == (False, False, 512)


def test_an_edns_size_below_512_means_512() -> None:
    assert make_query("quay.io", payload=100).limit == 512


@pytest.mark.parametrize("rtype", [65, 66, 90, 0x4142])
def test_types_that_look_like_capital_letters_are_not_lowered(rtype: int) -> None:
    query = make_query("quay.io", f"TYPE{rtype}")
    assert query.rtype == rtype
    assert query.key[-4:-2] == rtype.to_bytes(2)


def test_options_make_a_query_less_than_plain() -> None:
    cookie = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    assert not make_query("quay.io", options=[cookie]).plain


def packet(question: bytes, *, flags: int = 0x0100, counts: tuple[int, int, int, int] = (1, 0, 0, 0)) -> bytes:
    return wire.HEADER.pack(0x1234, flags, *counts) + question


QUESTION = b"\x04quay\x02io\x00\x00\x01\x00\x01"
OPT = b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00"


@pytest.mark.parametrize("data", [b"", b"\x12\x34", bytes(11), packet(QUESTION, flags=0x8100)])
def test_what_may_not_be_answered_is_dropped(data: bytes) -> None:
    assert read_query(data) is None


@pytest.mark.parametrize(
    "data",
    [
        packet(b"", counts=(0, 0, 0, 0)),
        packet(QUESTION * 2, counts=(2, 0, 0, 0)),
        packet(QUESTION, counts=(1, 1, 0, 0)),
        packet(QUESTION, counts=(1, 0, 1, 0)),
        packet(b"\x04quay"),
        packet(b"\x04quay\x02io\x00\x00\x01\x00"),
        packet(b"\xc0\x0c\x00\x01\x00\x01"),  # a pointer to itself
        packet(b"\x40" + b"a" * 64 + b"\x00\x00\x01\x00\x01"),  # a label type nobody uses
        packet(b"\x3f" + b"a" * 63 + (b"\x3f" + b"a" * 63) * 3 + b"\x00\x00\x01\x00\x01"),  # 257 bytes of name
        packet(QUESTION + b"\x00"),  # a byte too many
        packet(QUESTION, counts=(1, 0, 0, 1)),  # no record where one is promised
        packet(QUESTION + OPT * 2, counts=(1, 0, 0, 2)),
        packet(QUESTION + b"\x01a" + OPT, counts=(1, 0, 0, 1)),  # OPT that is not the root's
        packet(QUESTION + OPT[:-2] + b"\x00\x04", counts=(1, 0, 0, 1)),  # options that are not there
        packet(QUESTION + b"\xc0", counts=(1, 0, 0, 1)),
    ],
)
def test_what_is_broken_is_a_format_error(data: bytes) -> None:
    fault = read_query(data)
    assert fault == Fault(0x1234, 0x0100, wire.FORMERR)
    reply = dns.message.from_wire(compose_fault(fault))
    assert (reply.id, reply.rcode(), reply.question) == (0x1234, dns.rcode.FORMERR, [])


def test_the_longest_name_is_read() -> None:
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\x00"
    assert len(name) == 255
    query = read_query(packet(name + b"\x00\x01\x00\x01"))
    assert isinstance(query, Query)
    assert query.name == name


@pytest.mark.parametrize("opcode", range(1, 16))
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    fault = read_query(packet(QUESTION, flags=opcode << 11))
    assert isinstance(fault, Fault)
    reply = compose_fault(fault)
    assert reply[:4] == b"\x12\x34" + (0x8000 | opcode << 11 | 4).to_bytes(2)


def test_a_reply_is_put_together_around_its_query() -> None:
    query = make_query("qUAY.io", use_edns=0, want_dnssec=True, id=7)
    message = dns.message.from_wire(compose(query, A_RECORD, 512))
    assert message.id == 7
    assert message.question[0].name.to_text() == "qUAY.io."
    assert message.flags & dns.flags.RD
    assert [str(rrset) for rrset in message.answer] == ["qUAY.io. 30 IN A 192.0.2.1"]
    assert (message.edns, message.payload, message.ednsflags) == (0, wire.UDP_SIZE, dns.flags.DO)
    assert message.options == ()


def test_who_speaks_no_edns_gets_none() -> None:
    message = dns.message.from_wire(compose(make_query("quay.io", use_edns=False), A_RECORD, 512))
    assert message.edns == -1


def test_a_format_error_carries_no_edns() -> None:
    reply = Reply(wire.FORMERR)
    assert dns.message.from_wire(compose(make_query("quay.io", use_edns=0), reply, 512)).edns == -1


def test_a_long_rcode_is_split() -> None:
    reply = Reply(wire.RA, extended=wire.BADVERS >> 4)
    assert dns.message.from_wire(compose(make_query("quay.io", use_edns=0), reply, 512)).rcode() == dns.rcode.BADVERS


@pytest.mark.parametrize(("flags", "do", "kept"), [(0, False, False), (wire.AD, False, True), (0, True, True)])
def test_authentic_data_is_for_who_asks_for_it(flags: int, do: bool, kept: bool) -> None:
    query = make_query("quay.io", use_edns=0, want_dnssec=do, flags=flags)
    message = dns.message.from_wire(compose(query, Reply(wire.AD), 512))
    assert bool(message.flags & dns.flags.AD) == kept


def test_what_does_not_fit_is_truncated() -> None:
    query = make_query("quay.io", use_edns=0)
    whole = len(compose(query, A_RECORD, 512))
    assert not dns.message.from_wire(compose(query, A_RECORD, whole)).flags & dns.flags.TC
    message = dns.message.from_wire(compose(query, A_RECORD, whole - 1))
    assert message.flags & dns.flags.TC
    assert (message.answer, message.edns, len(message.question)) == ([], 0, 1)


def test_a_refusal_is_no_larger_than_the_question() -> None:
    wire_query = dns.message.make_query("quay.io", "A", use_edns=0).to_wire()
    query = read_query(wire_query)
    assert isinstance(query, Query)
    refusal = compose_refusal(query)
    assert dns.message.from_wire(refusal).rcode() == dns.rcode.REFUSED
    assert len(refusal) <= len(wire_query)


def test_nothing_of_the_asker_goes_upstream() -> None:
    subnet = dns.edns.ECSOption("10.1.2.0", 24)
    query = make_query("Example.com", "MX", use_edns=0, options=[subnet], want_dnssec=True, flags=dns.flags.RD, id=5)
    message = dns.message.from_wire(upstream_query(query, 99))
    assert (message.id, message.options, message.payload) == (99, (), wire.UDP_SIZE)
    assert message.question[0].to_text() == "Example.com. IN MX"
    assert message.flags == dns.flags.RD | dns.flags.AD
    assert message.ednsflags == dns.flags.DO


def test_edns_goes_upstream_only_if_it_was_spoken() -> None:
    query = make_query("example.com", use_edns=False, flags=dns.flags.CD)
    message = dns.message.from_wire(upstream_query(query, 99))
    assert message.edns == -1
    assert message.flags == dns.flags.CD | dns.flags.AD


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        ((b"quay", b"io"), "quay.io"),
        ((b"_tcp", b"a-b", b"io"), "_tcp.a-b.io"),
        ((b"quay.io",), None),
        ((b"quay", b"i\0"), None),
        ((b"\xc3\xa9",), None),
        ((), None),
    ],
)
def test_only_host_names_can_be_in_a_catalogue(labels: tuple[bytes, ...], name: str | None) -> None:
    assert wire.host_name(labels) == name


def test_a_name_in_a_log_is_one_line() -> None:
    assert wire.printable((b"a\nb", b"c.d", b"io")) == "a\\010b.c\\046d.io."


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_labels_survive_the_wire(labels: list[bytes]) -> None:
    assert wire.read_labels(wire.write_name(tuple(labels))) == tuple(labels)


@given(st.binary(max_size=80))
def test_any_bytes_are_a_query_a_fault_or_nothing(tail: bytes) -> None:
    for data in (tail, packet(tail), packet(QUESTION + tail, counts=(1, 0, 0, 1))):
        query = read_query(data)
        if isinstance(query, Query):
            assert dns.message.from_wire(compose(query, A_RECORD, 512)).id == query.ident
        elif query is not None:
            assert len(compose_fault(query)) == 12


@given(st.integers(0, 40))
def test_a_query_cut_anywhere_is_broken(length: int) -> None:
    whole = dns.message.make_query("quay.io", "A", use_edns=0, id=1).to_wire()
    assert len(whole) == 36
    read = read_query(whole[:length])
    assert isinstance(read, Query) == (length >= 36)
