"""What the access rules cost: hot manifests from Entrepot, and from Entrepot with an engine that lets everybody in.

    .venv/bin/python -P bench/rules.py [--rounds 5] [--json FILE]

Needs docker-registry, better also wrk. Both run as users run them, with one worker, on one store, and are asked in
turns, with a credential the registry has accepted. Writes bench/results/rules.json and the table in
docs/performance.md; with --json, only FILE.
"""

import argparse
import re
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from bench import content, report, script, servers
from bench.hit import first_ca, say, upstream
from bench.loads import KEEP_ALIVE, Loads, Measurement
from bench.processes import Cores, started_on
from bench.servers import Entrepot, Server

SECONDS = 3  # wrk takes whole seconds
WANTED = 0.9
ALLOW_ALL = "everybody let in"


def twin(entrepot: Entrepot) -> Server:
    """The same installation with the other engine; on a port of its own."""
    here = entrepot.directory / "allow-all"
    here.mkdir()
    port = servers.free_port()
    text = (entrepot.directory / "entrepot.toml").read_text()
    text = re.sub(r"^https = .*$", f"https = {port}", text, flags=re.MULTILINE)
    text = re.sub(r"^dns = .*$", f"dns = {servers.free_port()}", text, flags=re.MULTILINE)
    (here / "entrepot.toml").write_text(text)
    program = str(Path(__file__).with_name("allow_all.py"))
    command = [sys.executable, "-P", program, "up", "--config", str(here / "entrepot.toml")]
    return servers.start(ALLOW_ALL, command, port, here)


def run(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    cores = Cores.split()
    image = content.make(directory, 1)
    trust, _ = servers.certificates(directory)
    measured: dict[str, dict[str, list[Measurement]]] = {}
    with ExitStack() as stack:
        origin = stack.enter_context(upstream(directory, image, cores))
        entrepot = Entrepot.install(directory, origin.port)
        loads = Loads(directory, cores, trust, image)
        with started_on(cores.server):
            ours = stack.enter_context(entrepot.running())
            trust.write_text(trust.read_text() + first_ca(entrepot, ours))
            theirs = stack.enter_context(servers.running(twin(entrepot)))
        for server in (ours, theirs):
            loads.verify(server)
        for number in range(options.rounds):
            for key, path in (("tag", image.by_tag), ("digest", image.by_digest)):
                for server in (ours, theirs) if number % 2 else (theirs, ours):
                    one = loads.small(server, path, SECONDS)
                    measured.setdefault(key, {}).setdefault(server.name, []).append(one)
            say(f"round {number + 1} of {options.rounds}")
    return {
        "text": describe(measured, options.rounds),
        "machine": report.machine(),
        "versions": report.versions(),
        "measured": {
            key: {name: [asdict(one) for one in each] for name, each in by.items()} for key, by in measured.items()
        },
    }


def describe(measured: dict[str, dict[str, list[Measurement]]], rounds: int) -> str:
    lines = [["requests per second of server CPU", "Entrepot", ALLOW_ALL, "ratio", "wanted"]]
    for key, label in (("tag", "hot manifest by tag"), ("digest", "hot manifest by digest")):
        ours, theirs = ([one.per_cpu_second for one in measured[key][name]] for name in ("Entrepot", ALLOW_ALL))
        ratio = report.spread(report.ratios(ours, theirs), 2)
        lines.append([label, report.spread(ours), report.spread(theirs), ratio, f"at least {WANTED}"])
    return report.section(
        lines,
        f"Median (least - most) of {rounds} rounds over {KEEP_ALIVE} connections; ratios are made within a round. "
        f"Measured with `.venv/bin/python -P bench/rules.py --rounds {rounds}` on {report.machine()}.",
    )


def main() -> None:
    parser = script.arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="both in turn, every round (default: 5)")
    script.measured("rules", parser, run)


if __name__ == "__main__":
    main()
