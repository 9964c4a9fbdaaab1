"""How good is a miss? Real clients pull, through Entrepot and past it, what it does not hold; prints a Markdown table.

    .venv/bin/python -P bench/fill.py [herd|single|ingest|image|blob|follower ...] [--quick] [--json FILE]

Needs root and the packages of tests/lab/packages.txt, better also linux-perf. Everything runs in network namespaces of
its own: Entrepot as users start it, with two workers; nginx as the registry; a machine whose clients use Entrepot's DNS
and trust its CA; one whose clients do not and go the same way. Rates are tc's (tbf) or, per connection, nginx's; delays
are bench/delay_line.py's. Writes bench/results/fill.json, the parts that ran, and the table in docs/performance.md;
with --json only FILE, with --quick neither. Ends with status 1 when a target is missed.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder there is called `dns`

from bench import report, servers
from bench.fill_parts import PARTS, QUICK, Sizes
from bench.fill_shapes import Row
from bench.fill_world import WORKERS, world

FILE: Final = report.RESULTS / "fill.json"
MEMORY: Final = 150 * 10**6  # bytes of one process
WITHOUT: Final = frozenset({"follower"})  # parts that do not ask the product that runs


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(names: list[str], sizes: Sizes, folder: Path) -> dict[str, Any]:
    """What each part found, as the file has it."""
    found: dict[str, Any] = {}
    with world(folder) as made:
        for name in names:
            begin = time.monotonic()
            with made.product.peaks() as peaks:
                part = PARTS[name](made, sizes)
            part.peak_memory = peaks if name not in WITHOUT else {}
            found[name] = {**asdict(part), "sizes": asdict(sizes), "on": report.machine(), "versions": versions()}
            say(f"{name}: {time.monotonic() - begin:.0f} s")
            say(describe({name: found[name]}))
    return found


def versions() -> dict[str, str]:
    return {
        **report.versions(),
        "nginx": servers.version([servers.program("nginx"), "-v"], r"nginx/(\S+)"),
        "curl": servers.version(["curl", "--version"], r"curl (\S+)"),
        "skopeo": servers.version(["skopeo", "--version"], r"version (\S+)"),
        "docker": servers.version(["docker", "--version"], r"version ([^\s,]+)"),
        "tcp": Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip(),
    }


def describe(found: Mapping[str, Any]) -> str:
    """The section of docs/performance.md."""
    rows = [["", "Entrepot", "compared with", "", "ratio", "wanted", "met"]]
    for part in found.values():
        for row in (Row(**each) for each in part["rows"]):
            met = {None: "", True: "yes", False: "**no**"}[row.met]
            rows.append([row.what, row.ours, row.peer, row.theirs, row.ratio, row.wanted, met])
    notes = [note for part in found.values() for note in part["notes"]]
    grounds = sorted({_grounds(part) for part in found.values()})
    return "\n\n".join([report.table(rows), *_memory(found), *notes, *grounds])


def _memory(found: Mapping[str, Any]) -> list[str]:
    peaks = {name: part["peak_memory"] for name, part in found.items() if part["peak_memory"]}
    if not peaks:
        return []
    rows = [["peak memory of the largest process, MB", *peaks]]
    kinds = dict.fromkeys(kind for each in peaks.values() for kind in each)
    rows += [[kind, *(f"{each[kind] / 1e6:.0f}" if kind in each else "" for each in peaks.values())] for kind in kinds]
    return [report.table(rows), f"Budget for the memory of a process: {MEMORY / 1e6:.0f} MB."]


def _grounds(part: Mapping[str, Any]) -> str:
    used = ", ".join(f"{name} {version}" for name, version in part["versions"].items() if name != "tcp")
    return (
        "Median (least - most); a ratio is made within a round. Measured with `.venv/bin/python -P bench/fill.py` on "
        f"{part['on']}. Versions: {used}. TCP with {part['versions']['tcp']}, {WORKERS} workers."
    )


def missed(found: Mapping[str, Any]) -> list[str]:
    """Targets."""
    rows = [row["what"] for part in found.values() for row in part["rows"] if row["met"] is False]
    return rows + [
        f"memory in {name}" for name, part in found.items() if max(part["peak_memory"].values(), default=0) > MEMORY
    ]


def ordered(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in PARTS if name in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and one round: does it work?")
    parser.add_argument("--json", type=Path, help="write the numbers there, and leave docs/performance.md alone")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("needs root: it makes network namespaces")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what has been started is stopped
    with tempfile.TemporaryDirectory(prefix="entrepot-bench-") as directory:
        os.chmod(directory, 0o755)  # noqa: PTH101  # servers may be somebody else
        found = run(options.parts or list(PARTS), QUICK if options.quick else Sizes(), Path(directory))
    print(describe(ordered(found)))
    if options.json is not None:
        report.save(options.json, found)
    elif not options.quick:
        before = json.loads(FILE.read_text()) if FILE.exists() else {}
        everything = ordered({**before, **found})
        report.save(FILE, everything)
        report.replace_section("fill", describe(everything))
    for what in missed(found):
        say(f"missed: {what}")
    sys.exit(bool(missed(found)))


if __name__ == "__main__":
    main()
