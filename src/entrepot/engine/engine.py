"""A pull request in, an answer out."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from entrepot.cache.interface import BlobStore, Records, StoreError
from entrepot.engine.access import Access
from entrepot.engine.admission import Admission
from entrepot.engine.blobs import Blobs
from entrepot.engine.conduct import Conduct
from entrepot.engine.identity import Identities, Identity
from entrepot.engine.manifests import Manifests
from entrepot.engine.messages import Answer, PullRequest, Refused
from entrepot.engine.policy import Policy
from entrepot.engine.prefetch import Prefetch
from entrepot.engine.publicness import Publicness
from entrepot.engine.upstreams import Upstreams
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry import oci_errors
from entrepot.registry.routes import BlobRoute, ManifestRoute, Ping, Route
from entrepot.upstream.bandwidth import Bandwidth
from entrepot.upstream.client import UpstreamClient
from entrepot.upstream.errors import LoopDetected, TimedOut, UpstreamError
from entrepot.upstream.quota import Quotas
from entrepot.upstream.source import Effort
from entrepot.upstream.transfers import Transfers

BAD_GATEWAY: Final = 502
GATEWAY_TIMEOUT: Final = 504
LOOP_DETECTED: Final = 508
INTERNAL: Final = 500


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
        self._identities = Identities(key)
        self.quotas = Quotas()
        self.conduct = Conduct(records, clock)
        self._bandwidth = bandwidth or Bandwidth()
        self._transfers = transfers
        self._upstreams = Upstreams(client, self.quotas, self._bandwidth, self.conduct, clock)
        self._admission = Admission(
            Access(records, clock),
            Publicness(self._upstreams),
            policy,
            is_down=lambda request: False,
            on_accepted=_nothing,
        )
        self._manifests = Manifests(records, self._admission, self._upstreams, policy, clock)
        prefetch = Prefetch(blobs, records, self._admission, transfers, self._upstreams)
        self._blobs = Blobs(blobs, transfers, self._admission, self._upstreams, policy, prefetch, clock)
        self.reconfigure(policy)

    def reconfigure(self, policy: Policy) -> None:
        """From the next request on."""
        self._manifests.policy = self._blobs.policy = self._admission.policy = policy
        self._bandwidth.reconfigure(policy.bandwidth, policy.workers)
        self._transfers.effort = Effort(policy.attempts, fill_alone=policy.prefetch)

    @staticmethod
    def takes(method: str, route: Route | None) -> bool:
        """Whether `answer` is for this request; all else passes through."""
        return method in {"GET", "HEAD"} and isinstance(route, BlobRoute | ManifestRoute | Ping)

    async def answer(self, request: PullRequest) -> Answer:
        """Never raises on anything that upstream, the client or the disk can cause."""
        identity = self._identities.identify(request.registry.name, request.headers.get("authorization"))
        request = replace(request, identity=identity)
        try:
            match request.route:
                case BlobRoute() as route:
                    return await self._blobs.answer(request, route)
                case ManifestRoute() as route:
                    return await self._manifests.answer(request, route)
                case _:
                    return await self._upstreams.relay(request)
        except Refused as e:
            return e.answer
        except EntrepotError as e:
            return failure(e)


async def _nothing(identity: Identity) -> None:
    """Until there are verifiers."""


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
        case _:
            status = BAD_GATEWAY
    body = oci_errors.error_body(oci_errors.UNAVAILABLE, f"entrepot: {error}")
    return Answer(status, Headers([("Content-Type", oci_errors.CONTENT_TYPE)]), body, "failed", str(error))
