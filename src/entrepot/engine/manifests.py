"""Manifests: held by digest, found by tag.

Decides when a tag's record is believed, when it is checked and what a client gets meanwhile. A manifest is verified
before its first byte is sent (docker, podman, skopeo and crane do not check what a tag gives them themselves).

A tag that has moved is remembered with its new digest only once that manifest is held: until then the old one is what
a client can still have when upstream throttles or goes away (DESIGN rules 5 and 6).
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from entrepot.cache.interface import Records
from entrepot.engine.admission import Admission
from entrepot.engine.fields import matches_etag, of_content
from entrepot.engine.flights import Flights
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.negatives import TTL as ABSENT_FOR
from entrepot.engine.negatives import Negatives
from entrepot.engine.patience import Patience
from entrepot.engine.policy import Policy
from entrepot.engine.tags import NO_SIZE, TagRecord, Tags
from entrepot.engine.upstreams import HeadRefused, Upstreams, trouble
from entrepot.errors import EntrepotError
from entrepot.headers import Headers
from entrepot.registry.catalogue import Registry
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.manifests import Descriptor, InvalidManifest, parse_manifest
from entrepot.registry.mediatypes import accept_class
from entrepot.registry.routes import ManifestRoute
from entrepot.tasks import spawn
from entrepot.upstream.errors import UpstreamError


@dataclass(frozen=True, slots=True)
class _Tag:
    """One question for a tag, and what is known of it."""

    request: PullRequest
    route: ManifestRoute
    tag: str
    key: str  # of its record
    record: TagRecord | None
    admitted: str  # why the asker may have what is held; "" until upstream is asked


class Manifests:
    """Answers requests for manifests."""

    def __init__(
        self,
        records: Records,
        admission: Admission,
        upstreams: Upstreams,
        patience: Patience,
        policy: Policy,
        clock: Callable[[], float],
    ) -> None:
        self._records, self._admission, self._upstreams, self._clock = records, admission, upstreams, clock
        self._patience = patience
        self.tags = Tags(records)
        self.policy = policy
        self._absent = Negatives(clock)
        self._checks: Flights[tuple[str, ...], TagRecord | None] = Flights("check")
        self._fetches: Flights[tuple[str, ...], tuple[Digest, bytes, str]] = Flights("manifest")

    async def answer(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """Raises `Refused`, `UpstreamError`, `StoreError`."""
        question = self._question(request, route)
        if (absent := self._absent.get(question)) is not None and not self._has_changed(request, route):
            return absent
        try:
            if isinstance(route.reference, Digest):
                return await self._by_digest(request, route, route.reference)
            return await self._by_tag(request, route, route.reference)
        except Refused as refusal:
            self._absent.note(question, refusal.answer)
            await self._admission.refused(request, route.repository, refusal.answer.status)
            raise

    async def changed(self, registry: Registry, route: ManifestRoute) -> None:
        """Upstream has just accepted a push, or a deletion: what was known of the tag, or of its absence, is over."""
        if not isinstance(route.reference, Digest):
            await self.tags.forget(registry.name, route.repository, route.reference)
        await self._records.put(f"changed/{registry.name}{route.path}", {}, ttl=2 * ABSENT_FOR)

    def _has_changed(self, request: PullRequest, route: ManifestRoute) -> bool:
        """In any process, since an absence that is remembered here."""
        return self._records.get(f"changed/{request.registry.name}{route.path}") is not None

    @staticmethod
    def _question(request: PullRequest, route: ManifestRoute) -> tuple[str, ...]:
        """All that upstream's answer depends on."""
        accept = accept_class(request.headers.get_all("accept"))
        return request.registry.name, request.method, route.path, request.identity.credential, accept

    # by digest

    async def _by_digest(self, request: PullRequest, route: ManifestRoute, digest: Digest) -> Answer:
        held = self._held(digest)
        verdict: Verdict = "hit"
        admitted: str = self._admission.admits(request, route.repository) or ""
        if held is not None and not (admitted and self._admission.belongs(request, route.repository, digest)):
            try:
                await self._upstreams.head(request)
            except HeadRefused:
                held = None  # let the GET say how
            else:
                verdict, admitted = "proved", "checked"
                await self._admission.accepted(request, route.repository, digest)
        if held is not None:
            await self._belongs(request, route.repository, digest, *held)
            return self._reply(request, digest, *held, verdict, "held", admitted=admitted)
        if request.method == "HEAD":
            return await self._head_unheld(request, route)
        _, body, media_type = await self._fetch(request, route)
        return self._reply(request, digest, body, media_type, "miss", "fetched")

    async def _head_unheld(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """Upstream's own answer: the GET that follows will fetch."""
        answer = await self._upstreams.relay(request, follow=True)
        if answer.status == 200:
            await self._admission.accepted(request, route.repository, route.reference)
        elif answer.status >= 400:
            raise Refused(answer)
        return answer

    # by tag

    async def _by_tag(self, request: PullRequest, route: ManifestRoute, tag: str) -> Answer:
        now, key = self._clock(), self.tags.key(request, route)
        admitted = self._admission.admits(request, route.repository) or ""
        asked = _Tag(request, route, tag, key, self.tags.get(key), admitted)
        record = asked.record if admitted else None
        if record and 0 <= now - record.checked < self.policy.tag_ttl(request.registry, route.repository, tag):
            return await self._of_record(asked, record, "hit", "fresh")
        spare = record if record and self._held(record.digest) else None
        if spare and (at_once := self._unasked(asked, spare)) is not None:
            return await self._of_record(asked, spare, *at_once)
        try:
            if spare:
                return await self._patience.within(request.registry, self._by_asking(asked, spare=True))
            return await self._by_asking(asked, spare=False)
        except (Refused, UpstreamError) as failure:
            if not admitted or (why := trouble(failure)) is None:
                raise
            if (stale := spare or self._given_to_others(asked)) is None:
                raise
            return await self._of_record(asked, stale, "stale", why)

    def _unasked(self, asked: _Tag, spare: TagRecord) -> tuple[Verdict, str] | None:
        """Verdict and reason for what is held, if nobody waits for upstream; None if the client does."""
        request = asked.request
        if self._upstreams.is_down(request):
            return "stale", "upstream is down"
        if not self._upstreams.may(request, "revalidate", "HEAD"):
            return "stale", "quota of upstream is short"
        ttl = self.policy.tag_ttl(request.registry, asked.route.repository, asked.tag)
        if 0 <= self._clock() - spare.checked < ttl + self.policy.stale_while(request.registry):
            spawn(self._refresh(asked), name=f"check {asked.key}")
            return "hit", "being checked"
        return None

    async def _refresh(self, asked: _Tag) -> None:
        """A check that nobody waits for."""
        with suppress(EntrepotError):  # the next one who asks will hear of it
            await self._by_asking(asked, spare=True)

    def _given_to_others(self, asked: _Tag) -> TagRecord | None:
        """What askers with another `Accept` have, if this one takes it: better than nothing."""
        found = self.tags.others(asked.request, asked.route)
        return next((record for record in found if self._held(record.digest)), None)

    async def _by_asking(self, asked: _Tag, *, spare: bool) -> Answer:
        """As upstream has it now. Raises what keeps it from saying; `spare`: there is something else to serve then."""
        request = asked.request
        if asked.record is None and request.method == "GET":
            return await self._first_get(asked)
        try:
            current = await self._checks.run(
                (asked.key, request.identity.credential, request.method), lambda: self._check(asked)
            )
        except HeadRefused as failure:
            if spare and trouble(failure):
                raise
            current = None
        if current is None:  # upstream does not say which digest it is
            if request.method == "HEAD":
                return await self._head_unheld(request, asked.route)
            return await self._first_get(asked)
        same = asked.record is not None and asked.record.digest == current.digest
        awaited = asked.record is not None and not self._held(current.digest)
        answer = await self._of_record(asked, current, "revalidated" if same else "miss", "checked")
        if awaited and self._held(current.digest):
            await self.tags.put(asked.key, request, asked.route, current)
        return answer

    async def _check(self, asked: _Tag) -> TagRecord | None:
        """A conditional HEAD of the tag: free of Docker Hub's quota. It proves access as well."""
        request, record = asked.request, asked.record
        more = [("If-None-Match", f'"{record.digest}"')] if record else []
        status, fields = await self._upstreams.head(request, *more)
        await self._admission.accepted(request, asked.route.repository, asked.tag)
        now = self._clock()
        if status == 304 and record:
            digest, media_type, size = record.digest, record.media_type, record.size
        else:
            try:
                digest = Digest.parse(fields.get("docker-content-digest", ""))
            except InvalidDigest:
                return None
            media_type = fields.get("content-type", "")
            length = fields.get("content-length", "")
            size = int(length) if length.isdigit() else NO_SIZE
        current = TagRecord(digest, media_type, size, now, now)
        if record and record.digest != digest and self._held(record.digest) and not self._held(digest):
            return current
        return await self.tags.put(asked.key, request, asked.route, current)

    async def _first_get(self, asked: _Tag) -> Answer:
        """The tag itself, fetched: one round trip instead of a HEAD and a GET, as a direct pull has it."""
        digest, body, media_type = await self._fetch(asked.request, asked.route)
        now = self._clock()
        await self.tags.put(asked.key, asked.request, asked.route, TagRecord(digest, media_type, len(body), now, now))
        return self._reply(asked.request, digest, body, media_type, "miss", "fetched", age=0)

    async def _of_record(self, asked: _Tag, record: TagRecord, verdict: Verdict, why: str) -> Answer:
        request, repository = asked.request, asked.route.repository
        age = self._clock() - record.checked
        held = self._held(record.digest)
        if held is not None:
            await self._belongs(request, repository, record.digest, *held)
            admitted = asked.admitted if verdict in {"hit", "stale"} else "checked"
            return self._reply(request, record.digest, *held, verdict, why, age=age, admitted=admitted)
        if request.method == "HEAD":
            fields = of_content(record.digest, record.media_type, status="hit; detail=record", age=age)
            length = None if record.size == NO_SIZE else record.size
            return Answer(200, Headers(fields), verdict=verdict, why=why, length=length)
        _, body, media_type = await self._fetch(request, ManifestRoute(repository, record.digest))
        return self._reply(request, record.digest, body, media_type, "miss", "fetched", age=age)

    # both

    async def _fetch(self, request: PullRequest, route: ManifestRoute) -> tuple[Digest, bytes, str]:
        """Gets it from upstream, verifies and keeps it; one GET however many ask with this credential at once."""

        async def get() -> tuple[Digest, bytes, str]:
            body, media_type, digest = await self._upstreams.manifest(request, route)
            await self._admission.accepted(request, route.repository, digest)
            await self._records.put_bytes(manifest_key(digest), media_type.encode() + b"\n" + body)
            await self._belongs(request, route.repository, digest, body, media_type)
            return digest, body, media_type

        return await self._fetches.run(self._question(request, route), get)

    def _held(self, digest: Digest) -> tuple[bytes, str] | None:
        return held_manifest(self._records, digest)

    async def _belongs(
        self, request: PullRequest, repository: str, digest: Digest, body: bytes, media_type: str
    ) -> None:
        """Records that the repository has this manifest and all it refers to."""
        if self._admission.is_followed(request, repository, digest):
            return
        itself = Descriptor(media_type, digest, len(body))
        try:
            info = parse_manifest(body, media_type)
        except InvalidManifest:
            children: tuple[Descriptor, ...] = ()  # an artifact of a kind we do not know: it is served all the same
        else:
            children = (*info.blobs, *info.manifests)
        await self._admission.manifest(request, repository, itself, children)

    def _reply(
        self,
        request: PullRequest,
        digest: Digest,
        body: bytes,
        media_type: str,
        verdict: Verdict,
        why: str,
        *,
        age: float | None = None,
        admitted: str = "checked",
    ) -> Answer:
        status = "fwd=miss; stored" if verdict == "miss" else "hit" if verdict != "stale" else "hit; detail=stale"
        fields = of_content(digest, media_type, status=status, age=age)
        if verdict == "stale":
            fields.append(("Warning", '111 entrepot "Revalidation Failed"'))
        if matches_etag(request.headers, digest):
            return Answer(304, Headers(fields), verdict=verdict, why=why, admitted=admitted)
        return Answer(200, Headers(fields), body, verdict, why, admitted, length=len(body))


def held_manifest(records: Records, digest: Digest) -> tuple[bytes, str] | None:
    """Bytes and media type of a manifest in the store."""
    if (value := records.get_bytes(manifest_key(digest))) is None:
        return None
    media_type, _, body = value.partition(b"\n")
    return body, media_type.decode()


def manifest_key(digest: Digest) -> str:
    return f"manifest/{digest}"
