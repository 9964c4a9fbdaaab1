"""What happened, as numbers, for the process that exports them.

Decides nothing. Every message that comes in adds one to `queries` and to exactly one of the kinds after it; the
numbers under "besides" count events inside those.
"""

from dataclasses import dataclass
from typing import Literal

type Kind = Literal[
    "intercepted", "special", "cached", "forwarded", "joined", "refused", "malformed", "overloaded", "looped"
]


@dataclass(slots=True)
class Counters:
    """Totals since the responder was made; they only grow. `dataclasses.asdict` exports them."""

    queries: int = 0

    intercepted: int = 0  # answered with our address, or NODATA, for a name of the catalogue
    special: int = 0  # answered here for what the name is: localhost and its like
    cached: int = 0  # answered from what an upstream said earlier
    forwarded: int = 0  # sent to an upstream
    joined: int = 0  # answered by what another asker's question brought
    refused: int = 0  # strangers, other classes, zone transfers
    malformed: int = 0  # unreadable, a response, or not a query; answered or dropped
    overloaded: int = 0  # too many in flight, or no upstream to ask: SERVFAIL at once
    looped: int = 0  # our own probe, come back: an upstream leads to us

    # besides
    tcp: int = 0  # messages that came in over TCP
    bypassed: int = 0  # names of the catalogue that were not intercepted because the cache was sick
    failed: int = 0  # questions no upstream answered: SERVFAIL
    timeouts: int = 0  # attempts at an upstream without an answer in time
    strays: int = 0  # packets at an upstream socket that did not answer its question: late, or forged
    unsent: int = 0  # replies the kernel would not take
    crashed: int = 0  # messages that hit a bug of ours; logged with their traceback

    def add(self, kind: Kind) -> None:
        """One more message of this kind."""
        setattr(self, kind, getattr(self, kind) + 1)
