"""What the UDP and TCP servers and the responder share.

Decides nothing; it is here so that the servers need not know the responder, nor it them.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from entrepot.dns.answers import Decision
from entrepot.dns.counters import Counters

type Send = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """A reply to the very same bytes, ID apart."""

    tail: bytes  # all after the ID
    until: float  # on the responder's clock; from then on its TTLs are no longer true
    intercepted: bool  # which counter it adds to: `intercepted` or `cached`


@dataclass(frozen=True, slots=True)
class Here:
    """A local address that queries come in on, and what is known for askers there."""

    v4: tuple[str, ...]  # answers to A
    v6: tuple[str, ...]  # answers to AAAA
    ready: dict[bytes, Ready] = field(default_factory=dict)  # by the bytes of a UDP query without its ID
    decisions: dict[bytes, Decision] = field(default_factory=dict)  # by lower-case question


class Handler(Protocol):
    """What the servers need of the responder."""

    @property
    def counters(self) -> Counters: ...

    @property
    def generation(self) -> int:
        """Changes when every `Here` handed out before is void."""

    def tick(self) -> float:
        """Notices what has changed (health, addresses); to be called at each wake-up. The time on its clock."""

    def admits(self, client: str) -> bool:
        """May this address ask?"""

    def here(self, address: str, interface: int) -> Here:
        """What is known for queries that come in on this local address."""

    def handle(self, data: bytes, client: str, here: Here, send: Send, *, over_tcp: bool) -> bytes | None:
        """The reply to one message; empty: it gets none; None: it comes later, through one call of `send`."""
