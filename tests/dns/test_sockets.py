"""Sockets as the servers need them."""

import errno
import socket
import struct

import pytest

from entrepot.dns.sockets import ANCILLARY_SIZE, CannotListen, arrival, bind


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def test_each_address_has_udp_and_tcp_on_one_port() -> None:
    sockets = bind(["127.0.0.1", "127.0.0.2", "::1"], 0)
    try:
        assert [(sock.getsockname()[0], sock.type) for sock in sockets] == [
            (address, kind)
            for address in ("127.0.0.1", "127.0.0.2", "::1")
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM)
        ]
        assert len({sock.getsockname()[1] for sock in sockets}) == 1
        assert not any(sock.getblocking() for sock in sockets)
    finally:
        close(sockets)


def test_both_wildcards_live_side_by_side() -> None:
    sockets = bind(["0.0.0.0", "::"], 0)
    try:
        assert len(sockets) == 4
    finally:
        close(sockets)


def test_a_port_that_is_taken_says_so_and_leaves_nothing_open() -> None:
    taken = bind(["127.0.0.22"], 0)
    port = taken[0].getsockname()[1]
    try:
        with pytest.raises(CannotListen, match=f'"127.0.0.22" port {port}.*listen.dns'):
            bind(["127.0.0.21", "127.0.0.22"], port)
    finally:
        close(taken)
    close(bind(["127.0.0.21", "127.0.0.22"], port))  # would fail if the first attempt had kept the first address


@pytest.mark.parametrize("address", ["198.51.100.1", "localhost", "", "fe80::1%nowhere"])
def test_an_address_that_is_not_ours_says_so(address: str) -> None:
    with pytest.raises(CannotListen, match=f'"{address}".*listen.address'):
        bind([address], 0)


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_a_box_without_ipv6_listens_on_ipv4(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    class NoIPv6(socket.socket):
        def __init__(self, family: int = -1, kind: int = -1) -> None:
            if family == socket.AF_INET6:
                raise OSError(code, "no IPv6")
            super().__init__(family, kind)

    monkeypatch.setattr("entrepot.dns.sockets.socket.socket", NoIPv6)
    sockets = bind(["0.0.0.0", "::"], 0)
    assert [sock.family for sock in sockets] == [socket.AF_INET] * 2
    close(sockets)
    with pytest.raises(CannotListen):
        bind(["::"], 0)


@pytest.mark.parametrize(("wildcard", "address"), [("0.0.0.0", "127.0.0.7"), ("::", "::1")])
def test_the_local_address_of_a_packet_is_known_and_replies_leave_from_it(wildcard: str, address: str) -> None:
    udp, tcp = bind([wildcard], 0)
    tcp.close()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with udp, socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((address, udp.getsockname()[1]))  # takes packets from that address only
        client.settimeout(20)
        client.send(b"question")
        udp.settimeout(20)
        _, notes, _, peer = udp.recvmsg(100, ANCILLARY_SIZE)
        arrived = arrival(notes[0])
        assert arrived is not None
        assert (arrived.address, arrived.interface) == (address, socket.if_nametoindex("lo"))
        udp.sendmsg([b"answer"], arrived.source, 0, peer)
        assert client.recv(100) == b"answer"


def test_a_link_local_reply_names_its_interface() -> None:
    local = socket.inet_pton(socket.AF_INET6, "fe80::1")
    arrived = arrival((socket.IPPROTO_IPV6, 50, struct.pack("=16sI", local, 7)))
    assert arrived is not None
    assert arrived.source == [(socket.IPPROTO_IPV6, 50, struct.pack("=16sI", local, 7))]
    other = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    arrived = arrival((socket.IPPROTO_IPV6, 50, struct.pack("=16sI", other, 7)))
    assert arrived is not None
    assert arrived.source == [(socket.IPPROTO_IPV6, 50, struct.pack("=16sI", other, 0))]


def test_a_packet_to_a_group_is_not_answered() -> None:
    group = socket.inet_pton(socket.AF_INET6, "ff02::1")
    assert arrival((socket.IPPROTO_IPV6, 50, struct.pack("=16sI", group, 7))) is None


def test_other_notes_are_none() -> None:
    assert arrival((socket.SOL_SOCKET, 1, b"1234")) is None
    assert arrival((socket.IPPROTO_IP, 8, b"short")) is None
