"""What has been read of the records, for as long as nobody has written since.

SQLite tells, for a fraction of what a query costs, whether any other connection has committed (`PRAGMA data_version`).
While none has, what was read is still so. It is asked at most every `WINDOW` seconds, and after each write of this
process: what another process has written is seen that much later at most. After any commit all is read anew.
"""

import time
from collections.abc import Callable
from typing import Final

WINDOW: Final = 0.001  # seconds
MOST: Final = 8192  # entries
MOST_BYTES: Final = 16 << 20  # of values

type Value = str | bytes | None


class Recall:
    """For one connection. `version` is that of the database as the connection sees it; `clock` gives epoch seconds."""

    def __init__(self, version: Callable[[], int], clock: Callable[[], float] = time.time) -> None:
        self._version, self._clock = version, clock
        self._seen, self._asked = -1, 0.0
        self._held: dict[tuple[object, str], tuple[object, float | None]] = {}
        self._bytes = 0

    def get[T](
        self, key: str, read: Callable[[str], tuple[Value, float | None]], understand: Callable[[Value], T]
    ) -> T:
        """What `understand` makes of the value that `read` gives, with the epoch second at which it ends, or None."""
        now = self._clock()
        if not 0 <= now - self._asked < WINDOW:
            self._ask(now)
        if (known := self._held.get((understand, key))) is not None:
            made, until = known
            if until is None or now < until:
                return made  # type: ignore[return-value]  # by the same function
            return understand(None)
        value, until = read(key)
        made = understand(value)
        self._bytes += len(key) + len(value or "")
        if len(self._held) >= MOST or self._bytes > MOST_BYTES:
            self._forget()
        self._held[understand, key] = made, until
        return made

    def version(self) -> int:
        """Another one once somebody has committed something."""
        now = self._clock()
        if not 0 <= now - self._asked < WINDOW:
            self._ask(now)
        return self._seen

    def written(self) -> None:
        """This process has committed something, on another connection."""
        self._asked = 0.0

    def _ask(self, now: float) -> None:
        self._asked = now
        if (version := self._version()) != self._seen:
            self._forget()
            self._seen = version

    def _forget(self) -> None:
        self._held.clear()
        self._bytes = 0
