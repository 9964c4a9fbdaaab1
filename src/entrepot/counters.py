"""What a process has done, as numbers in a file that `entrepot stats` adds up."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


class Counters:
    """Counts in memory; `flush` writes them out if something changed."""

    def __init__(self, path: Path, *, started: float) -> None:
        self._path = path
        self._started = started
        self._counts: Counter[str] = Counter()
        self._states: dict[str, int] = {}
        self._written: dict[str, int] | None = None

    def add(self, name: str, by: int = 1) -> None:
        self._counts[name] += by

    def show(self, states: Mapping[str, int]) -> None:
        """Numbers that are as they are and not added to: written beside the counts, in place of those before."""
        self._states = dict(states)

    def flush(self) -> None:
        """Replaces the file; blocking, a few microseconds on a local disk. Raises OSError."""
        numbers = {**self._counts, **self._states}
        if numbers == self._written:
            return
        draft = self._path.with_suffix(".new")
        draft.write_text(json.dumps({"started": self._started, "pid": os.getpid(), **numbers}))
        draft.replace(self._path)
        self._written = numbers
