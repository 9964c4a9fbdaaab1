"""Machines out of namespaces: each with a network, a process table, an /etc, a /var/lib and a /run of its own.

A machine is one process tree. Its first process waits on a pipe from the tests; when that closes, because the tests
are done or were killed, the kernel ends everything in the machine and takes its interfaces and mounts along. Nothing
has a name in the host, so two runs side by side do not meet, and no file of the host is ever written: /etc,
/var/lib and /usr/local/share are overlays and /run is a fresh tmpfs, all gone with the machine.

To look inside while a test waits: `nsenter -t PID -a`, with the pid that `Machine.pid` holds.
"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.lab import world

# In the machine, not in the host: a tmpfs that dies with it.
HOME = Path("/run/lab")
PATIENCE = 50.0  # seconds that a command may take
PATH = "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation=private")
# `bash` stays as the first process because it reaps orphans, which `cat` or `sleep` would leave as zombies.
SET_UP = """
mount -t tmpfs -o mode=755 tmpfs /run
for d in etc var/lib usr/local/share; do
  mkdir -p /run/lab/over/$d/upper /run/lab/over/$d/work
  mount -t overlay -o lowerdir=/$d,upperdir=/run/lab/over/$d/upper,workdir=/run/lab/over/$d/work overlay /$d
done
mkdir -p /run/lab/home /run/lab/tmp
mkdir -m 700 /run/lab/xdg
ip link set lo up
rm -f /etc/resolv.conf /etc/hosts /etc/nsswitch.conf
printf 'nameserver %s\\n' "$1" >/etc/resolv.conf
printf '127.0.0.1 localhost\\n' >/etc/hosts
printf 'hosts: files dns\\npasswd: files\\ngroup: files\\n' >/etc/nsswitch.conf
echo ready
read -r _ || true
"""


class LabFault(Exception):
    """The lab itself does not work, or something in it ended that should run: not a verdict on Entrepot."""


class CommandFailed(Exception):
    """A command in a machine ended with another status than 0; the text is what it said."""

    def __init__(self, argv: Sequence[str], status: int, output: str) -> None:
        super().__init__(f"{' '.join(argv)}: status {status}\n{output}")
        self.status = status
        self.output = output


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Look again and again until `condition` holds. Only for things that have no event to wait for."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise LabFault(f"gave up on {what} after {seconds:g} s")
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Direct children, all threads of `pid` counted; empty once it is gone."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(word) for word in path.read_text().split()]
        except OSError:  # that thread ended under our eyes
            continue
    return sorted(found)


def descendants(pid: int) -> list[int]:
    return [each for child in children(pid) for each in (child, *descendants(child))]


class Daemon:
    """A process running in a machine, its output in `log` from byte `start` on."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, start: int) -> None:
        self._enter = process
        self.log = log
        self._start = start
        # nsenter forks to get into the process table of the machine: the command is its only child.
        wait_for(lambda: bool(children(process.pid)) or process.poll() is not None, f"start of {log.stem}")
        self.pid = next(iter(children(process.pid)), 0)

    @property
    def running(self) -> bool:
        return self._enter.poll() is None

    def output(self) -> str:
        return self.log.read_bytes()[self._start :].decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        if self.pid and self.running:
            os.kill(self.pid, number)

    def wait(self, seconds: float) -> int:
        """Exit status. Raises `LabFault` if it is still running by then."""
        try:
            return self._enter.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabFault(
                f"{self.log.stem} still runs after {seconds:g} s; it said:\n{self.output()[-4000:]}"
            ) from None

    def stop(self, seconds: float = 10) -> None:
        self.signal(signal.SIGTERM)
        try:
            self.wait(seconds)
        except LabFault:
            self.signal(signal.SIGKILL)
            self._enter.kill()
            self._enter.wait()


