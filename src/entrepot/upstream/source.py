"""Where the bytes of a transfer come from, and how much is done to get them: the shapes, no behaviour."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Opened:
    """An upstream answer that carries bytes of the blob from `start` on."""

    start: int  # 0 when upstream ignored the range
    total: int | None  # size of the whole blob in bytes, None when upstream does not say
    chunks: AsyncIterator[bytes | memoryview]  # raises UpstreamError while iterating when the body breaks
    # Each is valid only until the next is asked for, unless it is a range with an end.
    ranges: bool = False  # upstream has said, or shown, that it gives ranges of it
    foreign: bool = False  # no 206 though a range was asked for: it may be an answer to something else


class Source(Protocol):
    """One registry, repository and credential; any number of answers may be open at once."""

    @property
    def name(self) -> str:
        """The registry, for the log and for counting connections."""

    accepted: bool
    """Upstream has answered this credential with bytes: the proof of access."""

    def describe(self) -> Mapping[str, object]:
        """What another process needs to make the same source: JSON types only. It holds the credential."""

    def serves(self, registry: str, repository: str) -> bool:
        """Whether the bytes come from this repository."""

    @property
    def parallel(self) -> bool:
        """Whether several ranges may be asked for at once."""

    def open(self, offset: int, stop: int | None = None) -> AbstractAsyncContextManager[Opened]:
        """Asks upstream for the bytes from `offset` on, up to `stop` if given; leaving ends the answer.

        Entering raises `UpstreamError` when upstream is at fault (the transfer tries again) and any other
        `EntrepotError` when upstream refuses (the transfer goes on with another source, or ends with it).
        """


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done for one blob."""

    attempts: int = 5  # in a row that bring no byte, before the transfer ends
    fill_alone: bool = True  # goes on although nobody waits for it, once a good part is in
