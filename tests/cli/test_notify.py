import socket
from pathlib import Path

import pytest

from entrepot.cli.notify import notify


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"{tmp_path}/n"[-90:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name if abstract else f"{tmp_path}/n")
        notify({"NOTIFY_SOCKET": "@" + name if abstract else f"{tmp_path}/n"}, "READY=1", "STATUS=x")
        assert manager.recv(4096) == b"READY=1\nSTATUS=x"


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "relative"}, {"NOTIFY_SOCKET": "/no/x"}]
)
def test_nobody_to_tell_is_no_failure(environ: dict[str, str]) -> None:
    notify(environ, "READY=1")