class Machine:
    """See the module's docstring. `logs` is a folder of the host that gets one file per daemon."""

    def __init__(self, name: str, resolver: str, logs: Path) -> None:
        self.name = name
        self._patience = PATIENCE
        self._logs = logs
        self._daemons: list[Daemon] = []
        self._holder = subprocess.Popen(
            [*UNSHARE, "bash", "-euc", SET_UP, name, resolver],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self._holder.kill()
            raise LabFault(f"machine {name}: {self._holder.communicate()[1].decode(errors='replace')}")
        self.pid = children(self._holder.pid)[0]
        # These threads live in the machine's network: sockets made there stay there, whoever uses them.
        self._inside = ThreadPoolExecutor(16, thread_name_prefix=name, initializer=self._enter_network)

    def _enter_network(self) -> None:
        network = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        try:
            os.setns(network, os.CLONE_NEWNET)
        finally:
            os.close(network)

    def path(self, inside: Path | str) -> Path:
        """A path of the machine, seen from the tests."""
        return Path(f"/proc/{self.pid}/root") / str(inside).lstrip("/")

    def _command(self, argv: Sequence[str], env: Mapping[str, str] | None) -> list[str]:
        variables = {
            "PATH": PATH,
            "HOME": str(HOME / "home"),
            "TMPDIR": str(HOME / "tmp"),
            "XDG_RUNTIME_DIR": str(HOME / "xdg"),
            "LANG": "C.UTF-8",
            **(env or {}),
        }
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--wd=/", "env", "-i"]
        return enter + [f"{key}={value}" for key, value in variables.items()] + list(argv)

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Commands may take so long within the block: for what is larger than usual."""
        self._patience = seconds
        try:
            yield
        finally:
            self._patience = PATIENCE

    def run(
        self, *argv: str, env: Mapping[str, str] | None = None, seconds: float | None = None, stdin: str | None = None
    ) -> str:
        """Run to the end and return what it printed; `CommandFailed` for any status but 0."""
        # The time limit is kept inside: killing nsenter would leave its child behind.
        limited = ["timeout", "--kill-after=2", f"{seconds or self._patience:g}", *argv]
        done = subprocess.run(
            self._command(limited, env),
            capture_output=True,
            text=True,
            errors="replace",
            input=stdin or "",
            check=False,
        )
        if done.returncode:
            raise CommandFailed(argv, done.returncode, done.stdout + done.stderr)
        return done.stdout

    def spawn(self, name: str, *argv: str, env: Mapping[str, str] | None = None) -> Daemon:
        """Start in the background. It ends with the machine at the latest."""
        log = self._logs / f"{self.name}-{name}.log"
        with log.open("ab") as output:
            start = output.tell()
            process = subprocess.Popen(
                self._command(argv, env), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        daemon = Daemon(process, log, start)
        self._daemons.append(daemon)
        return daemon

    def connect(self, address: str, port: int, seconds: float = 10) -> socket.socket:
        """A TCP connection from inside the machine, for use by the tests."""
        return self._inside.submit(socket.create_connection, (address, port), seconds).result()

    def answers(self, address: str, port: int) -> bool:
        try:
            self.connect(address, port, seconds=2).close()
        except OSError:
            return False
        return True

    def lookup(self, name: str) -> set[str]:
        """IPv4 and IPv6 addresses of `name`, as the machine's programs see them."""
        try:
            lines = self.run("getent", "ahosts", name).splitlines()
        except CommandFailed:
            return set()
        return {line.split()[0] for line in lines}

    def close(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.stop()
        self._inside.shutdown()
        self._holder.communicate()  # closes its input: the first process ends, and with it the rest
        self._daemons.clear()


class Network:
    """The machines and the wires between them."""

    def __init__(self, logs: Path) -> None:
        self._machines: list[Machine] = []
        try:
            self.cache = self._add("cache", world.UPSTREAM_DNS, logs)
            self.upstream = self._add("upstream", world.UPSTREAM_DNS, logs)
            self.builder = self._add("builder", world.CACHE, logs)
            self.laptop = self._add("laptop", world.CACHE, logs)
            self.direct = self._add("direct", world.UPSTREAM_DNS, logs)
            self.wall = self._add("wall", world.UPSTREAM_DNS, logs)
            self._wire()
        except BaseException:
            self.close()
            raise

    def _add(self, name: str, resolver: str, logs: Path) -> Machine:
        machine = Machine(name, resolver, logs)
        self._machines.append(machine)
        return machine

    def _wire(self) -> None:
        cache, upstream = self.cache, self.upstream
        _ip(cache, "link add lan type bridge", "link set lan up")
        _ip(cache, *(f"addr add {address}/24 dev lan" for address in (world.CACHE, world.CACHE_SECOND)))
        clients = ((self.builder, world.BUILDER), (self.laptop, world.LAPTOP), (self.direct, world.DIRECT))
        for machine, address in clients:
            _cable(machine, "eth0", cache, machine.name)
            _ip(cache, f"link set {machine.name} master lan up")
            _ip(machine, f"addr add {address}/24 dev eth0", "link set eth0 up", f"route add default via {world.CACHE}")
        _cable(upstream, "eth0", cache, "wan")
        _ip(cache, f"addr add {world.CACHE_UPSTREAM_SIDE}/24 dev wan", "link set wan up")
        owned = [world.UPSTREAM_DNS, *world.addresses().values()]
        _ip(upstream, *(f"addr add {address}/24 dev eth0" for address in owned))
        _ip(upstream, "link set eth0 up", f"route add default via {world.CACHE_UPSTREAM_SIDE}")
        # A router for one client and one address only. Whatever else clients send to the upstream goes to the wall,
        # which answers for all those addresses and has nothing on them: who strays is refused at once. (A prohibited
        # route is silent after the first few packets.)
        _cable(self.wall, "eth0", cache, "wall")
        _ip(self.wall, "addr add 10.91.3.2/24 dev eth0", "link set eth0 up", "route add default via 10.91.3.1")
        _ip(self.wall, "route add local 10.91.2.0/24 dev lo")
        outside = world.addresses()[world.OUTSIDE]
        _ip(
            cache,
            "addr add 10.91.3.1/24 dev wall",
            "link set wall up",
            "route add default via 10.91.3.2 table 100",
            f"rule add pref 100 from {world.DIRECT} lookup main",
            f"rule add pref 101 to {outside} lookup main",
            "rule add pref 102 iif lan lookup 100",
        )
        cache.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        for machine in self._machines:  # podman and the servers need nothing special; 443 as any user helps in CI
            machine.run("sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start")

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """No upstream at all: connections fail at once."""
        _ip(self.cache, "link set wan down")
        try:
            yield
        finally:
            _ip(self.cache, "link set wan up")

    @contextmanager
    def blackholed(self) -> Iterator[None]:
        """The upstream is there and says nothing: what is sent to it is lost without a word."""
        _ip(self.upstream, f"route add blackhole {world.CACHE_UPSTREAM_SIDE}/32")
        try:
            yield
        finally:
            _ip(self.upstream, f"route del blackhole {world.CACHE_UPSTREAM_SIDE}/32")

    def close(self) -> None:
        for machine in reversed(self._machines):
            machine.close()
        self._machines.clear()


def _ip(machine: Machine, *commands: str) -> None:
    machine.run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")


def _cable(one: Machine, one_end: str, other: Machine, other_end: str) -> None:
    """A pair of interfaces, each created where it belongs: the host never has them."""
    command = f"link add {one_end} netns {one.pid} type veth peer name {other_end} netns {other.pid}"
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


def in_parallel[T](jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run all jobs at the same moment, each in a thread; results in order, the first failure raised."""
    together = threading.Barrier(len(jobs))

    def run(job: Callable[[], T]) -> T:
        together.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result() for future in [pool.submit(run, job) for job in jobs]]
