import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrepot.cli.holders import Holder, holders


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def our_command() -> str:
    return Path("/proc/self/comm").read_text().strip()


def test_a_tcp_listener_is_found_with_its_process(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    assert holders(port, "tcp") == [Holder("127.0.0.1", port, os.getpid(), our_command())]


def test_a_udp_socket_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.bind(("::1", 0))
        port = sock.getsockname()[1]
        assert holders(port, "udp") == [Holder("::1", port, os.getpid(), our_command())]


def test_a_port_nobody_has(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    assert holders(port, "tcp") == []


def test_a_connection_is_no_holder(listener: socket.socket) -> None:
    with socket.create_connection(listener.getsockname()) as client:
        assert holders(client.getsockname()[1], "tcp") == []


def test_the_process_of_another_user_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    line = "   0: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 1234 2 0000 0\n"
    (tmp_path / "net/udp").write_text("  sl  local_address rem_address\n" + line)
    (tmp_path / "1").mkdir()
    assert holders(53, "udp", tmp_path) == [Holder("127.0.0.53", 53)]


@pytest.mark.parametrize(
    ("holder", "text"),
    [
        (Holder("0.0.0.0", 443, 7, "nginx"), "nginx (pid 7), on 0.0.0.0:443"),
        (Holder("::", 443, 7), "a process (pid 7), on [::]:443"),
        (Holder("::", 443), "a process of another user, on [::]:443"),
    ],
)
def test_in_words(holder: Holder, text: str) -> None:
    assert str(holder) == text
