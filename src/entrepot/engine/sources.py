"""Where the bytes of a blob come from: one registry, asked in the name of a client, of nobody or of the box.

For transfers (`BlobSource`), and for what a client gets past them: a part that is far ahead, or a blob that does not
fit into the store. Who may have the bytes is decided elsewhere.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from entrepot.cache.interface import DigestMismatch
from entrepot.engine.bodies import PassingBody
from entrepot.engine.messages import PullRequest, Refused
from entrepot.engine.parcel import pack
from entrepot.engine.upstreams import RETRIABLE, Upstreams, snapshot
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.ranges import Range
from entrepot.registry.routes import BlobRoute
from entrepot.upstream.errors import InvalidResponse, UpstreamError
from entrepot.upstream.response import Response
from entrepot.upstream.source import Opened


async def distant(upstreams: Upstreams, request: PullRequest, part: Range) -> PassingBody | None:
    """The bytes of `part` of a blob by a request of their own; None when upstream does not give just these."""
    async with AsyncExitStack() as stack:
        wanted = ("Range", f"bytes={part.start}-{part.stop - 1}")
        response = await stack.enter_async_context(upstreams.exchange(request, "GET", wanted, follow=True))
        if response.status != 206 or _content_range(response)[0] != part.start:
            return None
        return PassingBody(upstreams.paced(request, response), stack.pop_all().aclose, part.length)
    return None


async def verified(chunks: AsyncIterator[bytes], digest: Digest) -> AsyncIterator[bytes]:
    """The same bytes, one piece behind: the last piece comes only if the whole has the digest.

    Raises `DigestMismatch` instead of it.
    """
    hasher, size, last = digest.hasher(), 0, b""
    async for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
        if last:
            yield last
        last = chunk
    if (actual := hasher.hexdigest()) != digest.hex:
        raise DigestMismatch(digest, f"{digest.algorithm}:{actual}", size)
    if last:
        yield last


async def past_the_store(
    upstreams: Upstreams, request: PullRequest, digest: Digest
) -> tuple[int, Headers, PassingBody]:
    """A blob, or the range of it that the client asked for, for this client only. Raises `Refused`, `UpstreamError`.

    The whole is verified on its way (DESIGN rule 1); of a range only the client can tell, when it has the rest.
    """
    more = [("Range", value) for value in request.headers.get_all("range")[:1]]
    async with AsyncExitStack() as stack:
        response = await stack.enter_async_context(upstreams.exchange(request, "GET", *more, follow=True))
        if response.status not in {200, 206}:
            raise Refused(await snapshot(response))
        chunks = upstreams.paced(request, response)
        if response.status == 200:
            chunks = verified(chunks, digest)
        body = PassingBody(chunks, stack.pop_all().aclose, response.content_length)
        return response.status, response.headers, body
    raise RuntimeError("unreachable: the block above returns or raises")


class BlobSource:
    """`entrepot.upstream.source.Source`: one blob, asked for in one name.

    Where a redirect to another host has led is remembered for as long as the transfer lasts: ranges and resumptions go
    there at once, which spares the registry the question, and needs no token. A signed URL is a credential: it is kept
    in memory only, and when it is refused or fails the registry is asked for a new one.
    """

    def __init__(self, upstreams: Upstreams, request: PullRequest) -> None:
        self._upstreams, self._request = upstreams, request
        self.name = request.registry.name
        self.accepted = False
        """Upstream has answered with bytes whoever it was asked in the name of: for a client, the proof of access."""
        self._direct: str | None = None

    def describe(self) -> Mapping[str, object]:
        """The request, for the fetching process."""
        return pack(self._request)

    def serves(self, registry: str, repository: str) -> bool:
        """Whether the bytes come from this repository."""
        route = self._request.route
        return (registry, repository) == (self.name, route.repository if isinstance(route, BlobRoute) else "")

    @property
    def parallel(self) -> bool:
        """Not under a bandwidth cap, which is shared by transfers, nor where bytes were wrong."""
        return not self._upstreams.is_capped(self._request) and not self._upstreams.conduct.is_suspicious(self.name)

    @asynccontextmanager
    async def open(self, offset: int, stop: int | None = None) -> AsyncIterator[Opened]:
        more = [("Range", f"bytes={offset}-{'' if stop is None else stop - 1}")] if offset or stop is not None else []
        async with AsyncExitStack() as stack:
            response = None
            if offset and (direct := self._direct) is not None:
                response = await self._ask_directly(stack, direct, more)
            if response is None:
                # Clients may be reading already: they rather wait for what looks dead than be broken off.
                exchange = self._upstreams.exchange(self._request, "GET", *more, follow=True, insist=offset > 0)
                response = await stack.enter_async_context(exchange)
                self.accepted = self.accepted or response.status in {200, 206}
                self._direct = response.url if response.elsewhere and response.status in {200, 206} else None
            # Ranges side by side are collected, and must not change under whoever collects them.
            pieces = self._upstreams.bulk if stop is None else self._upstreams.paced
            yield await self._opened(response, offset, pieces(self._request, response))

    async def _ask_directly(self, stack: AsyncExitStack, url: str, more: list[tuple[str, str]]) -> Response | None:
        """The answer from where the last redirect led; None when the registry must be asked."""
        exchange = self._upstreams.elsewhere(self._request, url, *more)
        try:
            response = await stack.enter_async_context(exchange)
        except UpstreamError:
            response = None
        if response is None or response.status not in {200, 206}:
            if self._direct == url:
                self._direct = None
            await stack.aclose()
            return None
        return response

    async def _opened(self, response: Response, offset: int, chunks: AsyncIterator[bytes | memoryview]) -> Opened:
        if response.status == 206:
            start, total = _content_range(response)
            return Opened(start, total, chunks, ranges=True)
        if response.status == 200:
            ranges = "bytes" in response.headers.get("accept-ranges", "").lower()
            return Opened(0, response.content_length, chunks, ranges, foreign=offset > 0)
        if response.status == 416 and response.headers.get("content-range", "").strip() == f"bytes */{offset}":
            return Opened(offset, offset, _nothing())  # all of it is here
        if response.status == 416 and offset:
            raise InvalidResponse(self.name, f"has no byte {offset} of it")
        if offset and (response.status in RETRIABLE or response.redirected):  # a signed URL that has expired: ask anew
            raise InvalidResponse(self.name, f"answered {response.status} to a resumption")
        raise Refused(await snapshot(response))


def _content_range(response: Response) -> tuple[int, int | None]:
    """First byte and total of a 206's `Content-Range` (RFC 9110 14.4)."""
    unit, _, rest = response.headers.get("content-range", "").strip().partition(" ")
    span, _, total = rest.partition("/")
    first = span.partition("-")[0].strip()
    if unit.lower() != "bytes" or not first.isdigit() or not (total == "*" or total.isdigit()):
        raise InvalidResponse(response.url.partition("?")[0], "sent a 206 without a usable Content-Range")
    return int(first), None if total == "*" else int(total)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
