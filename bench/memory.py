"""How much memory does a worker need? Several clients at once pull a large blob that is not held yet, then again.

    .venv/bin/python -P bench/memory.py [--mib 4096] [--clients 4] [--json FILE]

Needs Debian's nginx, which plays the registry. Loopback only. Every client computes the SHA-256 of what it gets. Writes
bench/results/memory.json and the table in docs/performance.md; with --json, only FILE. Ends with status 1 when a
process has needed more than the budget.
"""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from bench import content, report, script, servers
from bench.hit import first_ca
from bench.loads import Loads
from bench.processes import Cores, family, forget_peak, peak_memory
from bench.servers import Entrepot, Server

BUDGET = 150 * 10**6  # bytes of one process, whatever the size of the blob


@dataclass(frozen=True, slots=True)
class Phase:
    """All clients at once, from the first connection to the last byte."""

    name: str
    peak: int  # bytes of the largest process
    seconds: float


def measure(name: str, loads: Loads, server: Server, image: content.Image, clients: int) -> Phase:
    """Raises RuntimeError when a client got other bytes."""
    processes = family(server.process.pid)
    for pid in processes:
        forget_peak(pid)
    results = loads.pull(server, image.blob_path, image.digest, clients)
    peak = max(peak_memory(pid) for pid in processes)
    return Phase(name, peak, max(result["seconds"] for result in results))


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    cores = Cores.split()
    image = content.make(directory, options.mib)
    content.lay_out(image, directory / "www")
    trust, _ = servers.certificates(directory)
    loads = Loads(directory, Cores(cores.all, cores.all), trust, image)
    with ExitStack() as stack:
        origin = stack.enter_context(servers.nginx(directory, directory / "www", None))
        entrepot = Entrepot.install(directory, origin.port)
        server = stack.enter_context(entrepot.running())
        trust.write_text(first_ca(entrepot, server))
        loads.pull(server, image.by_digest, image.manifest_digest)  # a client has it before it asks for layers
        phases = [measure(name, loads, server, image, options.clients) for name in ("cold", "hot")]
    return {
        "text": describe(phases, options),
        "mib": options.mib,
        "clients": options.clients,
        "machine": report.machine(),
        "versions": report.versions(),
        "phases": [asdict(each) for each in phases],
    }


def describe(phases: list[Phase], options: argparse.Namespace) -> str:
    """The section of docs/performance.md."""
    rows = [
        [f"blob of {options.mib:,} MiB, {options.clients} clients at once", "peak of a worker, MB", "MB/s together"]
    ]
    total = options.clients * (options.mib << 20)
    rows += [[each.name, f"{each.peak / 1e6:.0f}", f"{total / each.seconds / 1e6:,.0f}"] for each in phases]
    command = f".venv/bin/python -P bench/memory.py --mib {options.mib} --clients {options.clients}"
    return report.section(
        rows,
        f"Budget: {BUDGET / 1e6:.0f} MB. Every client got the right SHA-256; computing it is part of the time. "
        f"Measured with `{command}` on {report.machine()}.",
    )


def main() -> None:
    parser = script.arguments(__doc__)
    parser.add_argument("--mib", type=int, default=4096, help="size of the blob (default: 4096)")
    parser.add_argument("--clients", type=int, default=4, help="how many pull at once (default: 4)")
    result = script.measured("memory", parser, run)
    sys.exit(any(each["peak"] > BUDGET for each in result["phases"]))


if __name__ == "__main__":
    main()
