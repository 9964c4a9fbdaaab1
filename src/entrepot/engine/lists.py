"""Lists of a repository: its tags, and what refers to a manifest of it.

Always upstream's own answer while it gives one: a list is never fresh enough to be served from memory. The last good
one is remembered, as it came, and is what those who may read the repository get while upstream is down, in trouble or
too slow (DESIGN rule 5). A refusal is passed on and never remembered.

What is remembered is bounded: `PAGES` answers of a repository's tags (queries share places), `FILTERS` of what refers
to one manifest, and only to manifests that the repository is known to have.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from entrepot.cache.interface import Document, Records, StoreError
from entrepot.engine.admission import Admission
from entrepot.engine.bodies import PassingBody
from entrepot.engine.fields import STALE, relayed
from entrepot.engine.messages import Answer, Body, PullRequest, Refused
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.publicness import SAYS_NO
from entrepot.engine.upstreams import Upstreams, snapshot, trouble
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ReferrersRoute, TagsRoute
from entrepot.upstream.errors import UpstreamError
from entrepot.upstream.redirects import origin
from entrepot.upstream.response import Response

MAX_LIST: Final = 1 << 20  # bytes of an answer that is remembered; a longer one is passed on as it comes
PAGES: Final = 64
FILTERS: Final = 8
UNCHANGED: Final = 600.0  # seconds before the same answer is written down again
KEPT: Final = ("content-type", "link", "docker-distribution-api-version", "oci-filters-applied")
_TARGET: Final = re.compile(r"<([^<>]*)>")


@dataclass(frozen=True, slots=True)
class Remembered:
    """The last good answer to one question."""

    query: str
    at: float  # epoch seconds
    fields: tuple[tuple[str, str], ...]
    body: str

    @classmethod
    def load(cls, value: Document | None) -> "Remembered | None":
        match value:
            case {
                "query": str(query),
                "at": float() | int() as at,
                "fields": list() as fields,
                "body": str(body),
            }:
                pairs = tuple((str(name), str(field)) for name, field in fields)
                return cls(query, at, pairs, body)
            case _:
                return None

    def document(self) -> Document:
        return {"query": self.query, "at": self.at, "fields": [list(pair) for pair in self.fields], "body": self.body}

    def says_the_same(self, other: "Remembered") -> bool:
        return (self.query, self.fields, self.body) == (other.query, other.fields, other.body)


class Lists:
    """Answers requests for lists. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        admission: Admission,
        upstreams: Upstreams,
        patience: Patience,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._records, self._admission, self._upstreams = records, admission, upstreams
        self._patience, self._clock = patience, clock
        self.policy = policy

    async def answer(self, request: PullRequest, route: TagsRoute | ReferrersRoute) -> Answer:
        """Raises `Refused`, `UpstreamError`."""
        admitted = self._admission.admits(request, route.repository) or ""
        last = self._last(request, route) if admitted else None
        if last is None:
            return await self._ask(request, route)
        if self._upstreams.is_down(request):
            return self._stale(last, admitted, "upstream is down")
        if not self._upstreams.may(request, "revalidate", request.method):
            return self._stale(last, admitted, "quota of upstream is short")
        try:
            return await self._ask_patiently(request, route)
        except (Refused, UpstreamError) as failure:
            why = trouble(failure)
            if request.identity.own and isinstance(failure, Refused) and failure.status in SAYS_NO:
                why = "upstream does not know a token of ours"  # it has been asked by nobody
            if why is None:
                raise
            return self._stale(last, admitted, why)

    async def _ask_patiently(self, request: PullRequest, route: TagsRoute | ReferrersRoute) -> Answer:
        """As `_ask`; raises `Slow` where the client had better have the last answer."""
        gone = False

        async def ask() -> Answer:
            answer = await self._ask(request, route)
            if gone and not isinstance(answer.body, bytes):
                answer.body.close()
            return answer

        try:
            return await self._patience.within(request.registry, ask())
        except BaseException:
            gone = True
            raise

    async def _ask(self, request: PullRequest, route: TagsRoute | ReferrersRoute) -> Answer:
        """Upstream's answer, remembered if it is good. A redirect is followed here, as everywhere."""
        async with AsyncExitStack() as stack:
            exchange = self._upstreams.exchange(request, "GET", follow=True)
            response = await stack.enter_async_context(exchange)
            if response.status >= 400:
                raise Refused(await snapshot(response))
            fields, chunks = _fields(request, response), response.chunks()
            start = await _start_of(chunks)
            body: bytes | Body = start
            if len(start) > MAX_LIST:
                body = PassingBody(_joined(start, chunks), stack.pop_all().aclose, response.content_length)
            elif response.status == 200 and response.encoding is None:
                await self._remember(request, route, fields, start)
            return Answer(response.status, fields, body, "pass", f"upstream says {response.status}", "checked")
        raise RuntimeError("unreachable: the block above returns or raises")

    def _last(self, request: PullRequest, route: TagsRoute | ReferrersRoute) -> Remembered | None:
        last = Remembered.load(self._records.get(_key(request, route)))
        return last if last is not None and last.query == route.query else None

    async def _remember(
        self, request: PullRequest, route: TagsRoute | ReferrersRoute, fields: Headers, body: bytes
    ) -> None:
        if isinstance(route, ReferrersRoute) and not self._admission.is_followed(
            request, route.repository, route.digest
        ):
            return
        if not _is_list(fields, body):
            return
        kept = tuple((name, value) for name, value in fields if name.lower() in KEPT)
        now, new = self._clock(), Remembered(route.query, self._clock(), kept, body.decode())
        before = self._last(request, route)
        if before is not None and before.says_the_same(new) and 0 <= now - before.at < UNCHANGED:
            return
        with suppress(StoreError):  # the client has its list all the same
            ttl = self.policy.outage_grace(request.registry)
            await self._records.put(_key(request, route), new.document(), ttl=ttl)

    def _stale(self, last: Remembered, admitted: str, why: str) -> Answer:
        fields = [
            *last.fields,
            ("Age", str(max(0, int(self._clock() - last.at)))),
            ("Cache-Status", "entrepot; hit; detail=stale"),
            *STALE,
        ]
        return Answer(200, Headers(fields), last.body.encode(), "stale", why, admitted)


