"""Questions to a registry, in the name of one client, or in the one that the request says.

Turns a pull request into an upstream exchange and what comes back into an answer or `Refused`. Decides nothing about
who may have the result. Every answer's word on the quota is noted here, and every byte of a blob passes the bandwidth
cap here.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final

from entrepot.engine.conduct import Conduct
from entrepot.engine.fields import relayed, to_upstream
from entrepot.engine.identity import ANONYMOUS
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.passes import Passes, Who
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute, Route
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import Down, InvalidResponse, Slow, UpstreamError
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Key, Purpose, Quotas, counts
from entrepot.upstream.response import Response

MAX_MANIFEST: Final = 4 << 20  # bytes; the distribution spec asks registries to take at least this much
MAX_MESSAGE: Final = 1 << 20  # bytes of an error, a token or a page of tags that is relayed
RETRIABLE: Final = frozenset({408, 429, 500, 502, 503, 504})  # upstream's trouble, not its verdict on the client
REFUSES_HEAD: Final = frozenset({405, 501})
TOO_MANY: Final = 429
UNAUTHORIZED: Final = 401
BOX: Final = "box"  # the quota of its own account, as the quota of a credential is known by


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
        self.passes = Passes(client, clock)
        self.health = health
        self._bandwidth = bandwidth
        self.conduct = conduct
        self.observed: Observer = _unobserved

    def may(self, request: PullRequest, purpose: Purpose, method: str) -> bool:
        """Whether the quota it would draw on allows a request like this that nobody waits for."""
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

    def bulk(self, request: PullRequest, response: Response) -> AsyncIterator[bytes | memoryview]:
        """The same for who is done with a piece when asking for the next: see `Response.bulk`."""
        return self._bandwidth.pace(request.registry, response.bulk())

    def is_capped(self, request: PullRequest) -> bool:
        """Whether a cap says how fast blobs of this registry may come."""
        return self._bandwidth.is_capped(request.registry)

    def _quota_key(self, request: PullRequest) -> Key:
        names = {"client": request.identity.credential, "nobody": ANONYMOUS, "box": BOX}
        return request.registry.name, names[request.asks]

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
        """One exchange in the name of which the request speaks; `route` if not its own. Raises `UpstreamError`.

        `insist`: also while upstream is known to be down.
        """
        registry, asked = request.registry, route or request.route
        request.trace.upstream += 1
        opening = self._client.follow if follow else self._client.open

        def ask(target: str, headers: Headers) -> AbstractAsyncContextManager[Response]:
            return opening(method, registry.upstream + target, headers, ca=registry.ca, insist=insist)

        async with AsyncExitStack() as stack:
            if request.asks == "client":
                response = await stack.enter_async_context(ask(asked.target, to_upstream(request.headers, *more)))
            else:
                fields = to_upstream(request.headers.without("authorization"), *more)
                again = partial(ask, asked.path)
                response = await self._with_a_pass(stack, request, request.asks, again, fields)
            self._quotas.observe(self._quota_key(request), response.headers, response.status, self._clock())
            if not response.elsewhere and request.asks == "client":
                await self.observed(request, response.status, response.headers)
            yield response

    async def _with_a_pass(
        self,
        stack: AsyncExitStack,
        request: PullRequest,
        who: Who,
        ask: Callable[[Headers], AbstractAsyncContextManager[Response]],
        fields: Headers,
    ) -> Response:
        """Not in a client's name: what is challenged is asked once more, with what answers the challenge."""
        shown = await self.passes.known(request, who)
        response = await stack.enter_async_context(ask(_showing(fields, shown)))
        if response.status != UNAUTHORIZED or response.elsewhere:
            return response
        issued = await self.passes.issue(request, who, response.headers, instead_of=shown)
        if issued is None:
            return response
        await stack.aclose()
        response = await stack.enter_async_context(ask(_showing(fields, issued)))
        if response.status == UNAUTHORIZED and not response.elsewhere:
            await self.passes.refused(request, who)
        return response

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

    async def as_nobody(
        self, method: str, request: PullRequest, route: ManifestRoute, *more: tuple[str, str]
    ) -> tuple[int, Headers]:
        """Status and fields of what is asked with nobody's rights: no credential but one in `more`."""
        headers = to_upstream(request.headers.without("authorization"), *more)
        registry = request.registry
        async with self._client.open(method, registry.upstream + route.target, headers, ca=registry.ca) as response:
            self._quotas.observe((registry.name, ANONYMOUS), response.headers, response.status, self._clock())
            return response.status, response.headers

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


def _showing(fields: Headers, authorization: str | None) -> Headers:
    return fields if authorization is None else fields.with_("Authorization", authorization)


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
