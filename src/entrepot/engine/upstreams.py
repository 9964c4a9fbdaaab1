"""Questions to a registry, in the name of one client.

Turns a pull request into an upstream exchange and what comes back into an answer or `Refused`. Decides nothing about
who may have the result. Every answer's word on the quota is noted here, and every byte of a blob passes the bandwidth
cap here.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from entrepot.cache.interface import DigestMismatch
from entrepot.engine.bodies import PassingBody
from entrepot.engine.conduct import Conduct
from entrepot.engine.fields import relayed, to_upstream
from entrepot.engine.identity import ANONYMOUS
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.parcel import pack
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.ranges import Range
from entrepot.registry.routes import BlobRoute, ManifestRoute, Route
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import Down, InvalidResponse, Slow, UpstreamError
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Key, Purpose, Quotas, counts
from entrepot.upstream.redirects import origin
from entrepot.upstream.response import Response
from entrepot.upstream.source import Opened

MAX_MANIFEST: Final = 4 << 20  # bytes; the distribution spec asks registries to take at least this much
MAX_MESSAGE: Final = 1 << 20  # bytes of an error, a token or a page of tags that is relayed
RETRIABLE: Final = frozenset({408, 429, 500, 502, 503, 504})  # upstream's trouble, not its verdict on the client
REFUSES_HEAD: Final = frozenset({405, 501})
TOO_MANY: Final = 429


type Observer = Callable[[PullRequest, int, Headers], Awaitable[None]]
"""Told of each answer of a registry's own to a client: status and fields."""


async def _unobserved(request: PullRequest, status: int, headers: Headers) -> None:
    pass


class Upstreams:
    """Asks registries on behalf of clients."""

    def __init__(
        self,
        client: UpstreamClient,
        health: Health,
        quotas: Quotas,
        bandwidth: Bandwidth,
        conduct: Conduct,
        clock: Callable[[], float],
    ) -> None:
        """`health` watches `client`."""
        self._client, self._quotas, self._clock = client, quotas, clock
        self.health = health
        self._bandwidth = bandwidth
        self.conduct = conduct
        self.observed: Observer = _unobserved

    def may(self, request: PullRequest, purpose: Purpose, method: str) -> bool:
        """Whether the quota of this client's credential allows a request like this that nobody waits for."""
        counted = counts(request.registry, method, request.route)
        return self._quotas.may(self._quota_key(request), purpose, self._clock(), counted=counted)

    def is_down(self, request: PullRequest) -> bool:
        """Whether to do without the registry where that is possible."""
        return self.health.is_down(request.registry.upstream)

    def is_out(self, request: PullRequest) -> bool:
        """Whether the registry is down for sure, as no client can make it look: see `Health.is_out`."""
        return self.health.is_out(request.registry.upstream)

    def paced(self, request: PullRequest, response: Response) -> AsyncIterator[bytes]:
        """The bytes of a blob, no faster than allowed."""
        return self._bandwidth.pace(request.registry, response.chunks())

    def is_capped(self, request: PullRequest) -> bool:
        """Whether a cap says how fast blobs of this registry may come."""
        return self._bandwidth.is_capped(request.registry)

    def _quota_key(self, request: PullRequest) -> Key:
        return request.registry.name, request.identity.credential

    @asynccontextmanager
    async def exchange(
        self,
        request: PullRequest,
        method: str,
        *more: tuple[str, str],
        route: Route | None = None,
        follow: bool,
        insist: bool = False,
    ) -> AsyncIterator[Response]:
        """One exchange with the client's own credential; `route` if not the request's. Raises `UpstreamError`.

        `insist`: also while upstream is known to be down.
        """
        registry = request.registry
        request.trace.upstream += 1
        url = registry.upstream + (route or request.route).target
        headers = to_upstream(request.headers, *more)
        opening = self._client.follow if follow else self._client.open
        async with opening(method, url, headers, ca=registry.ca, insist=insist) as response:
            self._quotas.observe(self._quota_key(request), response.headers, response.status, self._clock())
            if not response.elsewhere:
                await self.observed(request, response.status, response.headers)
            yield response

    @asynccontextmanager
    async def elsewhere(self, request: PullRequest, url: str, *more: tuple[str, str]) -> AsyncIterator[Response]:
        """A GET where a redirect of the registry's to another host has led before: without any credential.

        For the rest of a blob that clients are reading: it is tried whatever is known of that host.
        """
        headers = to_upstream(request.headers.without("authorization"), *more)
        async with self._client.follow("GET", url, headers, ca=request.registry.ca, insist=True) as response:
            yield response

    async def relay(self, request: PullRequest, *, follow: bool = False) -> Answer:
        """Upstream's own answer to this very request, whole. For small things."""
        async with self.exchange(request, request.method, follow=follow) as response:
            return await snapshot(response)

    async def head(self, request: PullRequest, *more: tuple[str, str]) -> tuple[int, Headers]:
        """Status and fields of a HEAD of this very URL; a redirect is not followed, it is a yes.

        Raises `Refused` for a client's HEAD that upstream refuses, and `HeadRefused` where a GET must decide.
        """
        async with self.exchange(request, "HEAD", *more, follow=False) as response:
            if response.status < 400:
                return response.status, response.headers
            if response.status in REFUSES_HEAD or request.method == "GET":
                raise HeadRefused(response.status)
            raise Refused(await snapshot(response))

    async def nobody_head(
        self, request: PullRequest, route: ManifestRoute, *more: tuple[str, str]
    ) -> tuple[int, Headers]:
        """Status and fields of a HEAD that carries nobody's rights: no credential but one in `more`."""
        headers = to_upstream(request.headers.without("authorization"), *more)
        registry = request.registry
        async with self._client.open("HEAD", registry.upstream + route.target, headers, ca=registry.ca) as response:
            self._quotas.observe((registry.name, ANONYMOUS), response.headers, response.status, self._clock())
            return response.status, response.headers

    async def nobody_token(self, request: PullRequest, url: str) -> str:
        """A token issued to nobody. `url` is the registry's word: it must be https, or the registry's own place."""
        registry = request.registry
        if not url.startswith("https://") and origin(urlsplit(url)) != origin(urlsplit(registry.upstream)):
            raise InvalidResponse(registry.name, "names a token service without https")
        self._client.refuse_inward(url, first=registry.upstream)
        headers = to_upstream(request.headers.without("authorization", "accept"), ("Accept", "application/json"))
        async with self._client.open("GET", url, headers, ca=registry.ca) as response:
            body = await response.read(MAX_MESSAGE)
            status = response.status
        try:
            document = json.loads(body) if status == 200 else {}
        except ValueError:
            document = {}
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else None
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise InvalidResponse(registry.name, f"gives no token to nobody ({status})")
        return token

    async def get_allowed(self, request: PullRequest) -> None:
        """Begins a GET of this very URL: returns if it is answered, raises `Refused` with upstream's words if not."""
        async with self.exchange(request, "GET", follow=False) as response:
            if response.status >= 400:
                raise Refused(await snapshot(response))

    async def manifest(self, request: PullRequest, route: ManifestRoute) -> tuple[bytes, str, Digest]:
        """Body, Content-Type and digest of a manifest, verified. Raises `Refused`, `UpstreamError`."""
        async with self.exchange(request, "GET", route=route, follow=True) as response:
            if response.status != 200:
                raise Refused(await snapshot(response))
            body = await response.read(MAX_MANIFEST)
            media_type = response.headers.get("content-type", "")
        wanted = route.reference
        digest = Digest.of(body, wanted.algorithm if isinstance(wanted, Digest) else "sha256")
        if isinstance(wanted, Digest) and digest != wanted:
            raise InvalidResponse(request.registry.name, f"sent a manifest {digest} for {wanted}")
        return body, media_type, digest


