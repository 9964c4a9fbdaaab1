"""Tells systemd how the service is (sd_notify(3)); without NOTIFY_SOCKET it does nothing."""

import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(environ: Mapping[str, str], *lines: str) -> None:
    """Sends `lines`, such as "READY=1". Whoever listens may be gone: that is not our concern."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.sendall("\n".join(lines).encode())
