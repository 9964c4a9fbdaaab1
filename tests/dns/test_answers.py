"""The decision, without sockets: rule 11 of the design."""

from dataclasses import replace

import dns.message
import dns.rcode
import pytest
from tests.dns.fakes import intercepts, make_query, texts

from entrepot.dns.answers import Answered, Forward, Policy, decide
from entrepot.dns.wire import Query, compose, read_query

WELL = Policy(intercepts, 30, sick=False, private_upstream=True)
SICK = Policy(intercepts, 30, sick=True, private_upstream=True)
PUBLIC = Policy(intercepts, 30, sick=False, private_upstream=False)
V4 = ("192.0.2.1",)
V6 = ("2001:db8::1",)


def answer(query: Query, policy: Policy = WELL, v4: tuple[str, ...] = V4, v6: tuple[str, ...] = V6) -> Answered:
    decision = decide(query, v4, v6, policy)
    assert isinstance(decision, Answered)
    return decision


def message(query: Query, decision: Answered) -> dns.message.Message:
    return dns.message.from_wire(compose(query, decision.reply, 1232))


@pytest.mark.parametrize(
    ("name", "rtype", "records"),
    [
        ("quay.io", "A", ["quay.io. 30 A 192.0.2.1"]),
        ("QUAY.io", "A", ["QUAY.io. 30 A 192.0.2.1"]),
        ("eu.gcr.io", "AAAA", ["eu.gcr.io. 30 AAAA 2001:db8::1"]),
        ("quay.io", "ANY", ['quay.io. 30 HINFO "RFC8482" ""']),
    ],
)
def test_rule_11_our_names_get_our_addresses(name: str, rtype: str, records: list[str]) -> None:
    query = make_query(name, rtype)
    decision = answer(query)
    assert decision.kind == "intercepted"
    assert texts(message(query, decision)) == records


@pytest.mark.parametrize("rtype", ["HTTPS", "SVCB", "MX", "TXT", "NS", "SOA", "CNAME", "DS", "CAA", "TYPE65000"])
def test_rule_11_our_names_have_nothing_else(rtype: str) -> None:
    query = make_query("quay.io", rtype)
    reply = message(query, answer(query))
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert [(rrset.name.to_text(), rrset.ttl) for rrset in reply.authority] == [("quay.io.", 30)]


@pytest.mark.parametrize(("rtype", "v4", "v6"), [("AAAA", V4, ()), ("A", (), V6)])
def test_rule_11_a_family_without_address_has_no_data(rtype: str, v4: tuple[str, ...], v6: tuple[str, ...]) -> None:
    query = make_query("quay.io", rtype)
    reply = message(query, answer(query, v4=v4, v6=v6))
    assert (reply.rcode(), reply.answer, len(reply.authority)) == (dns.rcode.NOERROR, [], 1)


@pytest.mark.parametrize("name", ["example.com", "a.quay.io", "gcr.io", ".", "io"])
def test_rule_11_other_names_are_forwarded(name: str) -> None:
    assert decide(make_query(name), V4, V6, WELL) == Forward()


def test_a_label_with_a_dot_in_it_is_no_name_of_ours() -> None:
    query = read_query(b"\0\1\1\0\0\1\0\0\0\0\0\0\x07quay.io\0\0\1\0\1")
    assert isinstance(query, Query)
    assert decide(query, V4, V6, WELL) == Forward()


@pytest.mark.parametrize("rtype", ["A", "AAAA", "HTTPS"])
def test_rule_11_a_sick_cache_steps_aside(rtype: str) -> None:
    assert decide(make_query("quay.io", rtype), V4, V6, SICK) == Forward(cap=30)
    for ttl, cap in ((7, 7), (86_400, 30)):  # clients are to come back soon
        assert decide(make_query("quay.io", rtype), V4, V6, replace(SICK, ttl=ttl)) == Forward(cap=cap)
    assert decide(make_query("example.com", rtype), V4, V6, SICK) == Forward()


@pytest.mark.parametrize(
    ("rclass", "rtype"), [("CH", "TXT"), ("ANY", "A"), ("NONE", "A"), ("IN", "AXFR"), ("IN", "IXFR"), ("IN", "TKEY")]
)
def test_other_classes_and_transfers_are_refused(rclass: str, rtype: str) -> None:
    query = read_query(dns.message.make_query("quay.io", rtype, rclass).to_wire())
    assert isinstance(query, Query)
    decision = answer(query)
    assert decision.kind == "refused"
    assert message(query, decision).rcode() == dns.rcode.REFUSED


@pytest.mark.parametrize("rtype", ["TYPE0", "OPT"])
def test_types_that_cannot_be_asked_for_are_a_format_error(rtype: str) -> None:
    query = make_query("quay.io", rtype, use_edns=False)
    assert message(query, answer(query)).rcode() == dns.rcode.FORMERR


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "records"),
    [
        ("localhost", "A", dns.rcode.NOERROR, ["localhost. 30 A 127.0.0.1"]),
        ("localhost", "MX", dns.rcode.NOERROR, []),
        ("1.0.0.127.in-addr.arpa", "PTR", dns.rcode.NOERROR, ["1.0.0.127.in-addr.arpa. 30 PTR localhost."]),
        ("a.invalid", "A", dns.rcode.NXDOMAIN, []),
        ("use-application-dns.net", "A", dns.rcode.NXDOMAIN, []),
        ("_dns.resolver.arpa", "SVCB", dns.rcode.NOERROR, []),
        ("1.0.0.10.in-addr.arpa", "PTR", dns.rcode.NXDOMAIN, []),
    ],
)
def test_special_names_are_answered_here(name: str, rtype: str, rcode: dns.rcode.Rcode, records: list[str]) -> None:
    query = make_query(name, rtype)
    decision = answer(query, PUBLIC)
    assert decision.kind == "special"
    reply = message(query, decision)
    assert (reply.rcode(), texts(reply)) == (rcode, records)
    assert len(reply.authority) == (0 if records else 1)


def test_private_reverse_names_are_asked_of_private_upstreams_only() -> None:
    assert decide(make_query("1.0.0.10.in-addr.arpa", "PTR"), V4, V6, WELL) == Forward(private_only=True)
