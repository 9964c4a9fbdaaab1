"""What belongs to a held tag and is not here, fetched when somebody pulls it (DESIGN rule 7).

A held image has to be whole before upstream loses it. The first pull of it in a process brings what is missing, in the
name of whoever pulls, beside the pull: what refers to it (signatures, SBOMs), and the blobs of those platforms of which
there is something already. Other platforms are left to who wants them. No blob is fetched when the quota is short.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from entrepot.cache.interface import BlobStore, Records
from entrepot.engine.heldmanifests import held_manifest
from entrepot.engine.keeping import Keeping, children
from entrepot.engine.messages import Answer, PullRequest
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor
from entrepot.registry.mediatypes import is_manifest
from entrepot.registry.routes import ManifestRoute, ReferrersRoute
from entrepot.tasks import spawn

AGAIN: Final = 3600.0  # seconds after which a process looks again
MOST: Final = 1024  # images that it remembers to have looked at
MOST_REFERRERS: Final = 32

type Ask[R] = Callable[[PullRequest, R], Awaitable[Answer]]
type Fetch = Callable[[PullRequest, str, Descriptor], None]
"""Starts the transfer of a blob of a repository, in the background."""


class Gathering:
    """For one process. `clock` gives epoch seconds."""

    def __init__(
        self,
        records: Records,
        store: BlobStore,
        manifest: Ask[ManifestRoute],
        referrers: Ask[ReferrersRoute],
        fetch: Fetch,
        clock: Callable[[], float],
    ) -> None:
        self._records, self._store, self._clock = records, store, clock
        self._manifest, self._referrers, self._fetch = manifest, referrers, fetch
        self._keeping = Keeping(records)
        self._looked: dict[Digest, float] = {}

    def begin(self, request: PullRequest, repository: str, digest: Digest) -> None:
        """A client has just been given this manifest, which is held."""
        now = self._clock()
        if 0 <= now - self._looked.get(digest, -AGAIN) < AGAIN:
            return
        if len(self._looked) >= MOST:
            self._looked.clear()
        self._looked[digest] = now
        spawn(self._gather(request, repository, digest), name=f"gather {digest}")

    async def _gather(self, request: PullRequest, repository: str, digest: Digest) -> None:
        registry = request.registry.name
        with suppress(EntrepotError):  # not every registry knows what refers to a manifest
            route = ReferrersRoute(repository, digest)
            answer = await self._referrers(replace(request, method="GET", route=route), route)
            if not isinstance(answer.body, bytes):
                answer.body.close()
        for one in self._keeping.referrers(registry, repository, digest)[:MOST_REFERRERS]:
            if held_manifest(self._records, one) is None:
                with suppress(EntrepotError):
                    wanted = ManifestRoute(repository, one)
                    await self._manifest(replace(request, method="GET", route=wanted), wanted)
        with suppress(EntrepotError):
            await self._keeping.keep(registry, repository, [str(digest)])
        for blob in self._missing(registry, repository, digest):
            self._fetch(request, repository, blob)

    def _missing(self, registry: str, repository: str, digest: Digest) -> list[Descriptor]:
        """Blobs to be fetched."""
        found: list[Descriptor] = []
        referrers = set(self._keeping.referrers(registry, repository, digest))
        for one in self._keeping.tree(registry, repository, digest):
            held = held_manifest(self._records, one)
            blobs = [each for each in children(*held) if not is_manifest(each.media_type)] if held else []
            missing = [blob for blob in blobs if not self._has(blob.digest)]
            if one in referrers or len(missing) < len(blobs):
                found += missing
        return found

    def _has(self, digest: Digest) -> bool:
        if (held := self._store.open(digest)) is None:
            return False
        held[1].close()
        return True
