"""The box's own addresses: loopback is the one interface every machine has."""

import socket
from pathlib import Path

import pytest

from entrepot.dns.interfaces import SystemInterfaces

LOOPBACK = socket.if_nametoindex("lo")


def test_the_ipv4_of_the_interface_that_has_the_ipv6() -> None:
    assert SystemInterfaces().ipv4_beside("::1", 0) == "127.0.0.1"


def test_the_owner_counts_more_than_the_interface_a_packet_came_in_on(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text("20010db8000000000000000000000001 01 40 00 80       lo\nnonsense\n")
    interfaces = SystemInterfaces(table)
    assert interfaces.ipv4_beside("2001:db8::1", 1 << 20) == "127.0.0.1"
    assert interfaces.ipv4_beside("2001:db8::2", 1 << 20) is None


def test_without_an_owner_the_interface_counts(tmp_path: Path) -> None:
    interfaces = SystemInterfaces(tmp_path / "missing")
    assert interfaces.ipv4_beside("2001:db8::1", LOOPBACK) == "127.0.0.1"


def test_a_link_local_address_has_no_owner(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text("fe800000000000000000000000000001 01 40 20 80     gone0\n")
    assert SystemInterfaces(table).ipv4_beside("fe80::1%lo", LOOPBACK) == "127.0.0.1"


def test_an_interface_without_ipv4_has_none(tmp_path: Path) -> None:
    table = tmp_path / "if_inet6"
    table.write_text("20010db8000000000000000000000001 01 40 00 80     gone0\n")
    assert SystemInterfaces(table).ipv4_beside("2001:db8::1", LOOPBACK) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_local(address: str) -> None:
    assert SystemInterfaces().is_local(address)


@pytest.mark.parametrize("address", ["198.51.100.1", "2001:db8::dead", "fe80::1%nowhere", "what"])
def test_not_local(address: str) -> None:
    assert not SystemInterfaces().is_local(address)
