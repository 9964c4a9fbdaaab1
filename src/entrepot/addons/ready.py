"""Answers that are ready: the same bytes asked again within a moment get the same bytes again.

What was answered from the store to a request is answered again, without being parsed, identified, admitted or looked
up, when byte for byte the same head comes on a connection for the same name. Nothing may have changed meanwhile: an
entry is good for `LIFETIME`, not beyond the second it was made in (`Date` and `Age` would be wrong), and only as long
as nobody, in any process, has written a record: a grant, a tag, a proof, a purge. Who asks with another credential asks
another question. So what a client does first costs what it always did, and a herd costs next to nothing.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from entrepot.addons.readylines import Line

LIFETIME: Final = 0.25  # seconds
AGAIN: Final = 1.0  # seconds in which a question is asked twice, if it is worth being ready for
LARGEST: Final = 64 << 10  # bytes of an answer
MOST: Final = 4096  # entries
MOST_BYTES: Final = 16 << 20


@dataclass(eq=False, slots=True)
class Ready:
    """One answer, as it goes into TLS."""

    wire: bytes
    size: int  # bytes of the body in it
    keep_alive: bool
    until: float  # epoch seconds
    lines: tuple[Line, ...]  # of the logs
    verdict: str
    tally: str  # the count it is one more of


class ReadyAnswers:
    """For one process. `version` changes when a record is written; `clock` gives epoch seconds."""

    def __init__(self, version: Callable[[], object], clock: Callable[[], float] = time.time) -> None:
        self.version, self._clock = version, clock
        """What an answer depends on; to be taken before it is worked out."""
        self._held: dict[tuple[str, bytes], Ready] = {}
        self._bytes = 0
        self._made_at: object = None  # the version that all of them are of
        self._seen: set[int] = set()  # what has been asked since `_since`
        self._since = 0.0

    def get(self, name: str, head: bytes) -> Ready | None:
        """The answer to this head on a connection for `name`."""
        if (found := self._held.get((name, head))) is None:
            return None
        if self.version() != self._made_at:
            self.clear()
            return None
        if self._clock() >= found.until:
            self._drop(name, head, found)
            return None
        return found

    def is_worth_it(self, name: str, head: bytes) -> bool:
        """It has been asked a moment ago: most are asked once, and making ready costs as much as answering."""
        now, asked = self._clock(), hash((name, head))
        if not 0 <= now - self._since < AGAIN or len(self._seen) >= MOST:
            self._seen.clear()
            self._since = now
        if asked in self._seen:
            return True
        self._seen.add(asked)
        return False

    def put(self, name: str, head: bytes, ready: Ready, version: object) -> None:
        """Worked out at `version`."""
        if len(ready.wire) > LARGEST or version != self.version():
            return
        if version != self._made_at or len(self._held) >= MOST or self._bytes > MOST_BYTES:
            self.clear()
            self._made_at = version
        if (old := self._held.get((name, head))) is not None:
            self._drop(name, head, old)
        self._held[name, head] = ready
        self._bytes += len(head) + len(ready.wire)

    def clear(self) -> None:
        """Nothing is ready any more: settings have changed, or we are about to end."""
        self._held.clear()
        self._bytes = 0

    def until(self) -> float:
        """Epoch seconds to which an answer that is made now is good."""
        now = self._clock()
        return min(now + LIFETIME, float(int(now) + 1))

    def _drop(self, name: str, head: bytes, old: Ready) -> None:
        del self._held[name, head]
        self._bytes -= len(head) + len(old.wire)
