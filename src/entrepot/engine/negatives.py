"""What upstream has just said is not there, for a few seconds, for the one who asked.

Clients ask for the same missing tag over and over (retries, referrers, attestations). An absence is never told to
another credential: what one may not see, another may.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from entrepot.engine.messages import Answer

TTL: Final = 5.0  # seconds
MOST: Final = 1024
ABSENT: Final = 404

type Key = tuple[str, ...]


class Negatives:
    """Answers of 404 by the whole question, credential included. In memory: a worker's own."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: OrderedDict[Key, tuple[float, Answer]] = OrderedDict()

    def get(self, key: Key) -> Answer | None:
        if (entry := self._held.get(key)) is None:
            return None
        at, answer = entry
        if 0 <= self._clock() - at < TTL:
            return answer
        del self._held[key]
        return None

    def note(self, key: Key, answer: Answer) -> None:
        """Only what says "not there", with a body in memory."""
        if answer.status != ABSENT or not isinstance(answer.body, bytes):
            return
        self._held[key] = self._clock(), answer
        self._held.move_to_end(key)
        if len(self._held) > MOST:
            self._held.popitem(last=False)
