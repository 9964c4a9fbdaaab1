"""Where the time of a fill goes: what its parts cost alone, and which library a worker is in, by `perf` if it is there.

`perf` (Debian: linux-perf) samples from outside and slows a worker by next to nothing. It tells threads apart: the
first one talks to upstream, the others hash and write.
"""

import hashlib
import os
import re
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Final, cast

PIECE: Final = 256 << 10  # bytes, as much as one read gives
TOTAL: Final = 128 << 20  # bytes
TIMES: Final = 3
HERTZ: Final = 1999
PERF_SECONDS: Final = 60.0

# Library of a sample, by a pattern of its file's name.
KINDS: Final = (
    (r"\[kernel|\[guest|\[k\]|\.ko\b", "kernel"),
    (r"libcrypto|libssl", "OpenSSL"),
    (r"^python3|libpython", "Python"),
    (r"^libc[.-]|ld-linux|\[vdso\]", "C library"),
)
OTHER: Final = "extension modules"
MAIN, DISK = "event loop", "disk threads"


def bare(folder: Path, leaf: tuple[Path, Path]) -> dict[str, float]:
    """CPU seconds per GB (10^9 bytes) of the parts that no fill is without, each alone, the least of several times."""
    data = os.urandom(PIECE)
    return {
        f"{MAIN}: OpenSSL": min(_decryption(data, leaf) for _ in range(TIMES)),
        f"{DISK}: OpenSSL": min(_hashing(data) for _ in range(TIMES)),
        f"{DISK}: kernel": min(_writing(data, folder / "bare") for _ in range(TIMES)),
    }


def _per_gb(work: Callable[[], None], pieces: int = TOTAL // PIECE) -> float:
    begin = time.thread_time()
    for _ in range(pieces):
        work()
    return (time.thread_time() - begin) / (pieces * PIECE) * 1e9


def _hashing(data: bytes) -> float:
    hasher = hashlib.sha256()
    return _per_gb(lambda: hasher.update(data))


def _writing(data: bytes, path: Path) -> float:
    """Into the page cache of the file system that the store is on; a new file."""
    with path.open("wb", buffering=0) as file:
        cost = _per_gb(lambda: _all(file.write(data)))
    path.unlink()
    return cost


def _all(written: int | None) -> None:
    if written != PIECE:
        raise RuntimeError(f"{written} of {PIECE} bytes were written")


def _decryption(data: bytes, leaf: tuple[Path, Path]) -> float:
    """The reading side of TLS 1.3 between two buffers in memory."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(*leaf)
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname, client_context.verify_mode = False, ssl.CERT_NONE
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(there, back)
    server = server_context.wrap_bio(back, there, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    buffer, spent, pieces = bytearray(PIECE), 0.0, TOTAL // PIECE
    for _ in range(pieces):
        server.write(data)
        begin, left = time.thread_time(), PIECE
        while left:
            left -= cast("int", client.read(left, buffer))  # into a buffer: how much
        spent += time.thread_time() - begin
    return spent / (pieces * PIECE) * 1e9


def profile(folder: Path, pids: Sequence[int], work: Callable[[], object]) -> dict[str, float] | None:
    """The share of each kind of library in the CPU time that `pids` spend on `work`; None without perf."""
    if shutil.which("perf") is None:
        return None
    data = folder / "perf.data"
    order, orders = os.pipe()
    says, said = os.pipe()
    options = ["-q", "-e", "cpu-clock", "-F", str(HERTZ), "-o", str(data), "-p", ",".join(map(str, pids))]
    command = ["perf", "record", *options, "-D", "-1", "--control", f"fd:{order},{said}"]
    with subprocess.Popen(command, pass_fds=(order, said), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as perf:
        try:
            for descriptor in (order, said):
                os.close(descriptor)
            os.write(orders, b"enable\n")
            if not os.read(says, 16).startswith(b"ack"):
                return None  # not allowed here
            work()
            os.write(orders, b"stop\n")
            perf.wait(PERF_SECONDS)
        finally:
            perf.kill()
            os.close(orders)
            os.close(says)
    report = ["perf", "report", "-i", str(data), "--stdio", "-q", "--no-children", "-g", "none", "--sort", "pid,dso"]
    done = subprocess.run(report, capture_output=True, text=True, check=True)
    data.unlink()
    return shares(done.stdout, pids)


LINE: Final = re.compile(r"\s*([\d.]+)%\s+(\d+):.*?\s+(\S+)\s*$")


def shares(report: str, pids: Collection[int]) -> dict[str, float]:
    """Of the lines `perf report` prints; what it calls pid is a thread's, and a process' first thread has its pid."""
    found: dict[str, float] = {}
    for line in report.splitlines():
        if (match := LINE.match(line)) is not None:
            share, thread, file = match.groups()
            kind = next((name for pattern, name in KINDS if re.search(pattern, file)), OTHER)
            key = f"{MAIN if int(thread) in pids else DISK}: {kind}"
            found[key] = found.get(key, 0.0) + float(share) / 100
    return found
