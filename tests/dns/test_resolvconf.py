"""resolv.conf as upstreams."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrepot.dns.resolvconf import system_upstreams

PLAIN = """\
# made by hand
search example.com
nameserver 10.0.0.1
nameserver\t2001:db8::53   # the second
nameserver 10.0.0.1
nameserver fe80::1%eth0
; nameserver 10.9.9.9
options edns0
nameserver
nameserver resolver.example
"""


def test_nameservers_in_order_each_once() -> None:
    assert system_upstreams(PLAIN, ()) == [("10.0.0.1", 53), ("2001:db8::53", 53), ("fe80::1%eth0", 53)]


@pytest.mark.parametrize("own", ["10.0.0.1", "2001:0db8:0::53", "fe80::1"])
def test_never_ourselves(own: str) -> None:
    found = system_upstreams(PLAIN, [own])
    assert len(found) == 2
    assert own not in [address for address, _ in found]


def test_only_ourselves_is_nobody() -> None:
    assert system_upstreams("nameserver 127.0.0.1\n", ["127.0.0.1"]) == []


def test_the_stub_is_replaced_by_what_is_behind_it(tmp_path: Path) -> None:
    behind = tmp_path / "resolv.conf"
    behind.write_text("nameserver 10.0.0.1\nnameserver 127.0.0.53\nnameserver 10.0.0.2\n")
    found = system_upstreams("nameserver 127.0.0.53\n", ["10.0.0.2"], behind)
    assert found == [("10.0.0.1", 53)]


@pytest.mark.parametrize("text", [None, "", "nameserver 127.0.0.53\n"])
def test_the_stub_stays_if_nothing_is_behind_it(text: str | None, tmp_path: Path) -> None:
    behind = tmp_path / "resolv.conf"
    if text is not None:
        behind.write_text(text)
    assert system_upstreams("nameserver 127.0.0.53\n", (), behind) == [("127.0.0.53", 53)]
    assert system_upstreams("nameserver 127.0.0.53\n", ()) == [("127.0.0.53", 53)]


@given(st.text(), st.text())
def test_any_text_is_a_list(text: str, address: str) -> None:
    for given_text in (text, f"nameserver {address}"):
        assert all(port == 53 for _, port in system_upstreams(given_text, ("127.0.0.1",)))
