"""Which HTTP client should fetch from registries? Measures them on this machine and prints a Markdown table.

    python bench/upstream_clients.py [--rounds 3] [--mebibytes 1024] [--only NAME ...] [--json FILE]

Needs Debian's nginx. Compares whatever of the candidates is importable and says what is missing; install the
others into a virtual environment that is thrown away. Every measurement is a process of its own; clients take
turns and medians are reported. CPU seconds are the client's alone. Loopback only.
"""

import argparse
import asyncio
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # last: a folder here is called `dns`

from bench.upstream_clients_adapters import ADAPTERS, MODULES, Setup
from bench.upstream_clients_probes import HOSTS, NAME, PROBES, authority

SMALL_REQUESTS = 2000
CONCURRENCY = 16
NEW_CONNECTIONS = 200
PROBE_SECONDS = 15
TICK = 0.002
"""Seconds. The event loop's stall is how much longer than this a sleep of it took at worst."""

CONFIGURATION = """
worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/error.log; daemon off;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000; default_type text/plain;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u;
  scgi_temp_path {dir}/s;
  server {{
    listen 127.0.0.1:{port} ssl; server_name {name}; root {dir}/www;
    ssl_certificate {leaf}; ssl_certificate_key {leaf}; ssl_protocols TLSv1.3;
  }}
}}
"""


@contextmanager
def nginx(directory: Path, leaf: Path, mebibytes: int) -> Iterator[int]:
    """Serves `big` and `small` over TLS 1.3 on a free port."""
    www = directory / "www"
    www.mkdir()
    with (www / "big").open("wb") as file:
        file.truncate(mebibytes << 20)
    (www / "small").write_bytes(b"m" * 1500)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    for path in (directory, www, www / "big", www / "small"):
        path.chmod(0o755)
    file_name = directory / "nginx.conf"
    file_name.write_text(CONFIGURATION.format(dir=directory, port=port, name=NAME, leaf=leaf))
    process = subprocess.Popen([shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(file_name)])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            raise SystemExit("nginx does not answer")
        yield port
    finally:
        process.terminate()
        process.wait()


