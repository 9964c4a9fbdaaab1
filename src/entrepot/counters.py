"""What a process has done, as numbers in a file that `entrepot stats` and the metrics add up.

The file is of a place among the processes ("proxy-0"), not of a process: who takes the place of one that died goes on
from what it has left, so that sums over all files never go back while `entrepot up` runs.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

STATES: Final = "states"
"""The name under which a file lists those of its numbers that are no counts."""
_ABOUT: Final = frozenset(("started", "pid", STATES))


def labelled(name: str, **labels: str) -> str:
    """The name of a count that is kept by labels, of which there must not be many: `requests{kind=blob,...}`."""
    return f"{name}{{{','.join(f'{label}={value}' for label, value in sorted(labels.items()))}}}"


def labels_of(name: str) -> tuple[str, dict[str, str]]:
    """The inverse of `labelled`; without labels for what has none."""
    bare, brace, rest = name.partition("{")
    if not brace:
        return name, {}
    return bare, dict(pair.partition("=")[::2] for pair in rest.removesuffix("}").split(",") if pair)


class Counters:
    """Counts in memory; `flush` writes them out if something changed."""

    def __init__(self, path: Path, *, started: float) -> None:
        """`started`, epoch seconds, counts if nobody has counted here before. Reads the file, if there is one."""
        self._path = path
        self._started, self._before = _left(path, started)
        self._counts: Counter[str] = Counter()
        self._states: dict[str, int] = {}
        self._written: dict[str, int] | None = None

    def add(self, name: str, by: int = 1) -> None:
        self._counts[name] += by

    def set(self, totals: Mapping[str, int]) -> None:
        """For whoever counts elsewhere: all it has counted since this process began."""
        self._counts = Counter(totals)

    def show(self, states: Mapping[str, int]) -> None:
        """Numbers that are as they are and not added to: written beside the counts, in place of those before."""
        self._states = dict(states)

    def flush(self) -> None:
        """Replaces the file; blocking, a few microseconds on a local disk. Raises OSError."""
        counts = Counter(self._before)
        counts.update(self._counts)  # unlike `+`, it keeps what is 0
        numbers = {**counts, **self._states}
        if numbers == self._written:
            return
        draft = self._path.with_suffix(".new")
        about = {"started": self._started, "pid": os.getpid(), STATES: sorted(self._states)}
        draft.write_text(json.dumps({**about, **numbers}))
        draft.replace(self._path)
        self._written = numbers


def _left(path: Path, started: float) -> tuple[float, Counter[str]]:
    """Since when there are counts in the file, and which."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return started, Counter()
    if not isinstance(document, dict):
        return started, Counter()
    states = document.get(STATES)
    apart = _ABOUT | set(states if isinstance(states, list) else ())
    counts = {name: value for name, value in document.items() if name not in apart and type(value) is int}
    since = document.get("started")
    return (since if isinstance(since, float | int) else started), Counter(counts)
