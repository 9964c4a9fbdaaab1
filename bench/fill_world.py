"""The world of the miss benchmark put together: Entrepot as users start it, real clients on both sides of it.

Decides how each is started and how one pull is timed. What is pulled, how often and in which order is decided by
`fill_parts`.
"""

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import wires
from bench.origin import REPOSITORY, Blob, Origin
from bench.processes import family, forget_peak, peak_memory, usage
from bench.wires import FAST, WIRES, Machines, Wire
from tests.lab.net import CommandFailed, Daemon, Machine, wait_for
from tests.lab.trust import trust_by_hand, trust_entrepot

ENTREPOT = Path(sys.executable).with_name("entrepot")
CONFIGURATION: Final = """
[listen]
address = ["{box}"]
workers = {workers}
[dns]
upstream = ["{dns}"]
[upstream]
resolvers = ["{dns}"]
[certs]
path = "{dir}/ca"
[store]
path = "{dir}/store"
"""
REGISTRY: Final = """
[registries."{host}"]
ca = ["{ca}"]
"""
WORKERS: Final = 2
ROLES: Final = {"proxy": "worker", "fetch": "fetcher"}  # where we say it otherwise
FILLED_SECONDS: Final = 120.0  # for a fill that no client waits for
FILLED_POLL: Final = 0.002
PULL_SECONDS: Final = 280.0
POLICY: Final = '{"default": [{"type": "insecureAcceptAnything"}]}'
# Absolute times in seconds from the start of the transfer, except for the lookup's.
CURL_SAYS: Final = '{"status": %{response_code}, "size": %{size_download}, "seconds": %{time_total}, '
CURL_SAYS_MORE: Final = '"lookup": %{time_namelookup}, "first": %{time_starttransfer}}'


class Product:
    """`entrepot up` on the box, with two workers and a store of its own."""

    def __init__(self, machine: Machine, folder: Path, origin: Origin) -> None:
        folder.mkdir()
        self._machine, self._folder = machine, folder
        text = CONFIGURATION.format(box=wires.BOX, workers=WORKERS, dns=FAST.upstream, dir=folder)
        text += "".join(REGISTRY.format(host=wire.host, ca=origin.ca_file) for wire in WIRES)
        self._config = folder / "entrepot.toml"
        self._config.write_text(text)
        self._daemon: Daemon | None = None

    @property
    def ca_file(self) -> Path:
        return self._folder / "ca/current/ca.crt"

    def start(self) -> None:
        """Returns when it serves."""
        self._daemon = self._machine.spawn("entrepot", str(ENTREPOT), "up", "--config", str(self._config))
        wait_for(self._serves, "entrepot up")

    def _serves(self) -> bool:
        assert self._daemon is not None
        if not self._daemon.running:
            raise RuntimeError(f"entrepot up has ended:\n{self._daemon.output()[-4000:]}")
        return f"{wires.BOX}:443" in self._daemon.output()  # its ports answer before that

    def said(self) -> list[str]:
        """Its log."""
        assert self._daemon is not None
        return self._daemon.output().splitlines()

    def processes(self) -> dict[int, str]:
        """What each is, by pid."""
        assert self._daemon is not None
        found: dict[int, str] = {}
        for pid in sorted(family(self._daemon.pid)):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            role = words[-2] if "entrepot.cli.children" in words else "supervisor"
            found[pid] = ROLES.get(role, role)
        return found

    def moving(self) -> list[int]:
        """The processes through which a blob passes."""
        return [pid for pid, role in self.processes().items() if role not in {"supervisor", "dns"}]

    def cpu(self) -> float:
        """Seconds that these have used so far."""
        return sum(usage(pid).seconds[pid] for pid in self.moving())

    def holds(self, digest: str) -> bool:
        """Whether the blob has been committed."""
        name = digest.partition(":")[2]
        return (self._folder / "store/blobs/sha256" / name[:2] / name).exists()

    def wait_for(self, digest: str) -> float:
        """Until it has been committed. Returns when, in seconds of time.monotonic()."""
        until = time.monotonic() + FILLED_SECONDS
        while not self.holds(digest):
            if time.monotonic() > until:
                raise RuntimeError(f"{digest} is not held after {FILLED_SECONDS:g} s; entrepot says {self.said()[-5:]}")
            time.sleep(FILLED_POLL)
        return time.monotonic()

    @contextmanager
    def peaks(self) -> Iterator[dict[str, int]]:
        """Fills the dictionary with the peak memory of each kind of process within the block, in bytes."""
        before = self.processes()
        for pid in before:
            forget_peak(pid)
        found: dict[str, int] = {}
        yield found
        if self.processes() != before:
            raise RuntimeError(f"a process of Entrepot has died; it says {self.said()[-20:]}")
        for pid, role in before.items():
            found[role] = max(found.get(role, 0), peak_memory(pid))


@dataclass(frozen=True, slots=True)
class Download:
    """What curl says of one."""

    size: int
    seconds: float  # from the start to the last byte
    first: float  # seconds from the end of the lookup to the first byte of the answer


