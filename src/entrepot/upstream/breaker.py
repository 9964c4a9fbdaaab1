"""Whether an origin is there, as a state machine fed with what came of asking it. Pure.

1. `closed`: it answers. `suspect`: it has failed; who has something held does without it, who has not still asks.
   `open`: it cannot be reached, and nobody is made to wait for it.
2. One hard failure (no connection, no answer) makes it suspect, and so do `SOFT_LIMIT` soft ones (5xx) in a row, or a
   client that has waited long enough. A second hard failure, of an exchange that began after the first was known, or
   a probe that gets no answer opens it. What answers, be it with 5xx, is never open: asking costs nobody any time, and
   upstream's own words are better than ours.
3. Any answer that is neither 5xx nor 429 closes it. A probe's answer counts less than a client's: when what a probe has
   closed fails again before any client had an answer, probes do not close it for `DISTRUST` seconds (a registry whose
   ping works and whose manifests hang).
4. A 429 is about a credential or an address, never by itself about the origin: `THROTTLED_LIMIT` of them in a row make
   it `doubtful`, and only a probe that is throttled too makes it suspect.
5. `confirmed`: a probe has found it down. Clients can make an origin look sick (by asking for what it fails at), but no
   probe of ours: what loosens a rule must ask for this.

Times are epoch seconds, given with each event.
"""

from enum import StrEnum
from typing import Final

SOFT_LIMIT: Final = 3
THROTTLED_LIMIT: Final = 3
DISTRUST: Final = 15.0  # seconds


class State(StrEnum):
    """Of an origin."""

    CLOSED = "closed"
    SUSPECT = "suspect"
    OPEN = "open"


class Finding(StrEnum):
    """What a probe has found."""

    WELL = "well"
    SICK = "sick"  # it answers with 5xx
    THROTTLED = "throttled"
    DEAD = "dead"


class Breaker:
    """One origin."""

    __slots__ = (
        "_by_probe",
        "_distrust_until",
        "_hard_in_a_row",
        "_hard_known",
        "_soft_in_a_row",
        "_throttled_in_a_row",
        "confirmed",
        "since",
        "state",
        "why",
    )

    def __init__(self) -> None:
        self.state = State.CLOSED
        self.since = 0.0  # when it was last seen to be well, or first to fail
        self.why = ""
        self.confirmed = False
        self._hard_known = 0
        self._hard_in_a_row = self._soft_in_a_row = self._throttled_in_a_row = 0
        self._by_probe = False  # what closed it
        self._distrust_until = 0.0

    @property
    def doubtful(self) -> bool:
        """A probe is wanted."""
        return self.state is not State.CLOSED or self._throttled_in_a_row >= THROTTLED_LIMIT

    def begin(self) -> int:
        """An exchange begins: what is to be given to `hard` if it fails."""
        return self._hard_known

    def hard(self, begun: int, why: str, now: float) -> None:
        """An exchange has had no answer. Many that fail at the same moment are one failure."""
        if begun < self._hard_known:
            return
        self._hard_known += 1
        self._hard_in_a_row += 1
        again = self.state is State.SUSPECT and self._hard_in_a_row > 1
        self._fall(State.OPEN if again else State.SUSPECT, why, now)

    def soft(self, why: str, now: float) -> None:
        """It has answered with 5xx."""
        self._soft_in_a_row += 1
        self._hard_in_a_row = 0
        if self._soft_in_a_row >= SOFT_LIMIT or self.state is State.OPEN:
            self._answers(why, now)

    def throttled(self, why: str, now: float) -> None:
        """It has answered with 429."""
        self._throttled_in_a_row += 1
        self._hard_in_a_row = 0
        if self.state is State.OPEN:
            self._answers(why, now)

    def slow(self, why: str, now: float) -> None:
        """A client has waited for its answer as long as clients do."""
        self._fall(State.SUSPECT, why, now)

    def success(self) -> None:
        """It has answered a client's question."""
        self._rise(by_probe=False)

    def probed(self, finding: Finding, why: str, now: float) -> None:
        """A probe that began in this state of affairs has come back."""
        match finding:
            case Finding.DEAD:
                self._fall(State.OPEN, why, now)
                self.confirmed = True
            case Finding.SICK | Finding.THROTTLED:
                self._answers(why, now)
                self.confirmed = True
            case Finding.WELL if now < self._distrust_until:
                self.state, self.confirmed = State.SUSPECT, False
            case Finding.WELL:
                self._rise(by_probe=True)

    def adopt(self, state: State, since: float, why: str, *, confirmed: bool) -> None:
        """What another process has found."""
        self.state, self.since, self.why, self.confirmed = state, since, why, confirmed

    def reset(self) -> None:
        """Nothing is known any more."""
        self._rise(by_probe=False)

    def _fall(self, state: State, why: str, now: float) -> None:
        """At least to `state`."""
        if self.state is State.CLOSED:
            self.since, self.confirmed = now, False
            if self._by_probe:
                self._distrust_until = now + DISTRUST
        elif self.state is State.OPEN:
            return  # the first reason is the best one
        self.state, self.why = state, why

    def _answers(self, why: str, now: float) -> None:
        """It is there, and sick."""
        if self.state is State.OPEN:
            self.state, self.why = State.SUSPECT, why
        else:
            self._fall(State.SUSPECT, why, now)

    def _rise(self, *, by_probe: bool) -> None:
        if not by_probe or self.state is not State.CLOSED:
            self._by_probe = by_probe
        self.state, self.confirmed, self.why = State.CLOSED, False, ""
        self._hard_in_a_row = self._soft_in_a_row = self._throttled_in_a_row = 0
        self._distrust_until = 0.0
