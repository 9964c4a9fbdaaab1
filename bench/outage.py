"""Does an outage cost clients time? Real clients pull what is held, with the upstream there and gone; prints a table.

    .venv/bin/python -P bench/outage.py [--rounds N] [--mib N] [--quick] [--json FILE]

Needs root and the packages of tests/lab/packages.txt: the world is that of the lab tests. An image is pulled once by
one machine; another one then pulls it by tag with each client, in turns with the upstream as ever and blackholed
(packets to it are dropped, not refused). Every pull starts from nothing: no token, no layer. Writes
bench/results/outage.json and the table in docs/performance.md; with --json only FILE, with --quick neither. Ends with
status 1 when a target is missed.
"""

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from bench import report, servers
from tests.lab import images, world
from tests.lab.clients import Clients
from tests.lab.net import Network, wait_for
from tests.lab.product import Entrepot
from tests.lab.trust import trust_entrepot
from tests.lab.upstream import Upstream
from tests.lab.wire import Wire

type State = Literal["there", "gone"]

COMMANDS: Final[Mapping[str, str]] = {
    "skopeo": "skopeo copy",
    "docker": "docker pull",
    "containerd": "ctr images pull",
    "podman": "podman pull",
    "buildah": "buildah pull",
}
REGISTRY: Final = world.DOCKER_HUB  # with a token service and a content network of its own
LAYERS: Final = 8
WANTED: Final = 1.2
KNOWN_SECONDS: Final = 60.0  # for the box to notice that the upstream is gone, or back


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Bench:
    """All there is."""

    network: Network
    upstream: Upstream
    product: Entrepot
    fills: Clients
    pulls: Clients
    wire: Wire

    def seconds(self, kind: str, reference: str) -> float:
        """Of one pull, from nothing."""
        client = self.pulls[kind]
        begin = time.monotonic()
        client.pull(reference)
        seconds = time.monotonic() - begin
        client.forget()
        return seconds

    @contextmanager
    def gone(self) -> Iterator[None]:
        """No upstream within the block."""
        with self.network.blackholed():
            yield
        probe = self.upstream.publish(REGISTRY, images.build([images.KIB]))
        wait_for(lambda: self._is_back(probe), "the upstream to be back", KNOWN_SECONDS)

    def _is_back(self, probe: world.Repository) -> bool:
        reply = self.wire.ask(probe.host, probe.target("tags/list"), self.wire.authorization(probe))
        return reply.status == 200 and not self.down()

    def down(self) -> list[str]:
        """The origins that are known to be."""
        return list(json.loads(self.product.command("stats", "--json"))["down"])

    def knows(self, repository: world.Repository) -> None:
        """Returns when the box has found that the registry is gone."""

        def known() -> bool:
            self.wire.ask(repository.host, repository.target("manifests/never-heard-of"))
            return f"https://{REGISTRY.host}" in self.down()

        wait_for(known, "the outage to be known", KNOWN_SECONDS)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Running."""
    with ExitStack() as stack:
        network = Network(_made(folder / "logs"))
        stack.callback(network.close)
        upstream = Upstream(network.upstream, _made(folder / "upstream"))
        product = Entrepot(network.cache, _made(folder / "entrepot"), upstream.ca_file)
        product.start()
        stack.callback(product.stop)
        for machine in (network.builder, network.laptop):
            trust_entrepot(machine, product.ca_file)
        clients = Clients(network.builder), Clients(network.laptop)
        yield Bench(network, upstream, product, *clients, Wire(network.laptop, product.ca_file))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def measure(made: Bench, kinds: Sequence[str], rounds: int, mib: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by client and state; `first` is the first pull of all after the upstream has gone."""
    image = images.build([mib * images.MIB // LAYERS] * LAYERS)
    repository = made.upstream.publish(REGISTRY, image)
    made.fills["podman"].pull(repository.image)
    for kind in kinds:  # daemons start, and the disk has been written to
        made.seconds(kind, repository.image)
    found: dict[str, dict[str, list[float]]] = {kind: {"there": [], "gone": []} for kind in kinds}
    found["skopeo"]["first"] = []

    def turn(state: State) -> None:
        for kind in kinds:
            found[kind][state].append(made.seconds(kind, repository.image))

    for number in range(rounds):
        if number % 2 == 0:
            turn("there")
        with made.gone():
            found["skopeo"]["first"].append(made.seconds("skopeo", repository.image))
            made.knows(repository)
            turn("gone")
        if number % 2:
            turn("there")
        say(f"round {number + 1} of {rounds}")
    return found


def ratio(by_state: Mapping[str, Sequence[float]]) -> float:
    """Of the medians."""
    return statistics.median(by_state["gone"]) / statistics.median(by_state["there"])


def describe(result: Mapping[str, Any]) -> str:
    rows = [["a pull of what is held, s", "upstream there", "upstream gone", "ratio of medians", "wanted", "met"]]
    measured = result["measured"]
    for kind, by in measured.items():
        there, gone = (report.spread(by[state], 2) for state in ("there", "gone"))
        met = "yes" if ratio(by) <= WANTED else "**no**"
        rows.append([f"`{COMMANDS[kind]}`", there, gone, f"{ratio(by):.2f}", f"at most {WANTED}", met])
    first = report.spread(measured["skopeo"]["first"], 2)
    rows.append(["`skopeo copy`, the first one after the upstream has gone", "", first, "", "", ""])
    used = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    command = f"bench/outage.py --rounds {result['rounds']} --mib {result['mib']}"
    grounds = (
        f"Median (least - most) of {result['rounds']} rounds; an image of {LAYERS} layers, {result['mib']} MiB. "
        f"Measured with `.venv/bin/python -P {command}` on {result['machine']}. Versions: {used}."
    )
    return "\n\n".join([report.table(rows), grounds])


def versions() -> dict[str, str]:
    return {
        **report.versions(),
        "skopeo": servers.version(["skopeo", "--version"], r"version (\S+)"),
        "docker": servers.version(["docker", "--version"], r"version ([^\s,]+)"),
        "containerd": servers.version(["containerd", "--version"], r"containerd/containerd (\S+)"),
        "podman": servers.version(["podman", "--version"], r"version (\S+)"),
        "buildah": servers.version(["buildah", "--version"], r"version (\S+)"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="all clients in turn, every round (default: 7)")
    parser.add_argument("--mib", type=int, default=16, help="size of the image (default: 16)")
    parser.add_argument("--quick", action="store_true", help="skopeo only, a small image, two rounds: does it work?")
    parser.add_argument("--json", type=Path, help="write the numbers there, and leave docs/performance.md alone")
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces")
    if options.quick:
        options.rounds, options.mib = 2, 8
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what has been started is stopped
    kinds = ["skopeo"] if options.quick else list(COMMANDS)
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as directory, bench(Path(directory)) as made:
        measured = measure(made, kinds, options.rounds, options.mib)
    result = {
        "rounds": options.rounds,
        "mib": options.mib,
        "machine": report.machine(),
        "versions": versions(),
        "measured": measured,
    }
    print(describe(result))
    if options.json is not None:
        report.save(options.json, result)
    elif not options.quick:
        report.save(report.RESULTS / "outage.json", result)
        report.replace_section("outage", describe(result))
    missed = [kind for kind, by in measured.items() if ratio(by) > WANTED]
    for kind in missed:
        say(f"missed: {kind}")
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
