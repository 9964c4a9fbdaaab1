import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrepot.cli import ports
from entrepot.cli.holders import Transport
from entrepot.cli.ports import Plan, PortProblem, Sockets, bind_all, plan, try_bind
from entrepot.config import Listen

HERE = ("127.0.0.1",)


def free_port() -> int:
    """One that is free for both transports."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@pytest.fixture
def holder() -> Iterator[int]:
    """The port a process that is not us listens on."""
    program = (
        "import socket; s = socket.create_server(('127.0.0.1', 0), reuse_port=True); "
        "print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline())
        process.communicate("\n")


def close(sockets: Sockets) -> None:
    sockets.close()


def refusing(code: int, *where: tuple[str, int, Transport]) -> ports.Bind:
    """Binds nothing; refuses `where`."""

    def bind(address: str, port: int, transport: Transport) -> None:
        if (address, port, transport) in where:
            raise OSError(code, os.strerror(code))

    return bind


def test_what_is_asked_for_is_what_is_planned() -> None:
    https, dns = free_port(), free_port()
    assert plan(Listen(address=HERE, https=https, dns=dns, web=0)) == Plan(HERE, https, HERE, dns)
    web = free_port()
    assert plan(Listen(address=HERE, https=0, dns=0, web=web)) == Plan((), 0, (), 0, (), HERE, web)


def test_off_is_off() -> None:
    off = Listen(https=0, dns=0, web=0)
    assert plan(off) == Plan((), 0, (), 0, plan(off).notes)


def test_without_the_port_of_the_page_all_else_is_served(holder: int) -> None:
    https = free_port()
    found = plan(Listen(address=HERE, https=https, dns=0, web=holder))
    assert (found.https_port, found.web, found.web_port) == (https, (), 0)
    (note,) = found.notes
    assert note.startswith(f"no web page and no metrics: port {holder} (web) is in use by python")
    assert note.endswith("stop it, or set another port in [listen] web")


def test_a_port_for_the_page_that_we_have_no_right_to() -> None:
    refused = refusing(errno.EACCES, ("127.0.0.1", 80, "tcp"))
    found = plan(Listen(address=HERE, https=0, dns=0, web=80), bind=refused)
    assert (found.web, found.web_port) == ((), 0)
    assert found.notes == ("no right to port 80 (web): no web page and no metrics; set another [listen] web",)


def test_the_page_has_one_socket_for_each_address() -> None:
    port = free_port()
    sockets = bind_all(Plan((), 0, (), 0, (), HERE, port), 2)
    try:
        assert [sock.getsockname() for sock in sockets.web] == [("127.0.0.1", port)]
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            pass
    finally:
        close(sockets)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_port_in_use_names_the_process(holder: int) -> None:
    """Also one with SO_REUSEPORT, which would let us in beside it."""
    with pytest.raises(PortProblem) as caught:
        plan(Listen(address=HERE, https=holder, dns=0))
    message = str(caught.value)
    assert message.startswith(f"port {holder} (https) is in use by python")
    assert f"on 127.0.0.1:{holder}: stop it, or set another port in [listen] https" in message
    assert "\n" not in message


def test_a_holder_of_one_address_keeps_us_from_all(holder: int) -> None:
    with pytest.raises(PortProblem, match=r"list other addresses in \[listen\] address"):
        plan(Listen(address=("0.0.0.0",), https=holder, dns=0))


def test_a_udp_port_in_use_is_seen_too() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(PortProblem, match=rf"port {port} \(dns\) is in use by .* \(pid {os.getpid()}\)"):
            plan(Listen(address=HERE, https=0, dns=port))


def test_a_connection_that_lingers_is_no_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(server.getsockname())
        server.accept()[0].close()  # the side that closes first waits for a while
        client.close()
    try_bind("127.0.0.1", port, "tcp")


def test_resolveds_stub_is_stepped_around() -> None:
    """Listening on all addresses is not possible beside it, listening on each of them is."""
    with socket.create_server(("127.0.0.53", 0)) as stub, socket.socket(type=socket.SOCK_DGRAM) as udp:
        port = stub.getsockname()[1]
        udp.bind(("127.0.0.53", port))
        made = plan(Listen(address=("0.0.0.0",), https=0, dns=port))
        assert "0.0.0.0" not in made.dns
        assert "127.0.0.1" in made.dns
        (note,) = made.notes
        assert note.startswith(f"systemd-resolved has port {port} on 127.0.0.53: listening on 127.0.0.1")
        sockets = bind_all(made, 1)
        assert {sock.getsockname()[0] for sock in sockets.dns} == set(made.dns)
        close(sockets)


def test_the_stub_itself_takes_two_commands() -> None:
    with socket.create_server(("127.0.0.53", 0)) as stub:
        port = stub.getsockname()[1]
        with pytest.raises(PortProblem) as caught:
            plan(Listen(address=("127.0.0.53",), https=0, dns=port))
    assert "DNSStubListener=no" in str(caught.value)
    assert "`systemctl restart systemd-resolved`" in str(caught.value)


def test_another_resolver_beside_the_stub_is_in_the_way() -> None:
    with socket.create_server(("127.0.0.53", 0)) as stub:
        port = stub.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)), pytest.raises(PortProblem, match="in use by"):
            plan(Listen(address=("0.0.0.0",), https=0, dns=port))


@pytest.mark.parametrize("code", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_no_ipv6_is_no_failure(code: int) -> None:
    def bind(address: str, port: int, transport: Transport) -> None:
        if ":" in address:
            raise OSError(code, os.strerror(code))

    made = plan(Listen(), bind=bind)
    assert (made.https, made.dns) == (("0.0.0.0",), ("0.0.0.0",))
    assert made.notes == ("no IPv6 on this box: not listening on [::]",)
    with pytest.raises(PortProblem):
        plan(Listen(address=("::",)), bind=bind)


def test_without_the_right_to_low_ports_it_goes_on_with_others() -> None:
    low: list[tuple[str, int, Transport]] = [("0.0.0.0", 443, "tcp"), ("0.0.0.0", 53, "udp")]
    made = plan(Listen(), bind=refusing(errno.EACCES, *low))
    assert (made.https_port, made.dns_port) == (8443, 5353)
    assert len(made.notes) == 2
    assert made.notes[0].startswith("no right to port 443 (https): listening on 8443 instead")


def test_no_right_to_a_high_port_is_a_failure() -> None:
    with pytest.raises(PortProblem, match="cannot listen on port 9443"):
        plan(Listen(https=9443), bind=refusing(errno.EACCES, ("0.0.0.0", 9443, "tcp")))


def test_no_right_at_all_is_a_failure() -> None:
    bind = refusing(errno.EACCES, ("0.0.0.0", 443, "tcp"), ("0.0.0.0", 8443, "tcp"))
    with pytest.raises(PortProblem, match="cannot listen on port 8443"):
        plan(Listen(), bind=bind)


def test_an_address_of_another_box() -> None:
    with pytest.raises(PortProblem, match=r"no interface of this box has that address; set \[listen\] address"):
        plan(Listen(address=("203.0.113.9",), https=free_port()))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to give a right away")
def test_a_process_without_the_capability() -> None:
    program = (
        "from entrepot.cli.ports import plan; from entrepot.config import Listen; "
        "p = plan(Listen(address=('127.83.12.7',))); print(p.https_port, p.dns_port)"
    )
    # A network of its own: on the box itself every port may be free to all (net.ipv4.ip_unprivileged_port_start).
    inside = 'ip link set lo up && exec setpriv --bounding-set=-net_bind_service "$0" -P -c "$1"'
    command = ["unshare", "--net", "sh", "-c", inside, sys.executable, program]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    assert made.stdout.split() == ["8443", "5353"]


def test_every_worker_has_a_socket_of_its_own_on_one_port() -> None:
    port = free_port()
    sockets = bind_all(Plan(HERE, port, (), 0), 3)
    try:
        assert len({sock.fileno() for worker in sockets.https for sock in worker}) == 3
        assert {sock.getsockname() for worker in sockets.https for sock in worker} == {("127.0.0.1", port)}
        assert not any(os.get_inheritable(sock.fileno()) for worker in sockets.https for sock in worker)
        with socket.create_connection(("127.0.0.1", port)):
            pass  # it waits for a worker
    finally:
        close(sockets)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_dns_has_both_transports() -> None:
    port = free_port()
    sockets = bind_all(Plan((), 0, HERE, port), 1)
    assert {sock.type for sock in sockets.dns} == {socket.SOCK_DGRAM, socket.SOCK_STREAM}
    assert sockets.https == ()
    close(sockets)


def test_a_port_that_is_taken_between_the_two_looks(holder: int) -> None:
    with pytest.raises(PortProblem, match="cannot listen on"):
        bind_all(Plan(("203.0.113.9",), holder, (), 0), 1)


def test_link_local_addresses_have_a_zone() -> None:
    assert ports._sockaddr("fe80::1%lo", 53) == ("fe80::1", 53, 0, socket.if_nametoindex("lo"))
    assert ports._sockaddr("::", 53) == ("::", 53, 0, 0)


def test_holders_in_another_proc(tmp_path: Path) -> None:
    """In use, by whom nobody can tell."""
    (tmp_path / "net").mkdir()
    bind = refusing(errno.EADDRINUSE, ("127.0.0.1", 443, "tcp"))
    with pytest.raises(PortProblem) as caught:
        plan(Listen(address=HERE), bind=bind, proc=tmp_path)
    assert str(caught.value) == "port 443 (https) is in use: stop it, or set another port in [listen] https"
