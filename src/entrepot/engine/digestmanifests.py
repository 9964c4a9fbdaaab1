"""Manifests by digest: a digest never expires, so all there is to decide is whether the client may have it here.

Who is known to be admitted, to what is known to belong to the repository, gets what is held; for everybody else the
registry is asked, with a HEAD of the very digest. What is held by an operator's will (`kept`) is not lost when the
registry says that it has it no more: then the last yes to the client counts as in an outage (DESIGN rules 3 and 7).
"""

from typing import Final

from entrepot.cache.interface import Records
from entrepot.engine.admission import Admission
from entrepot.engine.errands import Errands
from entrepot.engine.freshmanifests import FreshManifests
from entrepot.engine.heldmanifests import held_manifest, note_belonging, reply
from entrepot.engine.indistinct import ask_in_vain
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.upstreams import HeadRefused, Upstreams
from entrepot.registry.digests import Digest
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.errors import UpstreamError

NOT_FOUND: Final = 404
GONE: Final = "upstream does not have it any more"


class DigestManifests:
    """Answers requests for manifests by digest."""

    def __init__(
        self,
        records: Records,
        admission: Admission,
        upstreams: Upstreams,
        errands: Errands,
        fresh: FreshManifests,
    ) -> None:
        self._records, self._admission, self._upstreams = records, admission, upstreams
        self._errands, self._fresh = errands, fresh

    async def answer(self, request: PullRequest, route: ManifestRoute, digest: Digest, *, kept: bool = False) -> Answer:
        """Raises `Refused`, `UpstreamError`, `StoreError`."""
        held = held_manifest(self._records, digest)
        verdict: Verdict = "hit"
        why, admitted = "held", self._admitted(request, route, digest)
        proved = held is not None and not admitted
        if proved:
            try:
                _, asked = await self._errands.asking(request, route.repository, digest, self._upstreams.head)
            except HeadRefused as refusal:
                gone = kept and refusal.status == NOT_FOUND
                if gone and (admitted := self._admitted(request, route, digest, lately=True)):
                    why = GONE
                else:
                    held = None  # let the GET say how
            except UpstreamError:  # which may have shown that the registry is gone, and then an older yes counts
                if not (admitted := self._admitted(request, route, digest)):
                    raise
                verdict = "stale"
            else:
                verdict, admitted = "proved", "checked" if asked is request else "public"
                await self._admission.accepted(asked, route.repository, digest)
        if held is not None:
            await note_belonging(self._admission, request, route.repository, digest, *held)
            return reply(request, digest, *held, verdict, why, admitted=admitted)
        if request.method == "HEAD":
            return await self._fresh.head(request, route)
        try:
            _, body, media_type = await self._fresh.fetch(request, route)
        except Refused:
            if not (admitted or proved):
                await ask_in_vain(self._errands, self._upstreams, request, route.repository, digest)
            raise
        return reply(request, digest, body, media_type, "miss", "fetched")

    def _admitted(self, request: PullRequest, route: ManifestRoute, digest: Digest, *, lately: bool = False) -> str:
        """Why it may have what is held of this repository; "" if upstream must be asked."""
        admits = self._admission.admits_of_late if lately else self._admission.admits
        admitted = admits(request, route.repository) or ""
        return admitted if admitted and self._admission.belongs(request, route.repository, digest) else ""
