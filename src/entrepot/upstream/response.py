"""An answer from upstream: status, header fields as they came, and the body as it comes.

Decides when a body counts as broken and how its bytes are handed out. Leaves to the caller what the status means,
and to the digest whether the bytes are right.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import aiohttp

from entrepot.headers import Headers
from entrepot.upstream.bulk import Bulks, take_over
from entrepot.upstream.errors import BrokenBody, InvalidResponse, TooLarge, cause_of

MIN_BULK = 1 << 20
"""Bytes left of a body for which its connection is given up."""

MAX_PIECE = 1 << 20
"""Bytes. Twice what the stream lets pile up before it stops the socket, so in practice a piece is never cut."""


class Response:
    """One answer. Valid inside the `async with` that gave it; its body can be read once."""

    __slots__ = (
        "_bulks",
        "_host",
        "_method",
        "_raw",
        "_read_timeout",
        "_received",
        "content_length",
        "elsewhere",
        "headers",
        "redirected",
        "status",
        "url",
    )

    def __init__(
        self,
        raw: aiohttp.ClientResponse,
        *,
        method: str,
        url: str,
        host: str,
        redirected: bool,
        elsewhere: bool,
        read_timeout: float,
        bulks: Bulks,
    ) -> None:
        self._raw = raw
        self._bulks = bulks
        self._read_timeout = read_timeout
        self._method = method
        self._host = host
        self._received = 0
        self.status: int = raw.status
        self.headers: Headers = Headers.from_raw(raw.raw_headers)
        self.url: str = url
        """Where the answer came from in the end. May be signed: log it through `redirects.printable` only."""
        self.redirected: bool = redirected
        self.elsewhere: bool = elsewhere
        """A redirect led to another origin: `url` was asked without the caller's credentials."""
        self.content_length: int | None = _length(self.headers)
        """What the answer claims, also for HEAD; None when it does not say (chunked, or up to the end)."""

    @property
    def encoding(self) -> str | None:
        """The content coding upstream used although it was asked for none; None as it should be.

        A CDN that labels a gzip layer `gzip` still sends the right bytes: whoever knows the digest may go on.
        """
        codings = [value.strip().lower() for value in self.headers.get_all("content-encoding")]
        odd = [coding for coding in codings if coding not in {"", "identity"}]
        return ", ".join(odd) or None

    @property
    def received(self) -> int:
        """Bytes of the body handed out so far."""
        return self._received

    async def chunks(self, size_hint: int = MAX_PIECE) -> AsyncIterator[bytes]:
        """The body in pieces as they arrive, each at most `size_hint` bytes, none empty.

        Raises BrokenBody, at the piece where it happens, when the body is cut, stalls for `read_timeout` or ends
        short of its length. A stall counts only while we are ready to read.
        """
        try:
            while piece := await self._next_piece():
                if len(piece) <= size_hint:
                    self._received += len(piece)
                    yield piece
                    continue
                for start in range(0, len(piece), size_hint):
                    part = piece[start : start + size_hint]
                    self._received += len(part)
                    yield part
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise BrokenBody(self._host, _body_cause(error), received=self._received) from None
        if self._is_short():
            raise BrokenBody(self._host, "ended short of its length", received=self._received)

    async def bulk(self) -> AsyncIterator[bytes | memoryview]:
        """The same as `chunks` at a fraction of the cost: a piece is valid only until the next is asked for.

        Raises what `chunks` raises. The connection is of no use afterwards.
        """
        try:
            before = self._drain() if self._is_worth_it() else b""
            taken = take_over(self._raw, self._left() - len(before), self._bulks) if self._is_worth_it() else None
            if before:
                self._received += len(before)
                yield before
            if taken is not None:
                async with aclosing(taken.pieces(self._read_timeout)) as pieces:
                    async for piece in pieces:
                        self._received += len(piece)
                        yield piece
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise BrokenBody(self._host, _body_cause(error), received=self._received) from None
        if taken is None:
            async for chunk in self.chunks():
                yield chunk
        elif self._is_short():
            raise BrokenBody(self._host, "ended short of its length", received=self._received)

    def _drain(self) -> bytes:
        """All that aiohttp has. More may come with each await."""
        return b"".join(iter(lambda: self._raw.content.read_nowait(-1), b""))

    def _left(self) -> int:
        return (self.content_length or 0) - self._received

    def _is_worth_it(self) -> bool:
        """So much is left that it pays to open another connection for what comes after this answer."""
        return self.status in {200, 206} and self._left() >= MIN_BULK and not self._raw.content.is_eof()

    async def read(self, limit: int) -> bytes:
        """The whole body, for manifests, tokens and messages.

        Raises TooLarge beyond `limit` bytes, InvalidResponse when it is encoded, BrokenBody as `chunks` does.
        """
        if (coding := self.encoding) is not None and self._method != "HEAD":
            raise InvalidResponse(self._host, f"sent {coding!r} although asked for identity")
        if self._method != "HEAD" and self.content_length is not None and self.content_length > limit:
            raise TooLarge(self._host, f"sent a body of {self.content_length} bytes where {limit} are allowed")
        pieces: list[bytes] = []
        async for piece in self.chunks():
            pieces.append(piece)
            if self._received > limit:
                raise TooLarge(self._host, f"sent a body of more than {limit} bytes")
        return b"".join(pieces)

    async def _next_piece(self) -> bytes:
        """What has arrived, or else what arrives next; empty at the end."""
        content = self._raw.content
        if (piece := content.read_nowait(-1)) or content.at_eof():
            return piece
        # aiohttp has a timer of its own, but drops it when a chunk header is garbled, and then tells nobody.
        async with asyncio.timeout(self._read_timeout + 1.0):
            return await content.readany()

    def _is_short(self) -> bool:
        if self._method == "HEAD" or self.status in {204, 304} or self.content_length is None:
            return False
        return self._received < self.content_length


def _length(headers: Headers) -> int | None:
    if "transfer-encoding" in headers:
        return None
    values = set(headers.get_all("content-length"))
    text = values.pop() if len(values) == 1 else ""
    return int(text) if text.isascii() and text.isdigit() else None


def _body_cause(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "stalled"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "cut"
    return cause_of(error)
