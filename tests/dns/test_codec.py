"""Messages of our own, read back by dnspython."""

import dns.flags
import dns.message
import dns.rcode
import pytest
from tests.dns.fakes import make_query, texts

from entrepot.dns import codec
from entrepot.dns.wire import TYPE_A, TYPE_AAAA, Reply, compose


def message(rtype: str, reply: Reply, name: str = "qUay.io") -> dns.message.Message:
    return dns.message.from_wire(compose(make_query(name, rtype), reply, 1232))


NAME = b"\x04quay\x02io\x00"
ZONE = (b"quay", b"io")


def test_addresses_in_the_askers_letter_case() -> None:
    reply = message("A", codec.addresses(NAME, TYPE_A, ("192.0.2.1", "192.0.2.2"), 30))
    assert texts(reply) == ["qUay.io. 30 A 192.0.2.1", "qUay.io. 30 A 192.0.2.2"]
    assert reply.flags & dns.flags.AA
    assert reply.flags & dns.flags.RA
    reply = message("AAAA", codec.addresses(NAME, TYPE_AAAA, ("2001:db8::1",), 30))
    assert texts(reply) == ["qUay.io. 30 AAAA 2001:db8::1"]


def test_no_data_says_how_long() -> None:
    reply = message("AAAA", codec.no_data(NAME, ZONE, 30))
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    soa = reply.authority[0]
    assert (soa.name.to_text(), soa.ttl, soa[0].minimum) == ("qUay.io.", 30, 30)


def test_no_name_says_whose_zone() -> None:
    reply = message("A", codec.no_name(b"\x01a\x07invalid\x00", (b"invalid",), 30), "A.invalid")
    assert reply.rcode() == dns.rcode.NXDOMAIN
    assert reply.authority[0].name.to_text() == "invalid."


def test_rfc8482_any_gets_little() -> None:
    assert texts(message("ANY", codec.minimal_any(NAME, 30))) == ['qUay.io. 30 HINFO "RFC8482" ""']


def test_a_pointer() -> None:
    reply = codec.pointer(b"\x011\x010\x010\x03127\x07in-addr\x04arpa\x00", (b"localhost",), 30)
    assert texts(message("PTR", reply, "1.0.0.127.in-addr.arpa")) == ["1.0.0.127.in-addr.arpa. 30 PTR localhost."]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.BADVERS])
def test_a_failure(rcode: dns.rcode.Rcode) -> None:
    reply = dns.message.from_wire(compose(make_query("quay.io", use_edns=0), codec.failure(rcode), 512))
    assert (reply.rcode(), reply.answer, reply.authority) == (rcode, [], [])


def test_labels_may_hold_anything() -> None:
    name = b"\x03a.b\x01\x00\xff".replace(b"\xff", b"\x04\xff\xfe\x80\x20") + b"\x07invalid\x00"
    reply = codec.no_name(name, (b"invalid",), 30)
    assert reply.authorities == 1


def test_a_name_of_the_greatest_length() -> None:
    name = (b"\x3f" + b"a" * 63) * 3 + b"\x35" + b"a" * 53 + b"\x07invalid\x00"
    assert len(name) == 255
    assert codec.no_name(name, (b"invalid",), 30).authorities == 1


def test_types_have_names_for_the_log() -> None:
    assert [codec.type_name(rtype) for rtype in (1, 65, 65000)] == ["A", "HTTPS", "TYPE65000"]
