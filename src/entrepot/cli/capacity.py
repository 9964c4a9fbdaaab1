"""How much of the box we may use, and what we leave on it: cores, descriptors, no core dumps."""

import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

CPU_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2, as a container sees its own


def worker_count(wanted: int, quota: Path = CPU_QUOTA) -> int:
    """`wanted`, or for 0 one per core we may use; a container with two of 64 cores' time has two."""
    if wanted:
        return wanted
    cores = len(os.sched_getaffinity(0))
    try:
        text = quota.read_text(encoding="ascii")
    except OSError:
        return cores
    match text.split():
        case [share, period] if share.isdigit() and period.isdigit() and int(period):
            return max(1, min(cores, -(-int(share) // int(period))))
        case _:  # "max 100000"
            return cores


def raise_file_limit() -> None:
    """A connection is a descriptor, and the usual soft limit of 1024 is for programs that use select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def leave_no_core() -> None:
    """A dump of any of our processes would hold keys, passwords and tokens. Children inherit it."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
