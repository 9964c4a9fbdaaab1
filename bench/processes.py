"""What the processes of a server have used, from /proc; and on which core they run.

Decides nothing. CPU seconds count every thread, also those that have ended; a process that came or went between two
readings makes them incomparable, which `Usage.since` refuses.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by process."""

    seconds: dict[int, float]

    def since(self, before: "Usage") -> float:
        """CPU seconds of all processes together. Raises RuntimeError when they are not the same ones."""
        if self.seconds.keys() != before.seconds.keys():
            raise RuntimeError(f"processes came or went: {sorted(before.seconds)}, then {sorted(self.seconds)}")
        return sum(self.seconds.values()) - sum(before.seconds.values())


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))) is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def usage(pid: int) -> Usage:
    """Of a process and its descendants, as of now."""
    return Usage({each: _cpu(each) for each in family(pid)})


def peak_memory(pid: int) -> int:
    """Bytes of memory (`VmHWM`) that one process has had at most."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return 0


def forget_peak(pid: int) -> None:
    """`peak_memory` begins anew (proc(5), clear_refs)."""
    (PROC / str(pid) / "clear_refs").write_text("5")


def _stat(pid: int) -> list[str] | None:
    """The fields from `state` on (proc(5)); None when it has ended."""
    try:
        return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) * TICK if fields else 0.0


@dataclass(frozen=True, slots=True)
class Cores:
    """The server has one core for itself where there are two; everything else is on the others."""

    server: frozenset[int]
    others: frozenset[int]

    @classmethod
    def split(cls) -> "Cores":
        mine = sorted(os.sched_getaffinity(0))
        if len(mine) < 2:
            return cls(frozenset(mine), frozenset(mine))
        return cls(frozenset(mine[:1]), frozenset(mine[1:]))

    @property
    def all(self) -> frozenset[int]:
        return self.server | self.others


@contextmanager
def started_on(cores: Iterable[int]) -> Iterator[None]:
    """What is started inside runs on these cores; ourselves as well, meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
