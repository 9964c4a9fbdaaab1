"""Manifests: held by digest, found by tag.

Decides when a tag's record is believed, when it is checked and what a client gets meanwhile. A manifest is verified
before its first byte is sent (docker, podman, skopeo and crane do not check what a tag gives them themselves).

A tag that has moved is remembered with its new digest only once that manifest is held: until then the old one is what
a client can still have when upstream throttles or goes away (DESIGN rules 5 and 6).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from entrepot.cache.interface import Document, Records
from entrepot.engine.access import Access
from entrepot.engine.fields import matches_etag, of_content
from entrepot.engine.flights import Flights
from entrepot.engine.messages import Answer, PullRequest, Refused, Verdict
from entrepot.engine.policy import Policy
from entrepot.engine.upstreams import HeadRefused, Upstreams, trouble
from entrepot.headers import Headers
from entrepot.registry.digests import Digest, InvalidDigest
from entrepot.registry.manifests import Descriptor, InvalidManifest, parse_manifest
from entrepot.registry.mediatypes import accept_class
from entrepot.registry.routes import ManifestRoute
from entrepot.upstream.errors import UpstreamError

NO_SIZE: Final = -1


@dataclass(frozen=True, slots=True)
class TagRecord:
    """What a tag was when it was last looked at, for one class of `Accept`."""

    digest: Digest
    media_type: str
    size: int  # bytes of the manifest, -1 when upstream did not say
    checked: float  # epoch seconds
    moved: float  # epoch seconds at which it was first seen with this digest

    @classmethod
    def load(cls, value: Document | None) -> "TagRecord | None":
        match value:
            case {
                "digest": str(digest),
                "media_type": str(media_type),
                "size": int(size),
                "checked": float() | int() as checked,
                "moved": float() | int() as moved,
            }:
                return cls(Digest.parse(digest), media_type, size, checked, moved)
            case _:
                return None


class Manifests:
    """Answers requests for manifests."""

    def __init__(
        self, records: Records, access: Access, upstreams: Upstreams, policy: Policy, clock: Callable[[], float]
    ) -> None:
        self._records, self._access, self._upstreams, self._clock = records, access, upstreams, clock
        self.policy = policy
        self._checks: Flights[tuple[str, ...], TagRecord | None] = Flights("check")
        self._fetches: Flights[tuple[str, ...], tuple[Digest, str]] = Flights("manifest")

    async def answer(self, request: PullRequest, route: ManifestRoute) -> Answer:
        """Raises `Refused`, `UpstreamError`, `StoreError`."""
        if isinstance(route.reference, Digest):
            return await self._by_digest(request, route, route.reference)
        return await self._by_tag(request, route, route.reference)

    # by digest

    async def _by_digest(self, request: PullRequest, route: ManifestRoute, digest: Digest) -> Answer:
        held = self._held(digest)
        verdict: Verdict = "hit"
        if held is not None and not self._admitted(request, route.repository, digest):
            try:
                await self._upstreams.head(request)
            except HeadRefused:
                held = None  # let the GET say how
            else:
                verdict = "proved"
                await self._admit(request, route.repository)
        if held is not None:
            await self._belongs(request, route.repository, digest, *held)
            return self._reply(request, digest, *held, verdict, "held")
        if request.method == "HEAD":
            return await self._head_unheld(request, route.repository)
        await self._fetch(request, route)
        body, media_type = self._held(digest) or (b"", "")
        return self._reply(request, digest, body, media_type, "miss", "fetched")

    async def _head_unheld(self, request: PullRequest, repository: str) -> Answer:
        """Upstream's own answer: the GET that follows will fetch."""
        answer = await self._upstreams.relay(request, follow=True)
        if answer.status == 200:
            await self._admit(request, repository)
        return answer

    # by tag

    async def _by_tag(self, request: PullRequest, route: ManifestRoute, tag: str) -> Answer:
        registry, now = request.registry, self._clock()
        key = tag_key(registry.name, route.repository, tag, request.headers)
        record = TagRecord.load(self._records.get(key))
        granted = self._granted(request, route.repository)
        if record and granted and now - record.checked < self.policy.tag_ttl(registry):
            return await self._of_record(request, route, record, "hit", "fresh")
        spare = record if record and granted and self._held(record.digest) else None
        if spare and not self._upstreams.may(request, "revalidate", "HEAD"):
            return await self._of_record(request, route, spare, "stale", "quota of upstream is short")
        try:
            return await self._by_asking(request, route, key, record, spare=spare is not None)
        except (Refused, UpstreamError) as failure:
            if spare is None or (why := trouble(failure)) is None:
                raise
            return await self._of_record(request, route, spare, "stale", why)

    async def _by_asking(
        self, request: PullRequest, route: ManifestRoute, key: str, record: TagRecord | None, *, spare: bool
    ) -> Answer:
        """As upstream has it now. Raises what keeps it from saying; `spare`: there is something else to serve then."""
        if record is None and request.method == "GET":
            return await self._first_get(request, route, key)
        try:
            current = await self._checks.run(
                (key, self._principal(request), request.method), lambda: self._check(request, route, key, record)
            )
        except HeadRefused as failure:
            if spare and trouble(failure):
                raise
            current = None
        if current is None:  # upstream does not say which digest it is
            if request.method == "HEAD":
                return await self._head_unheld(request, route.repository)
            return await self._first_get(request, route, key)
        verdict: Verdict = "revalidated" if record and record.digest == current.digest else "miss"
        awaited = record is not None and not self._held(current.digest)
        answer = await self._of_record(request, route, current, verdict, "checked")
        if awaited and self._held(current.digest):
            await self._remember(key, request, route, current, record)
        return answer

    async def _check(
        self, request: PullRequest, route: ManifestRoute, key: str, record: TagRecord | None
    ) -> TagRecord | None:
        """A conditional HEAD of the tag: free of Docker Hub's quota. It proves access as well."""
        more = [("If-None-Match", f'"{record.digest}"')] if record else []
        status, fields = await self._upstreams.head(request, *more)
        await self._admit(request, route.repository)
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
        return await self._remember(key, request, route, current, record)

    async def _first_get(self, request: PullRequest, route: ManifestRoute, key: str) -> Answer:
        """The tag itself, fetched: one round trip instead of a HEAD and a GET, as a direct pull has it."""
        digest, media_type = await self._fetch(request, route)
        body, _ = self._held(digest) or (b"", "")
        now, before = self._clock(), TagRecord.load(self._records.get(key))
        await self._remember(key, request, route, TagRecord(digest, media_type, len(body), now, now), before)
        return self._reply(request, digest, body, media_type, "miss", "fetched", age=0)

    async def _remember(
        self, key: str, request: PullRequest, route: ManifestRoute, record: TagRecord, before: TagRecord | None
    ) -> TagRecord:
        if before and before.digest == record.digest:
            record = TagRecord(record.digest, record.media_type, record.size, record.checked, before.moved)
        value: dict[str, object] = {
            "digest": str(record.digest),
            "media_type": record.media_type,
            "size": record.size,
            "checked": record.checked,
            "moved": record.moved,
            "registry": request.registry.name,
            "repository": route.repository,
            "tag": str(route.reference),
        }
        await self._records.put(key, value)
        return record

    async def _of_record(
        self, request: PullRequest, route: ManifestRoute, record: TagRecord, verdict: Verdict, why: str
    ) -> Answer:
        age = self._clock() - record.checked
        held = self._held(record.digest)
        if held is not None:
            await self._belongs(request, route.repository, record.digest, *held)
            return self._reply(request, record.digest, *held, verdict, why, age=age)
        if request.method == "HEAD":
            fields = of_content(record.digest, record.media_type, status="hit; detail=record", age=age)
            length = None if record.size == NO_SIZE else record.size
            return Answer(200, Headers(fields), verdict=verdict, why=why, length=length)
        await self._fetch(request, ManifestRoute(route.repository, record.digest))
        body, media_type = self._held(record.digest) or (b"", "")
        return self._reply(request, record.digest, body, media_type, "miss", "fetched", age=age)

    # both

    async def _fetch(self, request: PullRequest, route: ManifestRoute) -> tuple[Digest, str]:
        """Gets it from upstream, verifies and keeps it; one GET however many ask with this credential at once."""
        key = (request.registry.name, route.path, self._principal(request), accept_class(_accept(request.headers)))

        async def get() -> tuple[Digest, str]:
            body, media_type, digest = await self._upstreams.manifest(request, route)
            await self._admit(request, route.repository)
            await self._records.put_bytes(manifest_key(digest), media_type.encode() + b"\n" + body)
            await self._belongs(request, route.repository, digest, body, media_type)
            return digest, media_type

        return await self._fetches.run(key, get)

    def _held(self, digest: Digest) -> tuple[bytes, str] | None:
        return held_manifest(self._records, digest)

    async def _belongs(
        self, request: PullRequest, repository: str, digest: Digest, body: bytes, media_type: str
    ) -> None:
        """Records that the repository has this manifest and all it refers to."""
        known = self._access.member(request.registry.name, repository, digest)
        if known is not None and known.followed:
            return
        itself = Descriptor(media_type, digest, len(body))
        try:
            info = parse_manifest(body, media_type)
        except InvalidManifest:
            children: tuple[Descriptor, ...] = ()  # an artifact of a kind we do not know: it is served all the same
        else:
            children = (*info.blobs, *info.manifests)
        await self._access.add_manifest(request.registry.name, repository, itself, children)

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
    ) -> Answer:
        status = "fwd=miss; stored" if verdict == "miss" else "hit" if verdict != "stale" else "hit; detail=stale"
        fields = of_content(digest, media_type, status=status, age=age)
        if verdict == "stale":
            fields.append(("Warning", '111 entrepot "Revalidation Failed"'))
        if matches_etag(request.headers, digest):
            return Answer(304, Headers(fields), verdict=verdict, why=why)
        return Answer(200, Headers(fields), body, verdict, why, length=len(body))

    def _principal(self, request: PullRequest) -> str:
        return self._access.principal(request.registry.name, request.headers.get("authorization"))

    def _granted(self, request: PullRequest, repository: str) -> bool:
        return self._access.granted(request.registry.name, repository, self._principal(request))

    def _admitted(self, request: PullRequest, repository: str, digest: Digest) -> bool:
        member = self._access.member(request.registry.name, repository, digest)
        return member is not None and self._granted(request, repository)

    async def _admit(self, request: PullRequest, repository: str) -> None:
        ttl = self.policy.access_ttl(request.registry)
        await self._access.grant(request.registry.name, repository, self._principal(request), ttl)


def held_manifest(records: Records, digest: Digest) -> tuple[bytes, str] | None:
    """Bytes and media type of a manifest in the store."""
    if (value := records.get_bytes(manifest_key(digest))) is None:
        return None
    media_type, _, body = value.partition(b"\n")
    return body, media_type.decode()


def manifest_key(digest: Digest) -> str:
    return f"manifest/{digest}"


def tag_key(registry: str, repository: str, tag: str, headers: Headers) -> str:
    """Where a tag's record is: registry, repository, tag and the class of `Accept`, as DESIGN rule 4 has it."""
    asked = Digest.of(accept_class(_accept(headers)).encode()).hex[:16]
    return f"tag/{registry}/{repository}/{tag}/{asked}"


def _accept(headers: Headers) -> list[str]:
    return headers.get_all("accept")
