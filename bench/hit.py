"""How fast is a hit? Entrepot, nginx and docker-registry serve the same image in turns; prints a Markdown table.

    .venv/bin/python -P bench/hit.py [--rounds 3] [--mib 1024] [--seconds 170] [--json FILE]

Needs Debian's packages nginx and docker-registry, better also wrk. Loopback only. Entrepot runs as users run it, with
one worker, has pulled the image from a registry that asks for a credential, and is asked with that credential. What
counts is work per second of server CPU: it does not depend on how fast the clients are. The server has one core and
everything else another. Writes bench/results/hit.json and the table in docs/performance.md; with --json, only FILE.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from bench import content, report, script, servers
from bench.loads import KEEP_ALIVE, Loads, Measurement
from bench.processes import Cores, family, peak_memory, started_on
from bench.servers import Entrepot, Server

SMALL_SECONDS = 2  # wrk takes whole seconds
NEW_SECONDS = 2.0
STARTS = 3
STARTED_POLL = 0.002  # seconds between attempts of the first client


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table."""

    key: str
    label: str
    unit: float  # what a number in the table stands for
    digits: int
    run: Callable[[Loads, Server], Measurement]
    budget: str = ""
    wall: bool = False
    """Whether the amount per second of time is shown as well: for what one connection more or less does not change."""


@dataclass(slots=True)
class Runs:
    """All that was measured, by measure and server, in the order of the rounds."""

    measured: dict[str, dict[str, list[Measurement]]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    ciphers: dict[str, str] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)

    def add(self, measure: Measure, server: Server, measurement: Measurement) -> None:
        self.measured.setdefault(measure.key, {}).setdefault(server.name, []).append(measurement)


def _requests(key: str, what: str, path: str) -> Measure:
    label = f"{what}, {KEEP_ALIVE} connections: requests"
    return Measure(key, label, 1, 0, lambda x, s: x.small(s, path, SMALL_SECONDS), "0.3 / 10", wall=True)


def measures(image: content.Image) -> list[Measure]:
    size, body = f"{image.size >> 20:,} MiB", f"{len(image.manifest):,} bytes"
    return [
        Measure("bulk-1", f"blob of {size}, 1 client: GB", 1e9, 2, lambda x, s: x.bulk(s, 1), "1.1 / 1.6"),
        Measure("bulk-4", f"blob of {size}, 4 clients: GB", 1e9, 2, lambda x, s: x.bulk(s, 4), "1.1 / 1.6"),
        _requests("digest", f"manifest of {body} by digest", image.by_digest),
        _requests("tag", "the same by tag", image.by_tag),
        Measure(
            "new",
            "the same, each on a new TLS 1.3 connection: requests",
            1,
            0,
            lambda x, s: x.new_connections(s, NEW_SECONDS),
            "0.5 / 2",
        ),
    ]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def upstream(directory: Path, image: content.Image, cores: Cores) -> Iterator[Server]:
    """The registry that Entrepot pulls from, with the image in it."""
    with started_on(cores.others), servers.registry(directory, directory / "storage", None) as server:
        content.push(image, server.port)
        yield server


def time_starts(entrepot: Entrepot, loads: Loads, image: content.Image, times: int) -> Iterator[float]:
    """Seconds from the command to the first answered pull of what is held; all cores."""
    for _ in range(times):
        begin = time.monotonic()
        with entrepot.running() as server:
            loads.clients([loads.task("bulk", server, image.by_digest)])
            yield time.monotonic() - begin