class HeadRefused(UpstreamError):
    """A HEAD got `status`; whether the client may, and in which words not, only a GET tells."""

    def __init__(self, status: int) -> None:
        super().__init__("upstream", f"answered HEAD with {status}")
        self.status = status


def trouble(failure: Refused | UpstreamError) -> str | None:
    """What ails upstream, in one clause; None when it has given a verdict that holds, such as 401 or 404."""
    match failure:
        case Refused():
            status = failure.answer.status
        case HeadRefused():
            status = failure.status
        case Down():
            return "upstream is down"
        case Slow():
            return "upstream is slow"
        case _:
            return "upstream is away"
    if status == TOO_MANY:
        return "upstream throttles"
    return "upstream is in trouble" if status in RETRIABLE or status > max(RETRIABLE) else None


async def snapshot(response: Response) -> Answer:
    """A small answer of upstream's, ready to be passed on."""
    verdict: Verdict = "pass" if response.status < 400 else "refused"
    body = await response.read(MAX_MESSAGE)
    length = response.content_length
    return Answer(
        response.status, relayed(response.headers), body, verdict, f"upstream says {response.status}", length=length
    )


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
    """`entrepot.upstream.source.Source`: one blob, asked for with the credential of one client.

    Where a redirect to another host has led is remembered for as long as the transfer lasts: ranges and resumptions go
    there at once, which spares the registry the question, and needs no token. A signed URL is a credential: it is kept
    in memory only, and when it is refused or fails the registry is asked for a new one.
    """

    def __init__(self, upstreams: Upstreams, request: PullRequest) -> None:
        self._upstreams, self._request = upstreams, request
        self.name = request.registry.name
        self.accepted = False
        """Upstream has answered this client's credential with bytes: the proof of access."""
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
            yield await self._opened(response, offset)

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

    async def _opened(self, response: Response, offset: int) -> Opened:
        chunks = self._upstreams.paced(self._request, response)
        if response.status == 206:
            start, total = _content_range(response)
            return Opened(start, total, chunks, ranges=True)
        if response.status == 200:
            ranges = "bytes" in response.headers.get("accept-ranges", "").lower()
            return Opened(0, response.content_length, chunks, ranges)
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
