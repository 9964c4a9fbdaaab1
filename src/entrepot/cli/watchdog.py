"""Which children hang: stopped, or with an event loop that does not turn.

They say at every second that they live. Time is counted in looks of the supervisor that came on time, never as a
distance between two readings of a clock: when the machine sleeps, or is so busy that we too wait for our turn, nobody
is silent. A child that waits for the disk is not counted either: killing does not make a disk faster.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

LOOK: Final = 1.0  # seconds from one look to the next
PATIENCE: Final = 10  # looks in a row that find a child silent
LATE: Final = 0.5  # seconds by which a look may be late and still counts


class Watched(Protocol):
    """What is to be known of a child."""

    @property
    def ready(self) -> bool:
        """Before that, it may do what does not let the loop turn."""

    @property
    def beats(self) -> int:
        """How often it has said that it lives."""

    def waits_for_disk(self) -> bool:
        """Whether it is in the middle of a call that nothing can interrupt."""


class Watchdog[Child: Watched]:
    """Looks when it is time to."""

    def __init__(self, clock: Callable[[], float], *, every: float = LOOK, patience: int = PATIENCE) -> None:
        """`clock` in seconds that pass while we run; `every` in seconds, `patience` in looks."""
        self._clock, self._every, self._patience = clock, every, patience
        self.due = clock() + every
        self._heard: dict[Child, tuple[int, int]] = {}  # beats, and looks since without another

    def look(self, children: Iterable[Child]) -> list[Child]:
        """Those that hang. What they have said must have been heard before."""
        late = (now := self._clock()) - self.due
        if late < 0:
            return []
        self.due = now + self._every
        before, self._heard = self._heard, {}
        for child in children:
            if not child.ready:
                continue
            beats, silent = before.get(child, (-1, 0))
            if child.beats != beats:
                silent = 0
            elif late <= LATE and not child.waits_for_disk():
                silent += 1
            self._heard[child] = child.beats, silent
        return [child for child, (_, silent) in self._heard.items() if silent >= self._patience]
