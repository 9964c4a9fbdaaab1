"""How many connections of this process bring blobs, from each registry and in all.

A transfer's first connection is always granted, and counted; further ones only within the limits, so that many
transfers at once, which fill the link anyway, leave each with one.
"""

from collections import Counter
from typing import Final

MEMORY_WINDOWS: Final = 5  # windows of all transfers together that may be in memory: what bounds a worker's size


class Lanes:
    """The counts. `connections` is this process's share of the limit for one registry."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._taken: Counter[str] = Counter()
        self._windows = 0

    def take(self, name: str) -> None:
        """A transfer's first connection to the registry `name`."""
        self._taken[name] += 1

    def give(self, name: str) -> None:
        """It ends."""
        self._taken[name] -= 1
        if not self._taken[name]:
            del self._taken[name]

    def spare(self, name: str) -> bool:
        """Whether `take_window` would be granted."""
        return self._taken[name] < self._connections and self._windows < MEMORY_WINDOWS

    def take_window(self, name: str, *, needed: bool) -> bool:
        """A further connection and the memory for what it brings; `needed`: without it the transfer stands still."""
        if not needed and not self.spare(name):
            return False
        self.take(name)
        self._windows += 1
        return True

    def give_window(self, name: str) -> None:
        """It has ended and its bytes have been used."""
        self.give(name)
        self._windows -= 1