class Site:
    """A machine that pulls, with everything that pulls on it."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        folder.mkdir()
        self.name, self._machine, self._folder = machine.name, machine, folder
        containers = machine.path("/etc/containers")
        containers.mkdir(exist_ok=True)
        (containers / "policy.json").write_text(POLICY)
        self._dockerd: Daemon | None = None

    def curl(self, wire: Wire, path: str, *, size: int | None = None, only: str = "") -> Download:
        """Downloads to nowhere; `only` is a range. Raises RuntimeError when it is not `size` bytes."""
        more = ["--range", only] if only else []
        command = ["curl", "-sS", "--http1.1", *more, "-o", "/dev/null", "-w", CURL_SAYS + CURL_SAYS_MORE]
        says = json.loads(self._machine.run(*command, f"https://{wire.host}{path}", seconds=PULL_SECONDS))
        if says["status"] not in {200, 206} or (size is not None and says["size"] != size):
            raise RuntimeError(f"{self.name}: {wire.host}{path}: {says}")
        return Download(says["size"], says["seconds"], says["first"] - says["lookup"])

    def cheapest(self, wire: Wire, blob: Blob) -> float:
        """What storing a blob costs at least: curl to a file and openssl's SHA-256. Returns CPU seconds."""
        file = self._folder / "blob"
        script = f'curl -sS --http1.1 -o {file} "$1" && openssl dgst -sha256 -r {file}'
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = self._machine.run("sh", "-c", script, "sh", f"https://{wire.host}{blob.path}", seconds=PULL_SECONDS)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        file.unlink()
        if said.split()[0] != blob.digest.partition(":")[2]:
            raise RuntimeError(f"{self.name}: got {said} instead of {blob.digest}")
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def skopeo(self, wire: Wire, tag: str) -> float:
        """Seconds of `skopeo copy` to a folder."""
        target = self._folder / "skopeo"
        begin = time.monotonic()
        source = f"docker://{wire.host}/{REPOSITORY}:{tag}"
        self._machine.run("skopeo", "copy", "--quiet", source, f"dir:{target}", seconds=PULL_SECONDS)
        seconds = time.monotonic() - begin
        shutil.rmtree(target)
        return seconds

    def docker(self, wire: Wire, tag: str) -> float:
        """Seconds of `docker pull`, unpacking included."""
        if self._dockerd is None:
            self._start_docker()
        image = f"{wire.host}/{REPOSITORY}:{tag}"
        begin = time.monotonic()
        self._docker("pull", "--quiet", image)
        seconds = time.monotonic() - begin
        self._docker("rmi", "--force", image)
        return seconds

    def _start_docker(self) -> None:
        """With its images on the disk, not in memory."""
        root = self._folder / "docker"
        root.mkdir()
        settings = root / "daemon.json"
        settings.write_text('{"features": {"containerd-snapshotter": false}, "storage-driver": "overlay2"}')
        places = [f"--data-root={root}/data", "--exec-root=/run/docker", "--pidfile=/run/docker.pid"]
        network = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
        options = [f"--config-file={settings}", "-H=unix:///run/docker.sock", *places, *network]
        self._dockerd = self._machine.spawn("dockerd", "dockerd", *options)
        wait_for(self._docker_answers, "dockerd")

    def _docker_answers(self) -> bool:
        assert self._dockerd is not None
        if not self._dockerd.running:
            raise RuntimeError(f"dockerd has ended:\n{self._dockerd.output()[-4000:]}")
        try:
            self._docker("version")
        except CommandFailed:
            return False
        return True

    def _docker(self, *argv: str) -> str:
        return self._machine.run("docker", "-H", "unix:///run/docker.sock", *argv, seconds=PULL_SECONDS)

    def close(self) -> None:
        """Before its folder goes: dockerd has mounts in it."""
        if self._dockerd is not None:
            self._dockerd.stop()


@dataclass(frozen=True, slots=True)
class World:
    """All there is."""

    folder: Path
    origin: Origin
    product: Product
    through: Site  # pulls through Entrepot
    direct: Site  # does not


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Running and warm: each name has its certificate, each process has served."""
    logs = folder / "logs"
    logs.mkdir()
    with ExitStack() as stack:
        machines: Machines = stack.enter_context(wires.machines(logs))
        origin = Origin(machines.upstream, _made(folder / "origin"))
        origin.start()
        product = Product(machines.box, folder / "entrepot", origin)
        product.start()
        trust_by_hand(machines.direct, origin.ca_file.read_bytes())
        trust_entrepot(machines.client, product.ca_file)
        sites = Site(machines.client, folder / "client"), Site(machines.direct, folder / "direct")
        for site in sites:
            stack.callback(site.close)
        made = World(folder, origin, product, *sites)
        for wire in WIRES:
            for _ in range(2 * WORKERS):
                blob = origin.blob(1)
                made.direct.curl(wire, blob.path, size=blob.size)
                made.through.curl(wire, blob.path, size=blob.size)
        yield made


def _made(folder: Path) -> Path:
    folder.mkdir()
    os.chmod(folder, 0o755)  # noqa: PTH101  # servers may be somebody else
    return folder
