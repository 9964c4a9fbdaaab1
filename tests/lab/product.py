"""Entrepot itself, started in the cache's machine as an operator would: `entrepot up --config FILE`."""

import os
import signal
import sys
from pathlib import Path

from tests.lab import world
from tests.lab.net import Daemon, LabFault, Machine, descendants, wait_for

ENTREPOT = Path(sys.executable).with_name("entrepot")

CONFIG = """
[listen]
address = ["{address}"]
[dns]
upstream = ["{dns}"]
[upstream]
resolvers = ["{dns}"]
[certs]
path = "{certs}"
[store]
path = "{store}"
{registries}
"""


class Entrepot:
    """One installation: a configuration, a store and an authority, whether it runs or not."""

    def __init__(
        self, machine: Machine, folder: Path, upstream_ca: Path, address: str = world.CACHE, certs: Path | None = None
    ) -> None:
        self.machine = machine
        self.address = address
        self.certs = certs or folder / "ca"
        self.config = folder / "entrepot.toml"
        self._upstream_ca = upstream_ca
        self._store = folder / "store"
        self._name = folder.name
        self._daemon: Daemon | None = None
        self.write_config()

    def write_config(self, extra: str = "") -> None:
        """(Re)write the configuration file, with `extra` at its end."""
        tables = [f'[registries."{each.name}"]\nca = ["{self._upstream_ca}"]' for each in world.REGISTRIES]
        text = CONFIG.format(
            address=self.address,
            dns=world.UPSTREAM_DNS,
            certs=self.certs,
            store=self._store,
            registries="\n".join(tables),
        )
        self.config.write_text(text + extra)

    @property
    def ca_file(self) -> Path:
        """What clients are to trust."""
        return self.certs / "current/ca.crt"

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None, "not started"
        return self._daemon

    def start(self) -> None:
        """Start and wait until it says that it serves."""
        self._daemon = self.machine.spawn(f"entrepot-{self._name}", str(ENTREPOT), "up", "--config", str(self.config))
        wait_for(self._ready, "entrepot up")

    def _ready(self) -> bool:
        if not self.daemon.running:
            raise LabFault(f"entrepot up ended with {self.daemon.wait(1)}:\n{self.daemon.output()[-4000:]}")
        # Its ports answer before that: the kernel accepts for workers that are still starting.
        return f"{self.address}:443" in self.daemon.output()

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.stop(40)
            self._daemon = None

    def reload(self) -> None:
        self.daemon.signal(signal.SIGHUP)

    def processes(self) -> list[int]:
        """Every process below the supervisor."""
        return descendants(self.daemon.pid)

    def serving(self) -> list[int]:
        """Pids of the proxy workers: those that hold the listening socket of port 443, but for the supervisor."""
        sockets = self._listening(443)
        return [pid for pid in self.processes() if sockets & _open_files(pid)]

    def peak_memory(self) -> int:
        """Bytes resident at most, of the worker that had most so far."""
        return max(_peak(pid) for pid in self.serving())

    def _listening(self, port: int) -> set[str]:
        """Names of listening TCP sockets of `port`, as /proc/PID/fd shows them."""
        lines = Path(f"/proc/{self.machine.pid}/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return {f"socket:[{each[9]}]" for each in fields if each[3] == "0A" and int(each[1].split(":")[1], 16) == port}


def _open_files(pid: int) -> set[str]:
    found = set()
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found.add(str(link.readlink()))
        except OSError:  # closed, or its process gone, since the folder was read
            continue
    return found


def _peak(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is no more."""
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid), f"end of process {pid}")


def alive(pid: int) -> bool:
    """Whether it runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
