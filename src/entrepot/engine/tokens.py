"""Token services: relayed while they answer, stood in for while they do not (DESIGN rule 5).

1. The exchange goes to the real service, and its answer to the client, as they are. From a token that is given out we
   learn for whom it is, which tells later what a request that carries it stands for.
2. While the service or the registry is away a client gets a token of ours: for nobody if it has no credential, for its
   account if its password is verified. A password that contradicts what is kept is refused as the service refuses it.
   One that nothing is known of gets, for a pull, a token for nobody: public content is for everyone, and a client that
   is logged in has no other way to it. A login gets the service's trouble: nobody can say whether it is right.
3. A token for nobody gives away nothing, so any trouble of the service is reason enough for one. What has `grace`
   stands for more than a token of upstream's would, so it takes a probe that has found upstream away. Where the service
   shares the registry's host, which answers, it takes a look at the service itself, with nobody's rights.
4. A token of ours for an account is worth less to a registry that answers than its own. While it is only suspected that
   one of the two is away, the service is asked.
"""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from entrepot.cache.interface import Records, StoreError
from entrepot.engine.asking import Asking, asked_by
from entrepot.engine.fields import STALE, to_upstream
from entrepot.engine.flights import Flights
from entrepot.engine.granted import granted
from entrepot.engine.hashing import Busy
from entrepot.engine.identity import Identities, Issued
from entrepot.engine.messages import Answer, Refused, TokenRequest
from entrepot.engine.owntokens import LIFE, OwnTokens
from entrepot.engine.patience import Patience
from entrepot.engine.refusals import Refusals
from entrepot.engine.upstreams import snapshot, trouble
from entrepot.engine.verifiers import Verifiers
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import LoopDetected, Unreachable, UpstreamError

_log = logging.getLogger("entrepot.tokens")
UNAUTHORIZED: Final = 401


class Health(Protocol):
    """Whether the origins of URLs are there; `entrepot.upstream.health`."""

    def is_down(self, url: str) -> bool:
        """It has failed: who has something to serve without it does."""

    def is_out(self, url: str) -> bool:
        """The same, and a probe of ours has found so too: no client can bring it about."""


