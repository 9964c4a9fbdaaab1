import socket
from pathlib import Path

import pytest

from entrepot.cli import addresses

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.0
           /8 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 10.0.0.5
        /32 host LOCAL
Local:
     |-- 10.0.0.5
        /32 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000005 02 40 00 80     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
"""


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/fib_trie").write_text(FIB_TRIE)
    (tmp_path / "net/if_inet6").write_text(IF_INET6)
    return tmp_path


V4 = ["127.0.0.1", "10.0.0.5"]
V6 = ["::1", "2001:db8::5", "fe80::fc:ff:fe00:1%eth0"]


def test_addresses_of_the_box(proc: Path) -> None:
    assert addresses.local_addresses(proc) == V4 + V6


def test_no_proc_no_addresses(tmp_path: Path) -> None:
    assert addresses.local_addresses(tmp_path) == []


def test_every_address_of_this_box_can_be_bound() -> None:
    found = addresses.local_addresses()
    assert "127.0.0.1" in found
    for address in found:
        family, kind, protocol, _, where = socket.getaddrinfo(address, 0, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.bind(where)


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["0.0.0.0"], V4),
        (["::"], V6),
        (["0.0.0.0", "10.0.0.5", "10.9.9.9"], [*V4, "10.9.9.9"]),
        (["10.9.9.9"], ["10.9.9.9"]),
    ],
)
def test_wildcards_are_expanded(proc: Path, listed: list[str], expected: list[str]) -> None:
    assert addresses.expanded(listed, proc) == expected


def test_the_outward_address_is_one_of_ours_or_none() -> None:
    outward = addresses.outward_address()
    assert outward is None or outward in addresses.local_addresses()


def test_how_it_is_shown() -> None:
    assert addresses.shown("10.0.0.5", 53) == "10.0.0.5:53"
    assert addresses.shown("::", 53) == "[::]:53"
