"""Settings that make sense, and who may ask."""

import ipaddress
from typing import Any

import pytest
from tests.dns.fakes import intercepts

from entrepot.dns.settings import AccessList, DnsSettings, InvalidDnsSettings, private_networks
from entrepot.errors import EntrepotError


def test_defaults() -> None:
    settings = DnsSettings(intercepts)
    assert settings.advertise == ("auto",)
    assert settings.allow == private_networks()
    assert settings.healthy()


@pytest.mark.parametrize(
    ("wrong", "quoted"),
    [
        ({"advertise": ("10.0.0.1", "here")}, '"here"'),
        ({"advertise": ()}, "no address"),
        ({"upstream": (("dns.example", 53),)}, '"dns.example"'),
        ({"upstream": (("10.0.0.1", 0),)}, "port 0"),
        ({"ttl": -1}, "-1 seconds"),
        ({"ttl": 90_000}, "90000"),
    ],
)
def test_nonsense_is_refused_by_name(wrong: dict[str, Any], quoted: str) -> None:
    with pytest.raises(InvalidDnsSettings, match=quoted) as caught:
        DnsSettings(intercepts, **wrong)
    assert isinstance(caught.value, EntrepotError)


@pytest.mark.parametrize(
    "address",
    ["10.1.2.3", "172.31.0.1", "192.168.1.1", "127.0.0.1", "169.254.1.1", "::1", "fd00::2", "fe80::1", "fe80::1%eth0"],
)
def test_private_networks_may_ask(address: str) -> None:
    assert AccessList(private_networks()).admits(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "172.32.0.1", "100.64.0.1", "2001:db8::1", "::ffff:8.8.8.8", "::", "0.0.0.0", "", "what"]
)
def test_others_may_not(address: str) -> None:
    access = AccessList(private_networks())
    assert not access.admits(address)
    assert not access.admits(address)  # from memory


def test_mapped_addresses_are_what_they_map() -> None:
    assert AccessList(private_networks()).admits("::ffff:10.0.0.1")


def test_anybody() -> None:
    assert AccessList("any").admits("8.8.8.8")


def test_nobody() -> None:
    assert not AccessList(()).admits("127.0.0.1")


def test_verdicts_stay_right_however_many_ask() -> None:
    access = AccessList((ipaddress.ip_network("10.0.0.0/20"),))
    for number in range(5_000):
        address = str(ipaddress.IPv4Address(0x0A000000 + number))
        assert access.admits(address) == (number < 4_096)
