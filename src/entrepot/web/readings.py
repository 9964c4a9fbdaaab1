"""What the processes of the box write down about themselves, read and added up. Blocking, and quick.

Every place among the processes has a file `<store>/run/<role>-<index>.json`: counts, which only grow while
`entrepot up` runs (see `entrepot.counters`), and states. What registries say of our quotas is a state, which the
process that has heard last knows best.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from entrepot.counters import STATES

_NAME: Final = re.compile(r"([a-z]+)-(\d+)\.json")
_QUOTA: Final = re.compile(r"quota_(.+)_(limit|remaining|reset|paused|seen)")
_NO_COUNTS: Final = frozenset(("started", "pid", STATES))
TRANSFERS: Final = "transfers.json"
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Process:
    """A place among the processes, and who has it."""

    role: str
    index: int
    started: float
    """Epoch seconds since when it counts; 0 where it does not say."""
    pid: int
    counts: Mapping[str, int]

    @property
    def name(self) -> str:
        return f"{self.role}-{self.index}"


@dataclass(frozen=True, slots=True)
class Transfer:
    """A blob that came from upstream, or did not."""

    at: float  # epoch seconds of its end
    registry: str
    digest: str
    size: int  # bytes that came
    seconds: float
    outcome: str  # ok, failed, wrong


@dataclass(frozen=True, slots=True)
class Run:
    """All of it."""

    processes: tuple[Process, ...] = ()
    quotas: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    transfers: tuple[Transfer, ...] = ()
    """The last ones, the latest first."""

    def total(self, role: str | None = None) -> Counter[str]:
        """The counts of a role, or of all, added up."""
        found: Counter[str] = Counter()
        for process in self.processes:
            if role is None or process.role == role:
                found.update(process.counts)
        return found

    @property
    def started(self) -> float:
        """Since when there are counts, epoch seconds; 0 = there are none."""
        return min((process.started for process in self.processes if process.started), default=0.0)


def read(run: Path) -> Run:
    """Files that are not ours, or torn, do not count."""
    processes: list[Process] = []
    quotas: dict[str, Mapping[str, int]] = {}
    for path in sorted(run.glob("*-*.json")):
        name, document = _NAME.fullmatch(path.name), _document(path)
        if name is None or document is None:
            continue
        processes.append(_process(name[1], int(name[2]), document))
        _merge(quotas, document)
    return Run(tuple(processes), dict(sorted(quotas.items())), _transfers(run / TRANSFERS))


def resident(pid: int, proc: Path = Path("/proc")) -> int | None:
    """Bytes of memory a process has; None for one that is gone."""
    try:
        fields = (proc / str(pid) / "statm").read_text(encoding="ascii").split()
        return int(fields[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def bounded(known: frozenset[str]) -> Callable[[str], str]:
    """The name of a registry as a label: a family of hosts has as many names as a client makes up."""
    return lambda registry: registry if registry in known else "other"


def _process(role: str, index: int, document: Mapping[str, object]) -> Process:
    states = document.get(STATES)
    apart = _NO_COUNTS | set(states if isinstance(states, list) else ())
    counts = {name: value for name, value in document.items() if name not in apart and type(value) is int}
    started, pid = document.get("started"), document.get("pid")
    return Process(
        role,
        index,
        float(started) if isinstance(started, int | float) else 0.0,
        pid if isinstance(pid, int) else 0,
        counts,
    )


def _merge(quotas: dict[str, Mapping[str, int]], document: Mapping[str, object]) -> None:
    heard: dict[str, dict[str, int]] = {}
    for key, value in document.items():
        if (name := _QUOTA.fullmatch(key)) is not None and type(value) is int:
            heard.setdefault(name[1], {})[name[2]] = value
    for registry, numbers in heard.items():
        before = quotas.get(registry, {})
        latest = max(numbers, before, key=lambda one: one.get("seen", 0))
        paused = max(before.get("paused", 0), numbers.get("paused", 0))
        quotas[registry] = {**latest, **({"paused": paused} if paused else {})}


def _transfers(path: Path) -> tuple[Transfer, ...]:
    found: list[Transfer] = []
    document = _document(path)
    last = document.get("last") if document else None
    for one in last if isinstance(last, list) else ():
        match one:
            case {
                "at": int() | float() as at,
                "registry": str(registry),
                "digest": str(digest),
                "bytes": int(size),
                "seconds": int() | float() as seconds,
                "outcome": str(outcome),
            }:
                found.append(Transfer(at, registry, digest, size, seconds, outcome))
            case _:
                continue
    return tuple(sorted(found, key=lambda one: -one.at))


def _document(path: Path) -> Mapping[str, object] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None
