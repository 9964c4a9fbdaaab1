"""The asking side of the benchmarks: the same cheap client for every server, each in a process of its own.

Run by the benchmarks, with one argument (a `Task` as JSON). Imports nothing but the standard library, prints `ready`,
waits for a line on standard input, does its task, prints what came of it as one line of JSON.
"""

import hashlib
import json
import socket
import ssl
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any, Literal

BUFFER = 256 << 10  # bytes; OpenSSL gives at most a record of 16 KiB at once
TIMEOUT = 120.0  # seconds without a byte


@dataclass(frozen=True, slots=True)
class Task:
    """What to ask, of whom."""

    kind: Literal["bulk", "small", "new"]
    """`bulk`: `path` once, to its end. `small`: `path` again and again, on `connections` connections that stay open.
    `new`: `path` again and again, each time on a new TLS 1.3 connection."""
    port: int
    path: str
    name: str
    trust: str
    """File of the authorities that are trusted; "" = no check: the handshake is the server's cost to be measured."""
    fields: dict[str, str]
    seconds: float = 0.0
    """How long, for `small` and `new`."""
    connections: int = 1
    verify: bool = False
    """Whether `bulk` computes the SHA-256."""

    def encode(self) -> str:
        return json.dumps(asdict(self))


class Answers:
    """Requests on one connection and their answers."""

    def __init__(self, task: Task, context: ssl.SSLContext) -> None:
        plain = socket.create_connection(("127.0.0.1", task.port), TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(plain, server_hostname=task.name)
        lines = [f"GET {task.path} HTTP/1.1", f"Host: {task.name}", *(f"{k}: {v}" for k, v in task.fields.items())]
        if task.kind != "small":
            lines.append("Connection: close")
        self._request = "\r\n".join([*lines, "", ""]).encode()
        self._buffer = memoryview(bytearray(BUFFER))

    def ask(self) -> None:
        self.tls.sendall(self._request)

    def head(self) -> tuple[int, memoryview]:
        """Content-Length, and what has come of the body. Raises RuntimeError unless the answer is a 200."""
        have = 0
        while (end := bytes(self._buffer[:have]).find(b"\r\n\r\n")) < 0:
            n = self.tls.recv_into(self._buffer[have:])
            if n == 0:
                raise RuntimeError(f"closed after {bytes(self._buffer[:have])!r}")
            have += n
        status, *fields = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        if " 200 " not in f"{status} ":
            raise RuntimeError(f"{status}: {bytes(self._buffer[:have])!r}")
        lengths = [value for name, _, value in (f.partition(":") for f in fields) if name.lower() == "content-length"]
        return int(lengths[0]), self._buffer[end + 4 : have]

    def answer(self, hasher: Any = None) -> int:
        """Reads one answer. Returns the length of its body."""
        length, first = self.head()
        if hasher is not None:
            hasher.update(first)
        left = length - len(first)
        buffer, receive = self._buffer, self.tls.recv_into
        while left:
            n = receive(buffer[:left] if left < BUFFER else buffer)
            if n == 0:
                raise RuntimeError(f"closed {left} bytes before the end")
            left -= n
            if hasher is not None:
                hasher.update(buffer[:n])
        return length


def bulk(task: Task, context: ssl.SSLContext) -> dict[str, object]:
    """One large answer."""
    hasher = hashlib.sha256() if task.verify else None
    connection = Answers(task, context)
    connection.ask()
    size = connection.answer(hasher)
    with connection.tls as tls:
        cipher = tls.cipher()
        protocol = tls.version()
    digest = f"sha256:{hasher.hexdigest()}" if hasher else ""
    return {"bytes": size, "digest": digest, "cipher": cipher[0] if cipher else "", "protocol": protocol}


def small(task: Task, context: ssl.SSLContext) -> dict[str, object]:
    """All connections ask, then all answers are read: as many requests are under way as there are connections."""
    connections = [Answers(task, context) for _ in range(task.connections)]
    done, until = 0, time.monotonic() + task.seconds
    while time.monotonic() < until:
        for connection in connections:
            connection.ask()
        for connection in connections:
            connection.answer()
        done += len(connections)
    return {"requests": done}


def new(task: Task, context: ssl.SSLContext) -> dict[str, object]:
    """A connection for every request."""
    done, until = 0, time.monotonic() + task.seconds
    while time.monotonic() < until:
        connection = Answers(task, context)
        connection.ask()
        connection.answer()
        connection.tls.close()
        done += 1
    return {"requests": done}


def main() -> None:
    task = Task(**json.loads(sys.argv[1]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if task.trust:
        context.load_verify_locations(task.trust)
    else:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if task.kind == "new":
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    result = {"bulk": bulk, "small": small, "new": new}[task.kind](task, context)
    print(json.dumps({**result, "seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    main()
