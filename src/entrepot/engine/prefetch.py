"""The other layers of an image, fetched before they are asked for.

A client asks for three layers at a time; over a link with latency the rest might as well be on their way. It begins
when the first layer is fetched, not when the manifest is: clients that only look (`skopeo inspect`, containerd, which
reads the manifests of every platform) would cost the whole image. The credential is that of the client that asked,
used while its request is in memory and never kept; when it has ended, that of the box, if it has one, or nobody's. When
the registry's quota runs low nothing is fetched ahead: what is left of it is for what clients ask for.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from entrepot.cache.interface import BlobStore, Records
from entrepot.engine.admission import Admission
from entrepot.engine.errands import Errands
from entrepot.engine.heldmanifests import held_manifest
from entrepot.engine.messages import PullRequest
from entrepot.engine.sources import BlobSource
from entrepot.engine.upstreams import Upstreams
from entrepot.errors import EntrepotError
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor, InvalidManifest, parse_manifest
from entrepot.registry.routes import BlobRoute
from entrepot.tasks import spawn
from entrepot.upstream.transfers import Transfers

AT_ONCE: Final = 4  # prefetches under way in one process; what clients ask for themselves is not counted


class Prefetch:
    """Starts transfers nobody has asked for yet."""

    def __init__(
        self,
        store: BlobStore,
        records: Records,
        admission: Admission,
        transfers: Transfers,
        upstreams: Upstreams,
        errands: Errands,
    ) -> None:
        self._store, self._records, self._admission = store, records, admission
        self._transfers, self._upstreams, self._errands = transfers, upstreams, errands
        self._room = asyncio.Semaphore(AT_ONCE)
        self._wanted: set[Digest] = set()

    def siblings(self, request: PullRequest, route: BlobRoute) -> None:
        """Fetches what else the image of this layer needs, in its order, in the background."""
        for layer in self._layers(request, route):
            if layer.digest != route.digest:
                self.blob(request, route.repository, layer)

    def blob(self, request: PullRequest, repository: str, blob: Descriptor) -> None:
        """Fetches it in the background."""
        if blob.digest not in self._wanted:
            self._wanted.add(blob.digest)
            spawn(self._fetch(request, repository, blob), name=f"prefetch {blob.digest}")

    def _layers(self, request: PullRequest, route: BlobRoute) -> Iterable[Descriptor]:
        if (referrer := self._admission.referrer(request, route.repository, route.digest)) is None:
            return ()
        held = held_manifest(self._records, referrer)
        try:
            info = parse_manifest(*held) if held else None
        except InvalidManifest:
            return ()
        if info is None or info.kind != "image" or route.digest not in {layer.digest for layer in info.layers}:
            return ()
        return [layer for layer in info.blobs if not layer.foreign]

    async def _fetch(self, request: PullRequest, repository: str, layer: Descriptor) -> None:
        try:
            async with self._room:
                if self._transfers.running(layer.digest) is not None or self._held(layer.digest):
                    return
                asking = replace(request, route=BlobRoute(repository, layer.digest))
                if not self._upstreams.may(asking, "prefetch", "GET"):
                    return
                if self._upstreams.conduct.is_suspicious(request.registry.name):
                    return
                source = BlobSource(self._upstreams, asking)
                spare = self._errands.spare(asking, repository)
                others = [BlobSource(self._upstreams, spare)] if spare else []
                size = layer.size if layer.size >= 0 else None
                transfer, _ = self._transfers.join(layer.digest, source, size, others)
                try:
                    await transfer.opened()
                    if source.accepted:
                        await self._admission.served(asking, repository, layer)
                    await transfer.ended()
                except EntrepotError:
                    return  # whoever really wants it will hear why
        finally:
            self._wanted.discard(layer.digest)

    def _held(self, digest: Digest) -> bool:
        if (held := self._store.open(digest)) is None:
            return False
        held[1].close()
        return True
