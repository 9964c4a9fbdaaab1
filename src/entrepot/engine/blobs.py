"""Blobs: served from the store, or to everybody while they come in.

Decides whether an asker is admitted before any byte, which transfer it reads along with, and which part of the blob
it gets. A blob never expires; its digest is its only name, whatever repository or registry it came through.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

from entrepot.cache.interface import BlobStore, DigestMismatch, StoreError
from entrepot.engine.admission import Admission
from entrepot.engine.bodies import DistantBody, GrowingBody, HeldBody, PassingBody
from entrepot.engine.errands import Errands
from entrepot.engine.fields import API_VERSION, BLOB_TYPE, FOR_EVER, matches_etag, of_content
from entrepot.engine.flights import Flights
from entrepot.engine.indistinct import ask_in_vain
from entrepot.engine.messages import Answer, Body, PullRequest, Refused, Verdict
from entrepot.engine.policy import Policy
from entrepot.engine.prefetch import Prefetch
from entrepot.engine.sources import BlobSource, distant, past_the_store
from entrepot.engine.upstreams import HeadRefused, Upstreams, snapshot
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.digests import Digest
from entrepot.registry.manifests import Descriptor
from entrepot.registry.ranges import Range, Unsatisfiable, content_range, parse_range
from entrepot.registry.routes import BlobRoute
from entrepot.tasks import spawn
from entrepot.upstream.errors import InvalidResponse, UpstreamError
from entrepot.upstream.fetch import WrongBytes
from entrepot.upstream.transfer import Transfer
from entrepot.upstream.transfers import ATTEMPTS, Transfers

FAR: Final = 4 << 20  # bytes ahead of a growing blob from which a range is asked for separately

NO: Final = frozenset({401, 403, 404})
"""What a registry answers a HEAD when it means it; else it may be that it knows no HEAD."""


class Blobs:
    """Answers requests for blobs."""

    def __init__(
        self,
        store: BlobStore,
        transfers: Transfers,
        admission: Admission,
        upstreams: Upstreams,
        errands: Errands,
        policy: Policy,
        prefetch: Prefetch,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._transfers, self._admission = store, transfers, admission
        self._upstreams, self._errands, self._clock = upstreams, errands, clock
        self.policy = policy
        self._prefetch = prefetch
        self._proofs: Flights[tuple[str, ...], None] = Flights("proof")

    async def answer(self, request: PullRequest, route: BlobRoute) -> Answer:
        """Raises `Refused`, `UpstreamError`, `StoreError`, `TransferError`."""
        try:
            return await self._answer(request, route)
        except Refused as refusal:
            await self._admission.refused(request, route.repository, refusal.answer.status)
            raise

    async def _answer(self, request: PullRequest, route: BlobRoute) -> Answer:
        digest = route.digest
        if matches_etag(request.headers, digest):
            if not (known := self._admitted(request, route)):
                await self._prove(request, route)
            fields = Headers(of_content(digest, BLOB_TYPE, status="hit"))
            return Answer(304, fields, verdict="hit", why="not modified", admitted=known or "checked")
        admitted = self._admitted(request, route)
        if admitted or self._store_has(digest):
            if not admitted and not self._comes_from_here(request, route):
                await self._prove(request, route)
            return await self._serve(request, route, "hit" if admitted else "proved", admitted or "checked")
        if request.method == "HEAD":
            return await self._head_unheld(request, route)
        try:
            return await self._fetch(request, route)
        except Refused:
            referrer = self._referrer(request, route)
            await ask_in_vain(self._errands, self._upstreams, request, route.repository, referrer)
            raise

    def _store_has(self, digest: Digest) -> bool:
        if self._transfers.running(digest) is not None:
            return True
        if (held := self._store.open(digest)) is None:
            return False
        held[1].close()
        return True

    async def _serve(self, request: PullRequest, route: BlobRoute, verdict: Verdict, admitted: str) -> Answer:
        """For an asker that is admitted."""
        digest = route.digest
        if (held := self._store.open(digest)) is not None:
            size, reader = held
            self._store.touch(digest, self._clock())
            answer = self._reply(request, digest, size, verdict, lambda start, stop: HeldBody(reader, start, stop))
            return replace(answer, admitted=admitted)
        if request.method == "HEAD" and self._transfers.running(digest) is None:
            return await self._head_unheld(request, route)
        return await self._fetch(request, route)

    async def _fetch(self, request: PullRequest, route: BlobRoute) -> Answer:
        """In its own name, or in the one in which it may be asked for."""
        answer, _ = await self._errands.asking(
            request, route.repository, self._referrer(request, route), lambda one: self._fetch_as(one, route)
        )
        return answer

    def _referrer(self, request: PullRequest, route: BlobRoute) -> Digest | None:
        return self._admission.referrer(request, route.repository, route.digest)

    async def _fetch_as(self, request: PullRequest, route: BlobRoute, tries: int = ATTEMPTS) -> Answer:
        """Starts the transfer, which is then the proof of access, or reads along with the one that runs."""
        digest = route.digest
        size = self._admission.size_of(request, route.repository, digest)
        source = BlobSource(self._upstreams, request)
        transfer, mine = self._transfers.join(digest, source, size)
        if not mine:
            if not self._admitted(request, route) and not self._comes_from_here(request, route):
                await self._prove(request, route)
            transfer.offer(source)
        try:
            await transfer.opened()
        except Refused:
            if mine:
                raise
            return await self._fetch_as(request, route)  # it was somebody else's credential that was refused
        except (DigestMismatch, WrongBytes) as e:  # nobody has read a byte of it yet: the next try may be better
            if tries > 1:
                return await self._fetch_as(request, route, tries - 1)
            raise InvalidResponse(request.registry.name, f"sent wrong bytes: {e}") from None
        except StoreError as e:
            return await self._past_the_store(request, digest, e)
        if source.accepted:
            request.trace.upstream = max(1, request.trace.upstream)  # by the process that fetches
            # It is of use to later requests only: this one's first byte does not wait for the disk.
            proved = transfer.size if transfer.verified else size  # upstream's word for it is not enough
            spawn(self._admit(request, route, proved), name=f"admit to {digest}")
            if mine and (spare := self._errands.spare(request, route.repository)) is not None:
                transfer.offer(BlobSource(self._upstreams, spare))
            if self.policy.prefetches(request.registry):
                self._prefetch.siblings(request, route)
        elif mine and not self._admitted(request, route):
            # Another process has, or brings, the blob: upstream was never asked in this client's name.
            await self._prove(request, route)
        verdict: Verdict = "miss" if source.accepted else "hit" if transfer.verified else "joined"
        return await self._along(request, digest, transfer, verdict)

    async def _past_the_store(self, request: PullRequest, digest: Digest, why: StoreError) -> Answer:
        """No room, or the disk refuses: the client is served all the same, by a request of its own (DESIGN rule 10)."""
        status, upstream, body = await past_the_store(self._upstreams, request, digest)
        fields = [*of_content(digest, BLOB_TYPE, status="fwd=miss"), ("Accept-Ranges", "bytes")]
        if (part := upstream.get("content-range")) is not None:
            fields.append(("Content-Range", part))
        return Answer(status, Headers(fields), body, "pass", f"not stored: {why}", length=body.length)

    async def _along(self, request: PullRequest, digest: Digest, transfer: Transfer, verdict: Verdict) -> Answer:
        """Reads along with a transfer; what it will not have for a while comes by a request of its own."""
        size = transfer.size
        if size is None:
            fields = [*of_content(digest, BLOB_TYPE, status="fwd=miss; stored"), ("Cache-Control", FOR_EVER)]
            return Answer(200, Headers(fields), GrowingBody(transfer), verdict, "size unknown")
        part = _asked_range(request, digest, size)
        far: PassingBody | None = None
        if request.method == "GET" and isinstance(part, Range):
            if self.policy.prefetches(request.registry):
                spawn(_fill_behind(transfer), name=f"fill behind a range of {digest}")
            suspicious = self._upstreams.conduct.is_suspicious(request.registry.name)
            if part.start > transfer.available + FAR and not suspicious:
                with suppress(UpstreamError):  # then it waits for the transfer
                    far = await distant(self._upstreams, request, part)

        def body(start: int, stop: int) -> Body:
            if far is not None:
                return DistantBody(transfer, start, stop, far)
            return GrowingBody(transfer, start, stop)

        return self._reply(request, digest, size, verdict, body)

    def _reply(
        self,
        request: PullRequest,
        digest: Digest,
        size: int,
        verdict: Verdict,
        body: Callable[[int, int], Body],
    ) -> Answer:
        status = "hit" if verdict in {"hit", "proved"} else "fwd=miss; stored"
        if verdict == "joined":
            status = "fwd=miss; collapsed"
        fields = [
            *of_content(digest, BLOB_TYPE, status=status),
            ("Accept-Ranges", "bytes"),
            ("Cache-Control", FOR_EVER),
        ]
        part = _asked_range(request, digest, size)
        if isinstance(part, Unsatisfiable):
            fields = [API_VERSION, ("Content-Range", content_range(part, size)), ("Accept-Ranges", "bytes")]
            return Answer(416, Headers(fields), verdict=verdict, why=f"of {size} bytes")
        if part is None:
            if request.method == "HEAD":
                return Answer(200, Headers(fields), verdict=verdict, length=size)
            return Answer(200, Headers(fields), body(0, size), verdict, length=size)
        fields.append(("Content-Range", content_range(part, size)))
        why = f"from byte {part.start}"
        return Answer(206, Headers(fields), body(part.start, part.stop), verdict, why, length=part.length)

    async def _head_unheld(self, request: PullRequest, route: BlobRoute) -> Answer:
        """In its own name, or in the one in which it may be asked for."""
        answer, _ = await self._errands.asking(
            request, route.repository, self._referrer(request, route), lambda one: self._head_as(one, route)
        )
        return answer

    async def _head_as(self, request: PullRequest, route: BlobRoute) -> Answer:
        """Size and existence, as upstream has them; a redirect is followed inside."""
        digest = route.digest
        async with self._upstreams.exchange(request, "HEAD", follow=False) as response:
            status, size = response.status, response.content_length
            if status >= 400:
                raise Refused(await snapshot(response))
        if status >= 300:  # how many bytes, only the place it points to knows, or a manifest
            known = self._admission.size_of(request, route.repository, digest)
            size = await self._size_by_redirect(request) if known is None else known
        await self._admit(request, route, size)
        fields = [*of_content(digest, BLOB_TYPE, status="fwd=miss"), ("Accept-Ranges", "bytes")]
        return Answer(200, Headers(fields), verdict="pass", why="upstream has it", length=size)

    async def _size_by_redirect(self, request: PullRequest) -> int | None:
        async with self._upstreams.exchange(request, "HEAD", follow=True) as response:
            return response.content_length if response.status == 200 else None

    def _admitted(self, request: PullRequest, route: BlobRoute) -> str:
        """Why; empty if upstream must be asked."""
        admitted = self._admission.admits(request, route.repository) or ""
        return admitted if admitted and self._admission.belongs(request, route.repository, route.digest) else ""

    def _comes_from_here(self, request: PullRequest, route: BlobRoute) -> bool:
        """It is on its way from this very repository, which the client may read: upstream's answer is proof enough."""
        transfer = self._transfers.running(route.digest)
        if transfer is None or not transfer.origin.serves(request.registry.name, route.repository):
            return False
        return self._admission.admits(request, route.repository) is not None

    async def _prove(self, request: PullRequest, route: BlobRoute) -> None:
        """Asks upstream whether this credential may have this blob here. Raises `Refused`."""
        key = (request.registry.name, route.path, request.identity.credential, request.method, request.asks)

        async def ask(one: PullRequest) -> None:
            try:
                await self._upstreams.head(one)
            except HeadRefused as refusal:
                if request.method == "HEAD" or refusal.status not in NO:
                    await self._upstreams.get_allowed(one)
                else:  # the same way as what is not held: else the time of a refusal would tell (DESIGN rule 3)
                    await self._transfers.ask(BlobSource(self._upstreams, one))

        async def prove() -> None:
            _, asked = await self._errands.asking(request, route.repository, self._referrer(request, route), ask)
            await self._admit(asked, route, None)

        try:
            await self._proofs.run(key, prove)
        except UpstreamError:  # which may have shown that the registry is gone, and then an older yes counts
            if not self._admitted(request, route):
                raise

    async def _admit(self, request: PullRequest, route: BlobRoute, size: int | None) -> None:
        """Upstream has just served, or offered, this blob to this credential."""
        await self._admission.accepted(request, route.repository)
        itself = Descriptor(BLOB_TYPE, route.digest, -1 if size is None else size)
        await self._admission.served(request, route.repository, itself)


async def _fill_behind(transfer: Transfer) -> None:
    """Clients that pull lazily ask for a few ranges of each layer and leave: the whole is filled all the same."""
    with suppress(EntrepotError):  # whoever really wants it will hear why
        await transfer.ended()


def _asked_range(request: PullRequest, digest: Digest, size: int) -> Range | Unsatisfiable | None:
    """The range of the request, None for the whole; `If-Range` with another validator asks for the whole."""
    condition = request.headers.get("if-range")
    if request.method == "HEAD" or (condition is not None and condition.strip() != f'"{digest}"'):
        return None
    return parse_range(request.headers.get("range"), size)
