"""An origin that is down, as the processes of the box tell each other.

One record for each, `down/<origin>`, written by whoever found out and refreshed by its probes; gone when it answers
again, or on its own when nobody looks any more.
"""

from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from entrepot.cache.interface import Document
from entrepot.upstream.breaker import State
from entrepot.upstream.redirects import origin

PREFIX: Final = "down/"
TTL: Final = 30.0  # seconds: twice the longest time between probes
_DEFAULT: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Outage:
    """What one process has found."""

    state: State
    since: float  # epoch seconds
    why: str  # one clause, without a secret
    confirmed: bool  # by a probe
    at: float  # epoch seconds of the last look
    by: str  # the process
    began: float = 0.0  # epoch seconds at which the last look set out; later than `at` while it is under way

    @classmethod
    def load(cls, value: Document | None) -> "Outage | None":
        """Of its record; None for what is none."""
        match value:
            case {
                "state": "suspect" | "open" as state,
                "since": float() | int() as since,
                "why": str(why),
                "confirmed": bool(confirmed),
                "at": float() | int() as at,
                "by": str(by),
                **rest,
            }:
                began = rest.get("began")
                return cls(
                    State(state), since, why, confirmed, at, by, began if isinstance(began, float | int) else 0.0
                )
            case _:
                return None

    def document(self) -> Document:
        """As a record."""
        return {
            "state": str(self.state),
            "since": self.since,
            "why": self.why,
            "confirmed": self.confirmed,
            "at": self.at,
            "by": self.by,
            "began": self.began,
        }


def origin_of(url: str) -> str:
    """The origin of an http(s) URL as text: scheme, host, and port where it is not the scheme's own."""
    return _text(urlsplit(url))


def _text(parts: SplitResult) -> str:
    scheme, host, port = origin(parts)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}" + ("" if port == _DEFAULT[scheme] else f":{port}")
