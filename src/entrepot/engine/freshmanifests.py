"""Manifests as upstream has them: fetched, verified and kept, or asked for with HEAD.

Decides what counts as the same question, so that one GET serves all who ask it at once. Whether upstream is to be
asked at all, and what a tag means, is `manifests`'.
"""

from entrepot.cache.interface import Records
from entrepot.engine.admission import Admission
from entrepot.engine.errands import Errands
from entrepot.engine.flights import Flights
from entrepot.engine.heldmanifests import keep_manifest, note_belonging
from entrepot.engine.keeping import Keeping
from entrepot.engine.messages import Answer, PullRequest, Refused
from entrepot.engine.upstreams import Upstreams
from entrepot.registry.digests import Digest
from entrepot.registry.mediatypes import accept_class
from entrepot.registry.routes import ManifestRoute

type Fetched = tuple[Digest, bytes, str]
"""Digest, content, media type."""


def question_of(request: PullRequest, route: ManifestRoute) -> tuple[str, ...]:
    """All that upstream's answer depends on."""
    accept = accept_class(request.headers.get_all("accept"))
    return request.registry.name, request.method, route.path, request.identity.credential, request.asks, accept


class FreshManifests:
    """Asks upstream, in the client's own name or in the one in which it may be asked for."""

    def __init__(self, records: Records, admission: Admission, upstreams: Upstreams, errands: Errands) -> None:
        self._records, self._admission, self._upstreams, self._errands = records, admission, upstreams, errands
        self._keeping = Keeping(records)
        self._fetches: Flights[tuple[str, ...], Fetched] = Flights("manifest")

    async def fetch(self, request: PullRequest, route: ManifestRoute) -> Fetched:
        """Raises `Refused`, `UpstreamError`, `StoreError`."""
        fetched, _ = await self._errands.asking(
            request, route.repository, route.reference, lambda one: self._fetch_as(one, route)
        )
        return fetched

    async def head(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """Upstream's own answer about what is not held: the GET that follows will fetch. Raises as `fetch` does."""

        async def ask(one: PullRequest) -> Answer:
            answer = await self._upstreams.relay(one, follow=True)
            if answer.status >= 400:
                raise Refused(answer)
            return answer

        answer, asked = await self._errands.asking(request, route.repository, route.reference, ask)
        if answer.status == 200:
            await self._admission.accepted(asked, route.repository, route.reference)
        return answer

    async def _fetch_as(self, request: PullRequest, route: ManifestRoute) -> Fetched:
        """Gets it from upstream, verifies and keeps it; one GET however many ask with this credential at once."""

        async def get() -> Fetched:
            body, media_type, digest = await self._upstreams.manifest(request, route)
            await self._admission.accepted(request, route.repository, digest)
            await keep_manifest(self._records, digest, body, media_type)
            await self._keeping.follow(digest, body, media_type)
            await note_belonging(self._admission, request, route.repository, digest, body, media_type)
            return digest, body, media_type

        return await self._fetches.run(question_of(request, route), get)
