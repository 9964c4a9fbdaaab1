"""A pull request in, an answer out."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from entrepot.cache.forgiving import Forgiving
from entrepot.cache.interface import BlobStore, Records, StoreError
from entrepot.engine import rules
from entrepot.engine.access import Access
from entrepot.engine.admission import Admission
from entrepot.engine.audit import Audit
from entrepot.engine.blobs import Blobs
from entrepot.engine.conduct import Conduct
from entrepot.engine.errands import Errands
from entrepot.engine.gathering import Gathering
from entrepot.engine.hashing import Busy
from entrepot.engine.lists import Lists
from entrepot.engine.manifests import Manifests
from entrepot.engine.messages import Answer, PullRequest, Refused, TokenRequest
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.prefetch import Prefetch
from entrepot.engine.publicness import Publicness
from entrepot.engine.reception import Reception
from entrepot.engine.sources import BlobSource
from entrepot.engine.upstreams import Upstreams, trouble
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.catalogue import Registry
from entrepot.registry.routes import BlobRoute, ManifestRoute, Ping, ReferrersRoute, Route, TagsRoute, TokenRoute
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import LoopDetected, TimedOut, UpstreamError
from entrepot.upstream.health import Health
from entrepot.upstream.quota import Quotas
from entrepot.upstream.source import Effort
from entrepot.upstream.transfers import Transfers

BAD_GATEWAY: Final = 502
GATEWAY_TIMEOUT: Final = 504
LOOP_DETECTED: Final = 508
INTERNAL: Final = 500
UNAVAILABLE: Final = 503


class Engine:
    """All of the decisions, over one store and one upstream client."""

    def __init__(
        self,
        blobs: BlobStore,
        records: Records,
        client: UpstreamClient,
        transfers: Transfers,
        *,
        key: bytes,
        policy: Policy,
        clock: Callable[[], float] = time.time,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        records = Forgiving(records)
        self.quotas = Quotas()
        self.conduct = Conduct(records, clock)
        self._bandwidth = bandwidth or Bandwidth()
        self._transfers = transfers
        self.health = Health(records, client.probe, clock)
        client.watched_by(self.health)
        patience = Patience(self.health)
        self.reception = Reception(records, client, self.health, patience, key=key, policy=policy, clock=clock)
        self._upstreams = Upstreams(client, self.health, self.quotas, self._bandwidth, self.conduct, clock)
        self._upstreams.observed = self.reception.observe
        self._admission = Admission(
            Access(records, clock),
            Publicness(self._upstreams),
            policy,
            is_out=self._upstreams.is_out,
            on_accepted=self.reception.accepted,
        )
        self._audit = Audit(self._admission)
        errands = Errands(self._upstreams, self._admission)
        self._manifests = Manifests(records, self._admission, self._upstreams, errands, patience, policy, clock)
        prefetch = Prefetch(blobs, records, self._admission, transfers, self._upstreams, errands)
        self._lists = Lists(records, self._admission, self._upstreams, patience, policy, clock)
        self._blobs = Blobs(blobs, transfers, self._admission, self._upstreams, errands, policy, prefetch, clock)
        gathering = Gathering(records, blobs, self._manifests.answer, self._lists.answer, prefetch.blob, clock)
        self._manifests.controlled.on_held = gathering.begin
        self.reconfigure(policy)

    def reconfigure(self, policy: Policy) -> None:
        """From the next request on."""
        self._policy = policy
        self._manifests.reconfigure(policy)
        self._blobs.policy = self._lists.policy = self._admission.policy = policy
        self.reception.reconfigure(policy)
        self._upstreams.passes.reload()
        self._bandwidth.reconfigure(policy.bandwidth, policy.workers)
        self._transfers.effort = Effort(policy.attempts, fill_alone=policy.prefetch)

    async def close(self) -> None:
        """Ends what runs in the background of its own; transfers, client and store are the caller's."""
        await self.health.close()

    def audited(self, request: PullRequest, answer: Answer) -> Mapping[str, object] | None:
        """What the audit log says each time that this answer is given to this request; None if nothing."""
        return self._audit.fields(request.of(self.reception.known(request)), answer)

    async def changed(self, registry: Registry, route: ManifestRoute) -> None:
        """Upstream has just accepted a push, or a deletion, of this manifest (DESIGN rule 9)."""
        await self._manifests.changed(registry, route)

    def source(self, request: PullRequest) -> BlobSource:
        """Where a blob comes from, asked for in the name of `request`."""
        return BlobSource(self._upstreams, request)

    async def grant(self, registry: Registry, wanted: int) -> int:
        """Of `wanted` bytes from a registry, how many may come now; waits until some may."""
        return await self._bandwidth.turn(registry, wanted)

    @staticmethod
    def takes(method: str, route: Route | None) -> bool:
        """Whether `answer`, or `token`, is for this request; all else passes through."""
        if isinstance(route, TokenRoute):
            return method == "POST" or (method == "GET" and route.asks)
        if isinstance(route, TagsRoute | ReferrersRoute):
            return method == "GET"
        return method in {"GET", "HEAD"} and isinstance(route, BlobRoute | ManifestRoute | Ping)

    async def answer(self, request: PullRequest) -> Answer:
        """Never raises on anything that upstream, the client or the disk can cause."""
        try:
            request = request.of(await self.reception.identify(request))
            answer = await self._answer(request)
            self._audit.note(request, answer)
            return answer
        except Refused as e:
            return self._challenge_instead(request, e) or e.answer
        except UpstreamError as e:
            return self._challenge(request, e) or failure(e)
        except EntrepotError as e:
            return failure(e)

    async def _answer(self, request: PullRequest) -> Answer:
        if (
            refusal := rules.refusal(self._policy, self._manifests.history, request.registry, request.route)
        ) is not None:
            return refusal
        match request.route:
            case BlobRoute() as route:
                return await self._blobs.answer(request, route)
            case ManifestRoute() as route:
                return await self._manifests.answer(request, route)
            case TagsRoute() | ReferrersRoute() as route:
                return await self._lists.answer(request, route)
            case Ping():
                return await self.reception.ping(request, self._upstreams.relay)
            case _:
                return await self._upstreams.relay(request)

    def _challenge(self, request: PullRequest, error: UpstreamError) -> Answer | None:
        """While the registry is away: who is not admitted is asked who he is, as the registry would ask.

        So each client's own way to a token runs against us. Who is admitted is told that upstream is away.
        """
        repository = getattr(request.route, "repository", None)
        if not isinstance(repository, str) or isinstance(error, LoopDetected) or not self._upstreams.is_out(request):
            return None
        if self._admission.admits(request, repository) is not None:
            return None
        showed = "authorization" in request.headers
        return self.reception.realms.challenge_for(request.registry, repository, insufficient=showed)

    def _challenge_instead(self, request: PullRequest, refusal: Refused) -> Answer | None:
        """Upstream throttles or fails: that is its answer to whom it would not have let in, too.

        Who has shown nothing yet gets the challenge that he would get, and shows what he has: with that he may be
        admitted to what is held. Who has shown what is known to be no good gets it for what is known to be private.
        """
        repository, identity = getattr(request.route, "repository", None), request.identity
        if trouble(refusal) is None or not isinstance(repository, str):
            return None
        if self._admission.admits(request, repository) is not None or self._admission.is_public(request, repository):
            return None
        showed = "authorization" in request.headers
        useless = identity.own or identity.is_void
        if showed and not (useless and self._admission.is_private(request, repository)):
            return None
        return self.reception.realms.challenge_for(request.registry, repository, insufficient=showed)

    async def token(self, request: TokenRequest) -> Answer:
        """The answer of a token service, or ours in its stead. Raises as little as `answer`."""
        try:
            return await self.reception.token(request)
        except EntrepotError as e:
            return failure(e)


def failure(error: EntrepotError) -> Answer:
    """Our own trouble in the words of the OCI distribution spec."""
    match error:
        case LoopDetected():
            status = LOOP_DETECTED
        case TimedOut():
            status = GATEWAY_TIMEOUT
        case UpstreamError():
            status = BAD_GATEWAY
        case StoreError():
            status = INTERNAL
        case Busy():
            status = UNAVAILABLE
        case _:
            status = BAD_GATEWAY
    body = oci_errors.error_body(oci_errors.UNAVAILABLE, f"entrepot: {error}")
    return Answer(status, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body, "failed", str(error))
