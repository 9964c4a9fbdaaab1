"""Special names."""

import pytest

from entrepot.dns.wire import TYPE_A, TYPE_AAAA, TYPE_PTR
from entrepot.dns.zones import special

MX = 15


def labels(text: str) -> tuple[bytes, ...]:
    return tuple(text.encode().split(b"."))


@pytest.mark.parametrize(
    ("name", "rtype", "what", "zone"),
    [
        ("localhost", TYPE_A, "addresses", "localhost"),
        ("a.localhost", TYPE_AAAA, "addresses", "localhost"),
        ("localhost", MX, "no_data", "localhost"),
        ("invalid", TYPE_A, "no_name", "invalid"),
        ("a.b.invalid", TYPE_A, "no_name", "invalid"),
        ("facebookwkhpilnemxj7asaniu7vnjjbiltxjqhye3mhbshg7kx5tfyd.onion", TYPE_A, "no_name", "onion"),
        ("use-application-dns.net", TYPE_A, "no_name", "use-application-dns.net"),
        ("use-application-dns.net", TYPE_AAAA, "no_name", "use-application-dns.net"),
        ("_dns.resolver.arpa", 64, "no_data", "resolver.arpa"),
        ("resolver.arpa", TYPE_A, "no_data", "resolver.arpa"),
        ("1.0.0.127.in-addr.arpa", TYPE_PTR, "localhost", "1.0.0.127.in-addr.arpa"),
        ("1" + ".0" * 31 + ".ip6.arpa", TYPE_PTR, "localhost", "1" + ".0" * 31 + ".ip6.arpa"),
        ("2.0.0.127.in-addr.arpa", TYPE_PTR, "no_name", "127.in-addr.arpa"),
        ("127.in-addr.arpa", TYPE_PTR, "no_data", "127.in-addr.arpa"),
        ("1.0.0.10.in-addr.arpa", TYPE_PTR, "private", "10.in-addr.arpa"),
        ("1.2.20.172.in-addr.arpa", TYPE_PTR, "private", "20.172.in-addr.arpa"),
        ("1.2.168.192.in-addr.arpa", TYPE_PTR, "private", "168.192.in-addr.arpa"),
        ("1.2.64.100.in-addr.arpa", TYPE_PTR, "private", "64.100.in-addr.arpa"),
        ("0.8.e.f.ip6.arpa", TYPE_PTR, "private", "8.e.f.ip6.arpa"),
        ("0.0.d.f.ip6.arpa", TYPE_PTR, "private", "d.f.ip6.arpa"),
    ],
)
def test_special_names(name: str, rtype: int, what: str, zone: str) -> None:
    found = special(labels(name), rtype)
    assert found is not None
    assert (found.what, found.zone) == (what, labels(zone))


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "localhost.example.com",
        "notlocalhost",
        "invalid.example",
        "application-dns.net",
        "1.32.172.in-addr.arpa",
        "8.8.8.8.in-addr.arpa",
        "1.0.0.2.ip6.arpa",
        "printer.local",
        "host.test",
        "db.internal",
        "arpa",
    ],
)
def test_other_names_are_ordinary(name: str) -> None:
    assert special(labels(name), TYPE_PTR) is None


def test_the_root_is_ordinary() -> None:
    assert special((), TYPE_A) is None


def test_localhost_is_this_host_in_both_families() -> None:
    found = special(labels("localhost"), TYPE_A), special(labels("localhost"), TYPE_AAAA)
    assert [special.values for special in found if special] == [("127.0.0.1",), ("::1",)]