def _key(request: PullRequest, route: TagsRoute | ReferrersRoute) -> str:
    place = int(Digest.of(route.query.encode()).hex[:8], 16)
    match route:
        case TagsRoute():
            what = f"tags/{place % PAGES}"
        case ReferrersRoute():
            what = f"referrers/{route.digest}/{place % FILTERS}"
    return f"list/{request.registry.name}/{route.repository}/{what}"


async def _start_of(chunks: AsyncIterator[bytes]) -> bytes:
    """The whole of a short body; of a long one what has come by the time that it is known to be long."""
    start = bytearray()
    async for chunk in chunks:
        start += chunk
        if len(start) > MAX_LIST:
            break
    return bytes(start)


async def _joined(start: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield start
    async for chunk in rest:
        yield chunk


def _is_list(fields: Headers, body: bytes) -> bool:
    """Whether it is what was asked for, and not the page of some gateway that answers 200 (DESIGN rule 1)."""
    if "json" not in fields.get("content-type", "").lower():
        return False
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def _fields(request: PullRequest, response: Response) -> Headers:
    """Upstream's own. Where a redirect was followed, a relative link to the next page would lead elsewhere."""
    fields = relayed(response.headers)
    if not response.redirected:
        return fields
    here = response.url

    def absolute(match: re.Match[str]) -> str:
        target = urlsplit(urljoin(here, match[1]))
        if origin(target) == origin(urlsplit(request.registry.upstream)):  # by whatever name the client calls it
            target = target._replace(scheme="", netloc="")
        return f"<{urlunsplit(target)}>"

    pairs = [(name, _TARGET.sub(absolute, value) if name.lower() == "link" else value) for name, value in fields]
    return Headers(pairs)
