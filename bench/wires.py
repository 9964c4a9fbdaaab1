"""The machines of the miss benchmark and the wires between them: which address, which delay, which rate.

    client, direct -- [box] -- fast | near | mid | far -- [upstream]

The box is where Entrepot runs, and it routes: the machine `direct` reaches the upstream through it as if Entrepot were
not there, so both ways share every wire. The machines are those of the lab tests.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.net import LabFault, Machine

BOX = "10.92.1.1"
CLIENT = "10.92.1.11"
DIRECT = "10.92.1.12"
BURST = 128 << 10  # bytes, of tc's tbf; more than one packet as TCP hands it over (64 KiB)
QUEUE = 2 << 20  # bytes that may wait for the wire
DELAY_LINE = Path(__file__).with_name("delay_line.py")


@dataclass(frozen=True, slots=True)
class Wire:
    """Between the box and the upstream, which has one name and one address per wire."""

    name: str
    net: int
    rtt: float = 0.0  # seconds
    rate: int = 0  # bytes per second from the upstream on, headers of the packets included; 0 = no limit
    per_connection: int = 0  # bytes per second that the upstream gives each; 0 = no limit
    keeps: bool = False
    """Whether the upstream keeps a connection open. Where it does not, each request pays for its connection, with
    Entrepot and without."""

    @property
    def host(self) -> str:
        return f"{self.name}.test"

    @property
    def box(self) -> str:
        return f"10.92.{self.net}.1"

    @property
    def upstream(self) -> str:
        return f"10.92.{self.net}.2"


FAST = Wire("fast", 10)
NEAR = Wire("near", 11, rate=40_000_000)
MID = Wire("mid", 12, rtt=0.020, rate=40_000_000)
FAR = Wire("far", 13, rtt=0.050, per_connection=20_000_000, keeps=True)
WIRES = (FAST, NEAR, MID, FAR)


@dataclass(frozen=True, slots=True)
class Machines:
    box: Machine
    upstream: Machine
    client: Machine  # asks Entrepot's DNS
    direct: Machine  # asks the upstream's


@contextmanager
def machines(logs: Path) -> Iterator[Machines]:
    """All of them, wired."""
    with ExitStack() as stack:

        def machine(name: str, resolver: str) -> Machine:
            made = Machine(name, resolver, logs)
            stack.callback(made.close)
            return made

        found = Machines(
            machine("box", FAST.upstream),
            machine("upstream", FAST.upstream),
            machine("client", BOX),
            machine("direct", FAST.upstream),
        )
        _lan(found)
        for wire in WIRES:
            if wire.rtt:
                stack.enter_context(_delay_line(found, wire))
            else:
                _cable(found.box, wire.name, found.upstream, wire.name)
            _connect(found, wire)
        yield found


def _lan(machines: Machines) -> None:
    box = machines.box
    _ip(box, "link add lan type bridge", f"addr add {BOX}/24 dev lan", "link set lan up")
    for machine, address in ((machines.client, CLIENT), (machines.direct, DIRECT)):
        _cable(machine, "eth0", box, machine.name)
        _ip(box, f"link set {machine.name} master lan up")
        _ip(machine, f"addr add {address}/24 dev eth0", "link set eth0 up", f"route add default via {BOX}")
    box.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")


def _connect(machines: Machines, wire: Wire) -> None:
    """Addresses and the rate. What the upstream answers goes back by the wire it was asked on."""
    up = f"link set {wire.name} up"
    _ip(machines.box, f"addr add {wire.box}/24 dev {wire.name}", up)
    table = f"table {wire.net}"
    routes = f"route add default via {wire.box} dev {wire.name} {table}", f"rule add from {wire.upstream} {table}"
    _ip(machines.upstream, f"addr add {wire.upstream}/24 dev {wire.name}", up, *routes)
    if wire.rate:
        shaping = f"qdisc add dev {wire.name} root tbf rate {wire.rate}bps burst {BURST} limit {QUEUE}"
        machines.upstream.run("tc", *shaping.split())


@contextmanager
def _delay_line(machines: Machines, wire: Wire) -> Iterator[None]:
    ends = [str(machines.box.pid), str(machines.upstream.pid), wire.name, str(wire.rtt / 2)]
    command = [sys.executable, "-P", str(DELAY_LINE), *ends]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise LabFault(f"no wire {wire.name}: it needs /dev/net/tun")
            yield
        finally:
            process.kill()


def _ip(machine: Machine, *commands: str) -> None:
    machine.run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")


def _cable(one: Machine, one_end: str, other: Machine, other_end: str) -> None:
    """A pair of interfaces, each made where it belongs."""
    command = f"link add {one_end} netns {one.pid} type veth peer name {other_end} netns {other.pid}"
    subprocess.run(["ip", *command.split()], check=True)
