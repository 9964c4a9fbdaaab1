"""Puts load on a server and reads what it cost: clients in processes of their own, CPU seconds of the server.

Decides how many clients there are and what they offer in the handshake. Which servers, how often and in which order
is decided by the benchmarks.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.clients import Task
from bench.content import AUTHORIZATION, MANIFEST_TYPE, Image
from bench.processes import Cores, started_on, usage
from bench.servers import NAME, Server

CLIENTS = Path(__file__).with_name("clients.py")
KEEP_ALIVE = 16  # connections
CONNECTING = 4  # clients that open connections one after the other

# Container clients are written in Go, which offers AES-128 first where the processor has instructions for AES; OpenSSL
# would offer AES-256 first. Whose order counts is up to the server.
OPENSSL = """
openssl_conf = all
[all]
ssl_conf = modules
[modules]
system_default = tls
[tls]
Ciphersuites = TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256
"""

# Connects to loopback whatever the name is, and says in JSON what came of it.
WRK = """
function wrk.resolve(host, service)
  wrk.addrs = wrk.lookup("127.0.0.1", service)
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests": %d, "microseconds": %d, "errors": %d}\\n', summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a load was served with."""

    amount: float  # bytes or requests
    cpu: float  # seconds of all processes of the server
    wall: float  # seconds

    @property
    def per_cpu_second(self) -> float:
        return self.amount / self.cpu

    @property
    def per_second(self) -> float:
        return self.amount / self.wall


class Loads:
    """Every kind of load, for one image."""

    def __init__(self, directory: Path, cores: Cores, trust: Path, image: Image) -> None:
        self._cores, self._trust, self._image = cores, trust, image
        openssl, self._script = directory / "openssl.cnf", directory / "wrk.lua"
        openssl.write_text(OPENSSL)
        self._script.write_text(WRK)
        self._environ = {**os.environ, "OPENSSL_CONF": str(openssl)}
        self.wrk = shutil.which("wrk")

    def task(self, kind: Any, server: Server, path: str) -> Task:
        fields = {"Authorization": AUTHORIZATION, "Accept": MANIFEST_TYPE, "User-Agent": "bench"}
        return Task(kind, server.port, path, NAME, "", fields)

    def verify(self, server: Server) -> str:
        """Pulls both manifests and the large layer, checks certificate and bytes. Returns protocol and cipher."""
        for path in (self._image.by_digest, self._image.by_tag):
            self.pull(server, path, self._image.manifest_digest)
        (result,) = self.pull(server, self._image.blob_path, self._image.digest)
        return f"{result['protocol']} {result['cipher']}"

    def pull(self, server: Server, path: str, digest: str, clients: int = 1) -> list[dict[str, Any]]:
        """By so many clients at once, each of which checks certificate and bytes. Raises RuntimeError."""
        task = replace(self.task("bulk", server, path), trust=str(self._trust), verify=True)
        results, _ = self.clients([task] * clients)
        for result in results:
            if result["digest"] != digest:
                raise RuntimeError(f"{server.name}: {path}: got {result['digest']} instead of {digest}")
        return results

    def bulk(self, server: Server, clients: int) -> Measurement:
        """The large layer, to all clients at once."""
        results, cpu = self.clients([self.task("bulk", server, self._image.blob_path)] * clients, server)
        total = sum(result["bytes"] for result in results)
        if total != clients * self._image.size:
            raise RuntimeError(f"{server.name}: {total} bytes instead of {clients * self._image.size}")
        return Measurement(total, cpu, max(result["seconds"] for result in results))

    def small(self, server: Server, path: str, seconds: float) -> Measurement:
        """`path` on connections that are kept open."""
        if self.wrk:
            return self._small_by_wrk(self.wrk, server, path, seconds)
        task = replace(self.task("small", server, path), seconds=seconds, connections=KEEP_ALIVE)
        (result,), cpu = self.clients([task], server)
        return Measurement(result["requests"], cpu, result["seconds"])

    def new_connections(self, server: Server, seconds: float) -> Measurement:
        """The manifest, each time on a new TLS 1.3 connection."""
        task = replace(self.task("new", server, self._image.by_digest), seconds=seconds)
        results, cpu = self.clients([task] * CONNECTING, server)
        total = sum(result["requests"] for result in results)
        return Measurement(total, cpu, max(result["seconds"] for result in results))

    def clients(self, tasks: Sequence[Task], server: Server | None = None) -> tuple[list[dict[str, Any]], float]:
        """Runs all tasks at once. Returns what came of each and the CPU seconds of `server`."""
        with ExitStack() as stack:
            processes: list[subprocess.Popen[str]] = []
            for task in tasks:
                command = [sys.executable, "-I", str(CLIENTS), task.encode()]
                processes.append(stack.enter_context(self._popen(command, stdin=subprocess.PIPE)))
                stack.callback(processes[-1].kill)
            for process in processes:
                assert process.stdout is not None
                process.stdout.readline()
            return _measured(server, lambda: [self._result(process) for process in _let_go(processes)])

    def _result(self, process: "subprocess.Popen[str]") -> dict[str, Any]:
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError("a client has failed, see above")
        result: dict[str, Any] = json.loads(output)
        return result

    def _small_by_wrk(self, wrk: str, server: Server, path: str, seconds: float) -> Measurement:
        task = self.task("small", server, path)
        fields = [word for name, value in task.fields.items() for word in ("-H", f"{name}: {value}")]
        url = f"https://{NAME}:{server.port}{path}"
        command = [wrk, "-t1", f"-c{KEEP_ALIVE}", f"-d{seconds:g}s", "-s", str(self._script), *fields, url]

        def run() -> str:
            with self._popen(command) as process:
                return process.communicate()[0]

        output, cpu = _measured(server, run)
        result = json.loads(output.splitlines()[-1])
        if result["errors"] or not result["requests"]:
            raise RuntimeError(f"{server.name}: {output}")
        return Measurement(result["requests"], cpu, result["microseconds"] / 1e6)

    def _popen(self, command: Sequence[str], stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[str]":
        with started_on(self._cores.others):
            return subprocess.Popen(command, env=self._environ, stdin=stdin, stdout=subprocess.PIPE, text=True)


def _let_go(processes: "Sequence[subprocess.Popen[str]]") -> "Sequence[subprocess.Popen[str]]":
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


def _measured[T](server: Server | None, work: Callable[[], T]) -> tuple[T, float]:
    if server is None:
        return work(), 0.0
    before = usage(server.process.pid)
    result = work()
    return result, usage(server.process.pid).since(before)
