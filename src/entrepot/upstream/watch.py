"""Who looks on as exchanges are made: the shapes that the client knows, and the one that sees nothing.

What is made of it is `health`'s.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from entrepot.headers import Headers
from entrepot.upstream.errors import UpstreamError

type Probe = Callable[[str, tuple[Path, ...]], Awaitable[int]]
"""The status of a GET without a credential, or `UpstreamError`."""


class Attempt(Protocol):
    """One exchange. At most one of these is called, once."""

    def answered(self, status: int, headers: Headers) -> None:
        """The head of an answer has come."""

    def failed(self, error: UpstreamError) -> None:
        """There was none."""

    def dropped(self) -> None:
        """Whoever asked has stopped waiting."""


class Watch(Protocol):
    """Sees every exchange of a client."""

    def begin(self, url: str, ca: tuple[Path, ...], *, insist: bool) -> Attempt:
        """Before an exchange, each hop of a redirect by itself. Raises `Down`, unless the caller insists."""

    async def returned(self, url: str) -> bool:
        """After `Down`: looks now. Whether it makes sense to ask again; known within a client's patience."""


class Unwatched:
    """Sees nothing, forbids nothing."""

    def begin(self, url: str, ca: tuple[Path, ...], *, insist: bool) -> "Unwatched":
        return self

    async def returned(self, url: str) -> bool:
        return True

    def answered(self, status: int, headers: Headers) -> None:
        pass

    def failed(self, error: UpstreamError) -> None:
        pass

    def dropped(self) -> None:
        pass
