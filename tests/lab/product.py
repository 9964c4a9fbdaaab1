"""Entrepot itself, started in the cache's machine as an operator would: `entrepot up --config FILE`."""

import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab import world
from tests.lab.net import Daemon, LabFault, Machine, descendants, wait_for

ENTREPOT = Path(sys.executable).with_name("entrepot")

LISTENING, ESTABLISHED = "0A", "01"  # states in /proc/net/tcp

CONFIG = """
[listen]
address = ["{address}"]
{listen}
[dns]
upstream = ["{dns}"]
[upstream]
resolvers = ["{dns}"]
{upstream}
[certs]
path = "{certs}"
[store]
path = "{store}"
{registries}
"""


class Entrepot:
    """One installation: a configuration, a store and an authority, whether it runs or not."""

    def __init__(
        self,
        machine: Machine,
        folder: Path,
        upstream_ca: Path,
        address: str = world.CACHE,
        certs: Path | None = None,
        *,
        listen: str = "",
        upstream: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`listen` and `upstream`: more keys for these tables of the configuration; `env`: what its processes find."""
        self._env = env
        self.machine = machine
        self.address = address
        self.certs = certs or folder / "ca"
        self.config = folder / "entrepot.toml"
        self._listen, self._upstream = listen, upstream
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
            listen=self._listen,
            upstream=self._upstream,
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
        command = (str(ENTREPOT), "up", "--config", str(self.config))
        self._daemon = self.machine.spawn(f"entrepot-{self._name}", *command, env=self._env)
        wait_for(self._ready, "entrepot up")

    def _ready(self) -> bool:
        if not self.daemon.running:
            raise LabFault(f"entrepot up ended with {self.daemon.wait(1)}:\n{self.daemon.output()[-4000:]}")
        # Its ports answer before that: the kernel accepts for workers that are still starting.
        # The addresses it also says when it ends because they are in use.
        # The web process is started when all others serve.
        return "ca sha-256" in self.daemon.output() and ("web = 0" in self._listen or "web" in self.roles().values())

    def stop(self) -> None:
        if self._daemon is not None:
            self._daemon.stop(40)
            self._daemon = None

    def kill(self) -> None:
        """The supervisor, and so all of it; returns when nobody is left."""
        kill(self.daemon.pid)
        wait_for(lambda: not any(map(alive, descendants(self.machine.pid))), "the end of all children", 5)
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

    def worker_of(self, connection: socket.socket) -> int:
        """Pid of the worker that has accepted this connection of a client; it has when TLS is through."""
        accepted = f"socket:[{self._accepted(connection)[9]}]"
        owners = [pid for pid in self.serving() if accepted in _open_files(pid)]
        assert len(owners) == 1, f"{accepted} is served by {owners}"
        return owners[0]

    def unread(self, connection: socket.socket) -> int:
        """Bytes of the client's that have arrived on this connection and the worker has not read yet."""
        return int(self._accepted(connection)[4].partition(":")[2], 16)

    def _accepted(self, connection: socket.socket) -> list[str]:
        """The line of /proc/net/tcp for our end of a client's connection."""
        host, port = connection.getsockname()[:2]
        client = f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}"
        found: list[list[str]] = []

        def is_found() -> bool:
            """It may be left out, or come twice, when connections come and go while the file is read."""
            lines = Path(f"/proc/{self.machine.pid}/net/tcp").read_text().splitlines()[1:]
            found[:] = [fields for fields in map(str.split, lines) if fields[2] == client and fields[3] == ESTABLISHED]
            return len(found) == 1

        wait_for(is_found, f"connection of {client}", seconds=2)
        return found[0]

    @contextmanager
    def nobody_fetches(self) -> Iterator[None]:
        """The process that fetches for the workers runs, but they cannot reach it."""
        path = self._store / "run/fetch.sock"
        path.rename(path.with_suffix(".away"))
        try:
            yield
        finally:
            path.with_suffix(".away").rename(path)

    def held(self, digest: str) -> Path:
        """Where a blob is if it is held."""
        algorithm, _, name = digest.partition(":")
        return self._store / "blobs" / algorithm / name[:2] / name

    def part(self, digest: str) -> Path:
        """Where a blob is as long as it grows."""
        return self._store / "incoming" / f"{digest.replace(':', '-')}.part"

    def incoming(self, digest: str) -> list[Path]:
        """What is left of a transfer of it, or under way."""
        return list(self.part(digest).parent.glob(f"{digest.replace(':', '-')}.*"))

    @property
    def store(self) -> Path:
        """As the host has it; where something is mounted there in the machine, see `Machine.path`."""
        return self._store

    def command(self, *argv: str) -> str:
        """What a command of ours prints about this installation."""
        return self.machine.run(str(ENTREPOT), *argv, "--config", str(self.config), env=self._env)

    def roles(self) -> dict[int, str]:
        """Pid to role of every process below the supervisor, also of those that are still starting."""
        found = {}
        for pid in self.processes():
            with suppress(OSError):  # gone since
                words = Path(f"/proc/{pid}/cmdline").read_text().removesuffix("\0").split("\0")
                if words[-2:-1] == ["entrepot.cli.children"]:  # else it is not there yet, or a zombie
                    found[pid] = words[-1]
        return found

    def clients_of(self, pid: int) -> set[int]:
        """Ports of the clients whose connections this worker has accepted."""
        fields = [line.split() for line in Path(f"/proc/{self.machine.pid}/net/tcp").read_text().splitlines()[1:]]
        files = _open_files(pid)
        return {int(each[2].rpartition(":")[2], 16) for each in fields if f"socket:[{each[9]}]" in files}

    def _listening(self, port: int) -> set[str]:
        """Names of listening TCP sockets of `port`, as /proc/PID/fd shows them."""
        lines = Path(f"/proc/{self.machine.pid}/net/tcp").read_text().splitlines()[1:]
        fields = [line.split() for line in lines]
        return {
            f"socket:[{each[9]}]" for each in fields if each[3] == LISTENING and int(each[1].split(":")[1], 16) == port
        }


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
