"""Who has a port: from /proc/net/{tcp,tcp6,udp,udp6} to the socket's inode to the process that has it open.

Decides nothing. Only root sees the processes of others; for those the process is unknown, the address is not.
"""

import ipaddress
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from entrepot.cli.addresses import PROC, shown

type Transport = Literal["tcp", "udp"]

_LISTENING: Final = "0A"  # TCP_LISTEN, include/net/tcp_states.h; a bound UDP socket is 07, "closed"
_UNCONNECTED: Final = "07"


@dataclass(frozen=True, slots=True)
class Holder:
    """A socket on the port, and whose it is."""

    address: str
    port: int
    pid: int | None = None
    command: str | None = None

    def __str__(self) -> str:
        where = shown(self.address, self.port)
        if self.pid is None:
            return f"a process of another user, on {where}"
        return f"{self.command or 'a process'} (pid {self.pid}), on {where}"


def holders(port: int, transport: Transport, proc: Path = PROC) -> list[Holder]:
    """Every socket that listens on `port`, each address and process once, the lowest pid of each."""
    sockets = {inode: address for address, at, inode in _sockets(transport, proc) if at == port}
    if not sockets:
        return []
    owners = _owners(set(sockets), proc)
    found: dict[tuple[str, str | None], Holder] = {}
    for inode, address in sockets.items():
        pid = owners.get(inode)
        command = None if pid is None else _command(pid, proc)
        found.setdefault((address, command), Holder(address, port, pid, command))
    return list(found.values())


def _sockets(transport: Transport, proc: Path) -> Iterator[tuple[str, int, int]]:
    """(address, port, inode) of every socket that waits for peers."""
    state = _LISTENING if transport == "tcp" else _UNCONNECTED
    for table in (transport, f"{transport}6"):
        try:
            lines = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # no IPv6
            continue
        for line in lines:
            fields = line.split()
            if len(fields) > 9 and fields[3] == state:
                address, _, port = fields[1].partition(":")
                yield _address(address), int(port, 16), int(fields[9])


def _address(packed: str) -> str:
    """The kernel prints addresses as 32-bit words in the byte order of the machine."""
    raw = bytes.fromhex(packed)
    if sys.byteorder == "little":
        raw = b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4))
    return str(ipaddress.ip_address(raw))


def _owners(inodes: set[int], proc: Path) -> dict[int, int]:
    """The lowest pid that has each socket open. A server and its workers share it; the oldest is the one to stop."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    owners: dict[int, int] = {}
    for pid in sorted(int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()):
        try:
            with os.scandir(proc / str(pid) / "fd") as descriptors:
                for descriptor in descriptors:
                    inode = wanted.get(os.readlink(descriptor.path))  # noqa: PTH115  # thousands of them
                    if inode is not None:
                        owners.setdefault(inode, pid)
        except OSError:  # another user's, or gone meanwhile
            continue
    return owners


def _command(pid: int, proc: Path) -> str | None:
    try:
        return (proc / str(pid) / "comm").read_text(errors="replace").strip() or None
    except OSError:
        return None