async def _stall(worst: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(TICK)
        worst[0] = max(worst[0], time.perf_counter() - before - TICK)


def peak_kib() -> int:
    """Peak memory of this process; `ru_maxrss` would begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


async def measure(name: str, task: str, url: str, ca: Path, mebibytes: int) -> dict[str, float]:
    """One client, one task, in this process."""
    client = ADAPTERS[name](Setup(ca=ca, hosts=HOSTS, keep_alive=task != "connect"))
    sink: list[int] = [0]

    def count(piece: bytes) -> None:
        sink[0] += len(piece)

    await client.fetch(f"{url}/small", [], count)
    sink[0] = 0
    worst = [0.0]
    watch = asyncio.ensure_future(_stall(worst))
    memory = peak_kib()
    wall, cpu = time.perf_counter(), time.process_time()
    if task in {"bulk", "hash"}:
        digest = hashlib.sha256()

        def hashing(piece: bytes) -> None:
            digest.update(piece)
            sink[0] += len(piece)

        await client.fetch(f"{url}/big", [], hashing if task == "hash" else count)
        expected = mebibytes << 20
    elif task == "small":

        async def some() -> None:
            for _ in range(SMALL_REQUESTS // CONCURRENCY):
                await client.fetch(f"{url}/small", [("Accept", "*/*")], count)

        await asyncio.gather(*(some() for _ in range(CONCURRENCY)))
        expected = 1500 * SMALL_REQUESTS
    else:
        for _ in range(NEW_CONNECTIONS):
            await client.fetch(f"{url}/small", [], count)
        expected = 1500 * NEW_CONNECTIONS
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = peak_kib()
    watch.cancel()
    await client.aclose()
    if sink[0] != expected:
        raise SystemExit(f"{name} {task}: {sink[0]} bytes instead of {expected}")
    return {"wall": wall, "cpu": cpu, "growth": (peak - memory) / 1024, "peak": peak / 1024, "stall": worst[0] * 1000}


async def probe(name: str, label: str, directory: Path) -> str:
    """One requirement, tried with one client."""
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    try:
        return await asyncio.wait_for(PROBES[label](ADAPTERS[name], directory), PROBE_SECONDS)
    except Exception as error:  # a client's own kinds
        print(f"{label}: {error!r}"[:300], file=sys.stderr)
        return f"NO: {type(error).__name__}"


def child(arguments: list[str], seconds: float) -> Any:
    """What one measurement in a fresh process gives; None when it crashes or hangs."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        print(f"{arguments[:2]}: hangs", file=sys.stderr)
        return None
    if done.stderr:
        print(f"{arguments[:2]}: {done.stderr[-600:].strip()}", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def run_child(arguments: list[str]) -> None:
    name, task, *rest = arguments
    if task in PROBES:
        print(json.dumps(asyncio.run(probe(name, task, Path(rest[0])))), flush=True)
    else:
        print(json.dumps(asyncio.run(measure(name, task, rest[0], Path(rest[1]), int(rest[2])))), flush=True)
    os._exit(0)  # a client that hangs or crashes on its way out (pyreqwest 0.15.1 does) has answered all the same


def version(name: str) -> str:
    found = []
    for module in MODULES[name]:
        try:
            found.append(importlib.metadata.version(module))
        except importlib.metadata.PackageNotFoundError:
            found.append("?")
    return ", ".join(found)


def table(rows: dict[str, dict[str, Any]], mebibytes: int) -> str:
    """The results as Markdown."""
    gib = mebibytes / 1024
    lines = [
        "| client | bulk: CPU s/GiB | MiB/s | with sha256: CPU s/GiB | MiB/s | peak MiB (growth) | worst stall ms "
        "| small: requests per CPU s | ms CPU per new connection |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        bulk, hashed, small, new = row["bulk"], row["hash"], row["small"], row["connect"]
        cells = [
            f"{name} {row['version']}",
            f"{bulk['cpu'] / gib:.2f}",
            f"{mebibytes / bulk['wall']:.0f}",
            f"{hashed['cpu'] / gib:.2f}",
            f"{mebibytes / hashed['wall']:.0f}",
            f"{bulk['peak']:.0f} (+{bulk['growth']:.0f})",
            f"{bulk['stall']:.0f}",
            f"{SMALL_REQUESTS / small['cpu']:.0f}",
            f"{new['cpu'] / NEW_CONNECTIONS * 1000:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| must | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for label in PROBES:
        lines.append(f"| {label} | " + " | ".join(row["probes"].get(label, "?") for row in rows.values()) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path, default=Path(__file__).parent / "results" / "upstream_clients.json")
    options = parser.parse_args()
    names = []
    for name in options.only or ADAPTERS:
        missing = [module for module in MODULES[name] if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name}: missing {', '.join(missing)}", file=sys.stderr)
        else:
            names.append(name)
    tasks = ("bulk", "hash", "small", "connect")
    runs: dict[tuple[str, str], list[dict[str, float]]] = {(name, task): [] for name in names for task in tasks}
    with tempfile.TemporaryDirectory() as text:
        directory = Path(text)
        ca, leaf = authority(directory, "nginx")
        rows: dict[str, dict[str, Any]] = {name: {"version": version(name)} for name in names}
        for name in names:
            rows[name]["probes"] = {
                label: child([name, label, str(directory)], PROBE_SECONDS + 5) or "NO: crashes" for label in PROBES
            }
        with nginx(directory, leaf, options.mebibytes) as port:
            for turn in range(options.rounds):
                for task in tasks:
                    for name in names[turn:] + names[:turn]:
                        url = f"https://{NAME}:{port}"
                        if result := child([name, task, url, str(ca), str(options.mebibytes)], 120):
                            runs[name, task].append(result)
                print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)
    empty = dict.fromkeys(("wall", "cpu", "growth", "peak", "stall"), float("nan"))
    for name in names:
        for task in tasks:
            kept = runs[name, task]
            rows[name][task] = {key: statistics.median(run[key] for run in kept) for key in empty} if kept else empty
    report = {
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "machine": platform.machine(),
        "rounds": options.rounds,
        "mebibytes": options.mebibytes,
        "clients": rows,
        "runs": {f"{name} {task}": kept for (name, task), kept in runs.items()},
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n")
    print(table(rows, options.mebibytes))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        run_child(sys.argv[2:])
    else:
        main()