def rounds(options: argparse.Namespace, begin: float, turn: Callable[[int], None]) -> int:
    """As many rounds as asked for and as fit into the time. Returns how many."""
    longest = 0.0
    for number in range(options.rounds):
        before = time.monotonic()
        if number and before + 1.2 * longest - begin > options.seconds:
            say(f"stopping after {number} of {options.rounds} rounds: --seconds {options.seconds:g}")
            return number
        turn(number)
        longest = max(longest, time.monotonic() - before)
        say(f"round {number + 1} of {options.rounds}: {time.monotonic() - before:.0f} s")
    return int(options.rounds)


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    begin, cores, runs = time.monotonic(), Cores.split(), Runs()
    image = content.make(directory, options.mib)
    content.lay_out(image, directory / "www")
    trust, leaf = servers.certificates(directory)
    with ExitStack() as stack:
        origin = stack.enter_context(upstream(directory, image, cores))
        entrepot = Entrepot.install(directory, origin.port)
        loads = Loads(directory, cores, trust, image)
        with entrepot.running() as server:  # the cold pull
            trust.write_text(trust.read_text() + first_ca(entrepot, server))
            loads.verify(server)
        say(f"filled: {time.monotonic() - begin:.0f} s")
        runs.starts += time_starts(entrepot, loads, image, STARTS)
        with started_on(cores.server):
            compared = [
                stack.enter_context(entrepot.running()),
                stack.enter_context(servers.nginx(directory, directory / "www", leaf)),
                stack.enter_context(servers.registry(directory, directory / "storage", leaf)),
            ]
        for server in compared:
            runs.ciphers[server.name] = loads.verify(server)
        rows = measures(image)

        def turn(number: int) -> None:
            first = number % len(compared)
            for measure in rows:
                for server in (*compared[first:], *compared[:first]):
                    runs.add(measure, server, measure.run(loads, server))

        done = rounds(options, begin, turn)
        for server in compared:
            runs.memory[server.name] = max(peak_memory(pid) for pid in family(server.process.pid))
    return {
        "text": describe(rows, runs, loads, done, options),
        "rounds": done,
        "mib": options.mib,
        "machine": report.machine(),
        "versions": {**report.versions(), **peers(loads)},
        "start_seconds": runs.starts,
        "peak_memory": runs.memory,
        "ciphers": runs.ciphers,
        "measured": {
            key: {name: [asdict(one) for one in each] for name, each in by_server.items()}
            for key, by_server in runs.measured.items()
        },
    }


def first_ca(entrepot: Entrepot, server: Server) -> str:
    """The CA that the first start makes."""
    until = time.monotonic() + servers.START_SECONDS
    while not entrepot.ca.exists():
        if time.monotonic() > until or server.process.poll() is not None:
            raise RuntimeError(f"no CA in {entrepot.ca}:\n{server.log.read_text()[-2000:]}")
        time.sleep(STARTED_POLL)
    return entrepot.ca.read_text()


def peers(loads: Loads) -> dict[str, str]:
    found = {
        "nginx": servers.version([servers.program("nginx"), "-v"], r"nginx/(\S+)"),
        "docker-registry": servers.version([servers.program("docker-registry"), "--version"], r" (v?\d\S+)"),
    }
    if loads.wrk:
        found["wrk"] = servers.version([loads.wrk, "-v"], r"wrk \S*?(\d[\d.]*)")
    return found


def describe(rows: Sequence[Measure], runs: Runs, loads: Loads, done: int, options: argparse.Namespace) -> str:
    """The section of docs/performance.md."""
    names = ["Entrepot", "nginx", "docker-registry"]
    lines = [["per second of server CPU", *names, "x nginx", "x registry", "wanted: x nginx / x registry"]]
    for measure in rows:
        by_server = runs.measured[measure.key]
        values = {name: [one.per_cpu_second / measure.unit for one in each] for name, each in by_server.items()}
        ours, *others = values.values()
        cells = [report.spread(each, measure.digits) for each in values.values()]
        compared = [report.spread(report.ratios(ours, each), 2) for each in others]
        lines.append([measure.label, *cells, *compared, measure.budget])
        if measure.wall:
            walls = [report.spread([one.per_second for one in each]) for each in by_server.values()]
            lines.append(["... per second of time", *walls, "", "", ""])
    memory = [f"{each / 1e6:.0f}" for each in runs.memory.values()]
    lines.append(["peak memory of the largest process, MB", *memory, "", "", "at most 150"])
    starts = [report.spread(runs.starts, 2), "", "", "", "", "at most 2"]
    lines.append(["from `up` to the first answered pull of what is held, seconds", *starts])
    used = ", ".join(f"{name} {version}" for name, version in {**report.versions(), **peers(loads)}.items())
    suites = ", ".join(f"{name} {cipher}" for name, cipher in runs.ciphers.items())
    return report.section(
        lines,
        f"Median (least - most) of {done} rounds; ratios are made within a round. Measured with "
        f"`.venv/bin/python -P bench/hit.py --rounds {options.rounds} --mib {options.mib}` on {report.machine()}.",
        f"Small requests by {'wrk' if loads.wrk else 'bench/clients.py (wrk is not installed)'}. Versions: {used}.",
        f"Negotiated: {suites}.",
    )


def main() -> None:
    parser = script.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="each server in turn, every round (default: 3)")
    parser.add_argument("--mib", type=int, default=1024, help="size of the blob (default: 1024)")
    parser.add_argument(
        "--seconds", type=float, default=170.0, help="no round begins that would end later (default: 170)"
    )
    script.measured("hit", parser, run)


if __name__ == "__main__":
    main()