class Tokens:
    """Answers requests to token services. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        client: UpstreamClient,
        identities: Identities,
        verifiers: Verifiers,
        own: OwnTokens,
        health: Health,
        patience: Patience,
        clock: Callable[[], float] = time.time,
        service_of: Callable[[Registry], str | None] = lambda registry: None,
    ) -> None:
        """`service_of`: the URL of the token service that a registry has named, with its name in the query."""
        self._service_of = service_of
        self._looks: Flights[str, bool] = Flights("token service")
        self._client, self._identities, self._verifiers, self._own = client, identities, verifiers, own
        self._health, self._patience, self._clock = health, patience, clock
        self._refusals = Refusals(records, clock)

    async def answer(self, request: TokenRequest) -> Answer:
        """Raises `UpstreamError`, `Busy`."""
        asking = asked_by(request)
        enough = self._health.is_down if asking.nobody else self._health.is_out
        if self._any(request, enough) and (ours := await self._ours(request, asking)) is not None:
            return ours
        try:
            places = [request.origin, request.registry.upstream]
            answer = await self._patience.unless_out(request.registry.name, places, self._relayed(request))
        except UpstreamError as e:
            if isinstance(e, LoopDetected) or (ours := await self._instead(request, asking)) is None:
                raise
            return ours
        if trouble(Refused(answer)) is not None:
            return await self._instead(request, asking) or answer
        try:
            await self._learn(request, asking, answer)
        except (StoreError, Busy) as e:  # then the token stands for itself
            _log.warning("registry=%s: nothing learnt of a token: %s", request.registry.name, e)
        return answer

    def _any(self, request: TokenRequest, is_so: Callable[[str], bool]) -> bool:
        """Of the token service and of the registry: without one of them the other is of no use."""
        return is_so(request.origin) or is_so(request.registry.upstream)

    # theirs

    async def _relayed(self, request: TokenRequest) -> Answer:
        headers = to_upstream(request.headers)
        if request.method == "POST" and (kind := request.headers.get("content-type")) is not None:
            headers = headers.with_("Content-Type", kind)
        try:
            return await self._once(request, headers)
        except Unreachable:
            if request.method != "POST":
                raise
            # An idle connection may have been closed under it; a token asked for twice does no harm.
            return await self._once(request, headers)

    async def _once(self, request: TokenRequest, headers: Headers) -> Answer:
        url, body = request.origin + request.route.target, request.body if request.method == "POST" else None
        async with self._client.open(request.method, url, headers, ca=request.registry.ca, body=body) as response:
            return await snapshot(response)

    async def _learn(self, request: TokenRequest, asking: Asking, answer: Answer) -> None:
        """Raises `StoreError`, `Busy`."""
        if answer.status == UNAUTHORIZED and asking.claim is not None:
            await self._verifiers.refused(request.registry, asking.claim)
            await self._refusals.note(request, asking, answer)
        if answer.status != 200 or not (asking.claim or asking.nobody):
            return
        tokens, life = granted(answer.body)
        until = self._clock() + life
        if asking.claim is None:
            issued = Issued(until, anonymous=True)
        else:
            proof = await self._verifiers.proof(request.registry, asking.claim)
            account = self._verifiers.account(request.registry, proof) if proof else ""
            issued = Issued(until, False, account, asking.repositories, proof)
        for token in tokens:
            await self._identities.learn(token, issued)

    # ours

    async def _ours(self, request: TokenRequest, asking: Asking) -> Answer | None:
        """A token for whom we know. Raises `Busy`."""
        if not asking.understood:
            return None
        if asking.nobody:
            return self._made(request, "", asking, grace=self._any(request, self._health.is_out))
        if asking.claim is None:
            return None
        standing = await self._verifiers.standing(request.registry, asking.claim)
        if not standing.account:
            return None
        return self._made(request, standing.account, asking, grace=await self._is_out(request))

    async def _is_out(self, request: TokenRequest) -> bool:
        """No client has brought it about that the service, or the registry, gives nothing."""
        if self._any(request, self._health.is_out):
            return True
        url, asked = self._service_of(request.registry), request.origin + request.route.path
        if url is None or url.partition("?")[0] != asked:
            return False
        return await self._looks.run(url, lambda: self._gives_nothing(url, request.registry))

    async def _gives_nothing(self, url: str, registry: Registry) -> bool:
        try:
            status = await self._client.probe(url, registry.ca)
        except UpstreamError:
            return True
        return trouble(Refused(Answer(status, Headers([])))) is not None

    async def _instead(self, request: TokenRequest, asking: Asking) -> Answer | None:
        """What a client gets that upstream has no answer for; None when that is the service's trouble. As `_ours`."""
        if (ours := await self._ours(request, asking)) is not None or asking.claim is None or not asking.understood:
            return ours
        standing = await self._verifiers.standing(request.registry, asking.claim)
        if standing.verdict == "contradicted":
            return self._refusals.answer(request)
        grace = self._any(request, self._health.is_out)
        return self._made(request, "", asking, grace=grace) if asking.scoped else None

    def _made(self, request: TokenRequest, account: str, asking: Asking, *, grace: bool) -> Answer:
        now = datetime.fromtimestamp(self._clock(), UTC)
        token = self._own.mint(request.registry.name, account, asking.repositories, grace=grace)
        body = {
            "token": token,
            "access_token": token,
            "expires_in": LIFE,
            "issued_at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        fields = Headers([("Content-Type", "application/json"), ("Cache-Control", "no-store"), *STALE])
        why = "token of ours, " + ("for an account" if account else "for nobody")
        return Answer(200, fields, json.dumps(body, separators=(",", ":")).encode(), "stale", why)
